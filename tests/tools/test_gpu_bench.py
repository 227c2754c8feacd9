"""The GPU's benchmark, small and on a CPU: its rows, and that a second start goes on."""

import json

import pytest
import torch

from agent.spec import UserError
from tools.bench import gpu, updates

FLAGS = ["--device", "cpu", "--small"]


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The threads of the other tests; a CPU that is fast in bf16."""
    monkeypatch.setattr(updates, "bf16_cost", lambda: 0.2)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def start(path, *flags):
    gpu.main(["--json", str(path), *FLAGS, *flags])


def rows(path):
    return {name: {f["name"]: f["value"] for f in row} for name, row in json.loads(path.read_text())["rows"].items()}


def test_every_row_runs_and_a_second_start_makes_only_what_is_missing(tmp_path, monkeypatch, capsys):
    path = tmp_path / "gpu.json"
    start(path)
    first, said = rows(path), capsys.readouterr().out
    assert list(first) == [
        "limits", "mode eager", "mode eager, tf32", "mode eager, bf16", "several", "resnet18", "first", "shift"
    ]  # fmt: skip
    assert "mode graph is left out: learner.mode 'graph' needs a CUDA device" in said
    assert "WSRL is left out: give a clone" in said
    eager = first["mode eager"]
    assert eager["mode eager"] > 0 and eager["mode eager, FLOP/s / limit"] > 0
    assert first["resnet18"].keys() >= {"resnet18, channels_last / contiguous"}
    assert {"first convolution, one camera, 3 channels", "first convolution, one camera, 4 channels"} <= first[
        "first"
    ].keys()

    made = []
    for name in ("limits", "several", "resnet18", "first_layer"):
        monkeypatch.setattr(gpu, name, lambda report, work, known, name=name: made.append(name))
    monkeypatch.setattr(gpu, "random_shift", lambda report, work, known: report.add("again", known["mode eager"], "x"))
    written = json.loads(path.read_text())
    del written["rows"]["shift"]
    path.write_text(json.dumps(written))
    start(path)
    assert made == [] and rows(path) == {**first, "shift": {"again": eager["mode eager"]}}


def fails(report, work, known):
    raise RuntimeError("no kernel image")


def quick(report, work, known):
    report.add("quick", 1.0, "x")


def test_a_row_that_fails_does_not_cost_the_others_and_is_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "MODES", {})
    for name in ("limits", "several", "resnet18", "first_layer", "random_shift"):
        monkeypatch.setattr(gpu, name, fails if name == "several" else quick)
    start(tmp_path / "gpu.json")
    assert "several failed: RuntimeError: no kernel image" in capsys.readouterr().out
    assert list(rows(tmp_path / "gpu.json")) == ["limits", "resnet18", "first", "shift"]
    monkeypatch.setattr(gpu, "several", quick)
    start(tmp_path / "gpu.json")
    assert "several" in rows(tmp_path / "gpu.json")


def test_without_time_no_row_is_begun(tmp_path, capsys):
    start(tmp_path / "gpu.json", "--budget-s", "0")
    assert "limits and what follows are left for the next start" in capsys.readouterr().out
    assert not (tmp_path / "gpu.json").exists()


def test_a_file_of_something_else_is_refused_and_stays(tmp_path):
    path = tmp_path / "gpu.json"
    other = json.dumps({"about": {"device": "NVIDIA H100"}, "rows": {}})
    for text, told in ((other, "is of .*H100.*, and this is .*CPU"), ("[]", "no file of this benchmark")):
        path.write_text(text)
        with pytest.raises(UserError, match=told):
            start(path)
        assert path.read_text() == text
