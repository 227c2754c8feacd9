"""The benchmarks' own sums: what is held against which target, and what a figure of memory is."""

import dataclasses
import json

import pytest
import torch

from agent.calql import acceleration
from agent.calql.algorithm import CalQL
from agent.config import CalQLConfig, NetworkConfig
from agent.env_record import EnvRecord
from agent.run.checkpoint import Checkpoint
from agent.spec import Spec, UserError
from tools.bench import kernels, learner, peers, replay_buffer, roofline, updates
from tools.bench.random_data import random_batch
from tools.common.report import Report

CPU = torch.device("cpu")
SMALL = {"channels": [4], "strides": [4], "features": 8, "state_features": 8, "actor_hidden": [8], "critics": 2}


def targets(report):
    """Name -> target of each row that has one."""
    return {figure.name: figure.target for figure in report.figures if figure.target is not None}


@pytest.fixture
def small(monkeypatch):
    """The learner's benchmark with little work in an update."""
    monkeypatch.setattr(learner, "random_batch", lambda spec, count, device: random_batch(spec, 4, device))
    monkeypatch.setattr(learner, "NetworkConfig", lambda **options: NetworkConfig(**{**options, **SMALL}))
    monkeypatch.setattr(learner, "matmul", lambda kind, size, device: roofline.matmul(kind, 32, device))
    monkeypatch.setattr(learner, "copy", lambda count, device: roofline.copy(1000, device))
    monkeypatch.setattr(learner, "kernel_seconds", lambda step, count: 1e-3)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(acceleration, "bf16_cost", lambda: 0.2)  # whatever this machine's


def refuse(*_):
    raise UserError("no compiler here")


def test_a_replay_grows_by_little_more_than_its_frames():
    frames = 300 * replay_buffer.FRAME_BYTES
    assert frames <= replay_buffer.growth("ours, host", 3) < 1.1 * frames


def test_an_impossible_growth_ends_the_benchmark(monkeypatch):
    monkeypatch.setattr(replay_buffer, "FRAME_BYTES", 10 * replay_buffer.FRAME_BYTES)
    with pytest.raises(SystemExit, match=r"ours, host: the process grew by .* measured wrongly"):
        replay_buffer.growth("ours, host", 2)


def test_only_fp32_is_held_against_targets_and_each_precision_against_its_own_peak(small, monkeypatch, capsys):
    def missing(*_):
        raise peers.Missing("get it")

    ways = {**learner.ON_CPU, "compile": refuse, "compile, bf16": learner.in_mode("eager", "all")}
    monkeypatch.setattr(learner, "ON_CPU", ways)
    monkeypatch.setattr(peers, "corl", lambda path, network, config, batch: lambda: None)
    monkeypatch.setattr(peers, "d3rlpy", missing)
    report = Report("learner")
    learner.states(report, 2, None)
    assert targets(report) == {"states, ours / CORL": 2.0, "states, ours / fp32 matrix peak": 0.8}
    rows = {figure.name: figure.value for figure in report.figures}
    assert "states, ours, compile, bf16 / bf16 matrix peak" in rows and "states, ours, compile, bf16 / CORL" in rows
    assert "states, ours, bf16 / bf16 matrix peak" in rows
    said = capsys.readouterr().out
    assert "ours, compile is left out: no compiler here" in said and "d3rlpy is left out: get it" in said


def test_rows_in_bf16_are_left_out_where_the_cpu_is_slow_in_it(small, monkeypatch, capsys):
    def missing(*_):
        raise peers.Missing("get it")

    monkeypatch.setattr(acceleration, "bf16_cost", lambda: 19.0)
    monkeypatch.setattr(
        learner, "ON_CPU", {**learner.ON_CPU, "compile": refuse, "compile, bf16": learner.ON_CPU["bf16"]}
    )
    monkeypatch.setattr(peers, "corl", missing)
    monkeypatch.setattr(peers, "d3rlpy", missing)
    report = Report("learner")
    learner.states(report, 2, None)
    learner.images(report, 2, {})
    rows = {figure.name for figure in report.figures}
    assert {"states, ours", "images on the CPU, eager", "matrix peak, fp32"} <= rows
    assert not [name for name in rows if "bf16" in name]
    assert "bf16 encoder is left out: learner.bf16 is 'encoder', but this CPU takes 19 times" in capsys.readouterr().out


def test_images_are_measured_without_a_compiler_too(small, monkeypatch, capsys):
    monkeypatch.setattr(learner, "ON_CPU", {"eager": learner.in_mode("eager"), "compile": refuse})
    report = Report("learner")
    learner.images(report, 2, {})
    assert "images on the CPU, eager" in {figure.name for figure in report.figures}
    assert "compile is left out: no compiler here" in capsys.readouterr().out


def test_compiled_rows_can_be_left_out(small, monkeypatch):
    def missing(*_):
        raise peers.Missing("get it")

    def compiles(*_):
        pytest.fail("it compiles")

    monkeypatch.setattr(peers, "corl", missing)
    monkeypatch.setattr(peers, "d3rlpy", missing)
    ways = {"eager": learner.in_mode("eager"), "bf16": learner.in_mode("eager", "all")}
    monkeypatch.setattr(learner, "ON_CPU", {**ways, "compile": compiles, "compile, bf16": compiles})
    report = Report("learner")
    learner.states(report, 2, None, compiled=False)
    learner.images(report, 2, {}, compiled=False)
    rows = {figure.name for figure in report.figures}
    assert {"states, ours", "states, ours, bf16", "images on the CPU, eager", "images on the CPU, bf16"} <= rows
    assert not [name for name in rows if "compile" in name]


def test_the_gpus_rows(small, monkeypatch):
    """On a CPU, in eager mode: rows that draw their batches, TF32 and bf16 among them."""
    ways = {
        "eager": learner.in_mode("eager"),
        "graph, batches from host memory": learner.in_mode("eager", storage="host"),
        "graph, batches from GPU memory": learner.in_mode("eager", storage="device"),
        "graph, tf32": learner.in_mode("eager", tf32=True),
        "graph, bf16": learner.in_mode("eager", "all"),
    }
    assert ways.keys() < learner.ON_GPU.keys()
    monkeypatch.setattr(learner, "ON_GPU", ways)
    report = Report("learner")
    learner.gpu(report, 2, CPU)
    assert torch.get_float32_matmul_precision() == "highest"
    assert targets(report) == {
        f"GPU, graph, batches from {place} memory{rest}": target
        for place in ("host", "GPU")
        for rest, target in ((" / eager", 5.0), (", kernels' share of a step", 0.9))
    }
    rows = {figure.name: figure.value for figure in report.figures}
    assert all(f"GPU, {name}, roofline / step" in rows for name in ways)
    assert {"GPU, one update: roofline, tf32", "GPU, graph, tf32 / eager"} <= rows.keys()


def test_the_longest_kernels_are_those_of_the_checkpoints_updates(tmp_path, capsys, logged, monkeypatch):
    monkeypatch.setattr(acceleration, "bf16_cost", lambda: 19.0)
    spec, network = Spec({"top": (16, 16, 3)}, {"proprio": 4}, 2), NetworkConfig(**SMALL)
    agent = CalQL(spec, network, CalQLConfig(), CPU, seed=0)
    config = {"network": dataclasses.asdict(network), "offline": {"batch": 3}, "learner": {"device": "cpu"}}
    Checkpoint(spec, EnvRecord(), config, agent.state_dict()).save(tmp_path / "tiny.pt")
    kernels.main(["--ckpt", str(tmp_path / "tiny.pt"), "--updates", "2", "--longest", "1000", "--bf16", "all"])
    first, *rest = capsys.readouterr().out.splitlines()
    listed = [line.split() for line in rest]  # milliseconds, "ms", times an update, "x", name
    assert "on cpu, eager, bf16 off;" in first  # as it is computed, not as it was asked for
    assert any("updates are computed in float32" in line for line in logged())
    convolutions = [float(words[2]) for words in listed if words[-1] == "aten::convolution_backward"]
    assert convolutions == [1.0]  # one camera, one layer, once an update
    assert [float(words[0]) for words in listed] == sorted((float(words[0]) for words in listed), reverse=True)


def test_a_row_as_users_run_it_draws_every_batch_anew(small, monkeypatch):
    spec = Spec({"front": (12, 12, 3)}, {"proprio": 2}, 2)
    agent = learner.CalQL(spec, NetworkConfig(**SMALL), learner.CalQLConfig(), CPU, 0)
    seen = []
    monkeypatch.setattr(agent, "learn", lambda batch, weights: seen.append(batch.actions.clone()))
    step = learner.in_mode("eager", storage="host")(agent, random_batch(spec, 8, CPU), learner.Weights(1.0, 1.0))
    step()
    assert len(seen) == updates.SETTLE + 1 and all(actions.shape == (8, 2) for actions in seen)
    assert not torch.equal(seen[-1], seen[-2])


def test_the_json_says_what_was_measured_and_with_how_many_threads(tmp_path):
    report = Report("learner, images")
    report.add("one", 1.0, "x", 2.0)
    report.finish(str(tmp_path / "out.json"))
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["title"] == "learner, images"
    assert written["machine"]["torch threads"] == torch.get_num_threads()
    assert written["results"] == [{"name": "one", "value": 1.0, "unit": "x", "target": 2.0, "met": True}]
