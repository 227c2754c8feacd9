"""The GPU's benchmark, small and on a CPU: its rows, and that a second start goes on."""

import json

import pytest
import torch

from agent.calql import acceleration
from agent.run import checkpoint
from agent.spec import UserError
from tools.bench import gpu, gpu_curve
from tools.evaluate import evaluate

FLAGS = ["--device", "cpu", "--small"]


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The threads of the other tests; a CPU that is fast in bf16."""
    monkeypatch.setattr(acceleration, "bf16_cost", lambda: 0.2)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def learnt(demos, tmp_path):
    """The file, and the folder of checkpoints, of a run whose only rows are the curves."""
    path = tmp_path / "gpu.json"
    done = {
        name: [] for name in ("limits", "mode eager", "mode eager, tf32", "mode eager, bf16", "several", "resnet18")
    }
    about = {"device": "CPU", "small": True, "torch": torch.__version__}
    path.write_text(json.dumps({"about": about, "rows": {**done, "first": [], "shift": []}}))
    start(path, "--demos", str(demos), "--curve-updates", "20")
    return path, tmp_path / "gpu.curve"


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
    assert "WSRL is left out: give a clone" in said and "curve bf16 is left out: give a folder of demon" in said
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


def test_a_learning_curve_in_both_precisions_from_one_seed(learnt):
    path, folder = learnt
    found = {name: row for name, row in rows(path).items() if row}
    assert list(found) == ["curve fp32", "curve bf16"]
    fp32, bf16 = (found[name] for name in found)
    points = range(2, 21, 2)
    assert [f"curve fp32, {n} updates: TD loss" in fp32 and f"curve bf16, {n} updates: TD loss" in bf16 for n in points]
    q = {
        kind: [row[f"curve {kind}, {n} updates: Q of the data"] for n in points]
        for kind, row in (("fp32", fp32), ("bf16", bf16))
    }
    assert len(set(q["fp32"])) == len(points) and q["fp32"] != q["bf16"]
    assert q["bf16"] == pytest.approx(q["fp32"], rel=0.2)
    assert [(n, kind) for n, kind, _ in gpu_curve.checkpoints(folder)] == [
        (n, k) for n in points for k in ("bf16", "fp32")
    ]
    assert checkpoint.load(folder / "bf16-4.pt").counters == {"offline_updates": 4}


def test_the_success_of_each_point_comes_from_its_checkpoint(learnt, tmp_path):
    _, folder = learnt
    for path in folder.glob("*-[0-9].pt"):
        path.unlink()  # four are enough
    for path in folder.glob("*-1[0-6].pt"):
        path.unlink()
    out = tmp_path / "success.json"
    gpu_curve.main([str(folder), "--episodes", "2", "--json", str(out)])
    found = {each["name"]: each["value"] for each in json.loads(out.read_text())["results"]}
    assert list(found) == [f"curve {kind}, {n} updates: success" for n in (18, 20) for kind in ("bf16", "fp32")]
    again = evaluate(folder / "fp32-20.pt", episodes=2)
    assert found["curve fp32, 20 updates: success"] == again.success


def test_a_folder_without_curves_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoints of tools\.bench\.gpu --demos"):
        gpu_curve.main([str(tmp_path)])
