"""Peers in JAX: the processes that make their updates, in place of which a script answers here."""

import importlib.util
import json
import os
import stat
import sys
import textwrap

import pytest
import torch

from agent.config import CalQLConfig, NetworkConfig
from agent.spec import Spec
from tools.bench import learner
from tools.bench.jax_peers import FOLDERS, JaxPeer
from tools.bench.random_data import random_batch
from tools.common.report import Missing, Report

SPEC = Spec({"front": (84, 84, 3)}, {"proprio": 11}, 7)


@pytest.fixture
def folder(tmp_path):
    """A peer's folder, as far as it is looked at before the process starts."""
    for file, _ in FOLDERS.values():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return str(tmp_path)


@pytest.fixture
def python(tmp_path):
    """A function: Python source that gets the job and answers -> an interpreter which runs only that."""

    def make(source):
        script, path = tmp_path / "serve.py", tmp_path / "python"
        start = "import json, sys\njob = json.loads(sys.stdin.readline())\n"
        answer = "def answer(text):\n    print(text, flush=True)\n"
        script.write_text(start + answer + textwrap.dedent(source))
        path.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def peer(folder, python, name="WSRL", network=None, **options):
    return JaxPeer(name, folder, python, SPEC, network or NetworkConfig(critics=2), CalQLConfig(), 128, **options)


def test_what_is_missing_is_one_line_with_the_remedy(folder, tmp_path):
    with pytest.raises(Missing, match=r"^give a clone of github.com/zhouzypaul/wsrl-robot with --wsrl FOLDER$"):
        peer(None, "python")
    with pytest.raises(Missing, match=r"nowhere has no serl_launcher/.*/sac.py: give a clone of .*hil-serl"):
        peer(str(tmp_path / "nowhere"), "python", "hil-serl")
    with pytest.raises(Missing, match=r"--jax-python .*nothing: No such file"):
        peer(folder, str(tmp_path / "nothing"))
    with pytest.raises(Missing, match="spatial_softmax"):
        peer(folder, sys.executable, network=NetworkConfig(head="flatten"))


@pytest.mark.skipif(importlib.util.find_spec("jax") is not None, reason="JAX is here")
def test_an_environment_without_jax_is_named(folder):
    with pytest.raises(Missing, match=r"ModuleNotFoundError: No module named '(flax|jax)' \(in --jax-python"):
        peer(folder, sys.executable)


def test_it_gets_our_sizes_and_makes_an_update_for_each_step(folder, python, tmp_path):
    program = f"""
        answer(json.dumps({{"jax": "0"}}))
        for count, _ in enumerate(sys.stdin, 1):
            open({str(tmp_path / "seen.json")!r}, "w").write(json.dumps([count, job]))
            answer("done")
    """
    with peer(folder, python(program), updates=3) as made:
        made.step()
        made.step()
        process = made._process
    count, job = json.loads((tmp_path / "seen.json").read_text())
    assert count == 5 and made.about == {"jax": "0"}
    assert (job["batch"], job["cameras"], job["states"], job["actions"]) == (128, {"front": [84, 84, 3]}, 11, 7)
    assert (job["channels"], job["strides"], job["critics"], job["pad"]) == ([32] * 4, [2, 2, 1, 1], 2, 2)
    assert process.returncode is not None


def test_a_peer_that_fails_says_why_and_leaves_no_process(folder, python, tmp_path):
    program = f"""
        import os
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        answer("{{}}")
        sys.stdin.readline()
        raise ValueError("shapes differ")
    """
    with pytest.raises(Missing, match=r"^ValueError: shapes differ \(in --jax-python"):
        peer(folder, python(program))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


BUSY = """
    import time
    answer("{}")
    for _ in sys.stdin:
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        answer("done")
"""


def test_its_cpu_time_is_that_of_its_updates(folder, python):
    with peer(folder, python(BUSY), updates=0) as made:
        before = made.cpu_s()
        made.step()
        assert made.cpu_s() - before >= 0.05
        before = made.cpu_s()
        sum(range(1_000_000))  # ours is not its
        assert made.cpu_s() - before < 0.04


def test_images_are_held_against_those_that_are_there(folder, python, monkeypatch, capsys):
    small = {"channels": [4, 4, 4, 4], "features": 8, "actor_hidden": [8], "critic_hidden": [8]}
    monkeypatch.setattr(learner, "random_batch", lambda spec, count, device: random_batch(spec, 4, device))
    monkeypatch.setattr(learner, "NetworkConfig", lambda **options: NetworkConfig(**{**options, **small}))
    monkeypatch.setattr(learner, "ON_CPU", {"eager": learner.in_mode("eager")})
    report = Report("learner")
    learner.images(report, 2, {"WSRL": None, "hil-serl": folder}, python(BUSY), cpu_time=True)
    rows = {figure.name: figure for figure in report.figures}
    ratio = rows["images on the CPU, SAC / hil-serl"]
    assert ratio.target == 3.0
    ours, theirs = rows["images on the CPU, SAC"].value, rows["images on the CPU, hil-serl"].value
    assert ratio.value == pytest.approx(ours / theirs, abs=1e-3)
    assert theirs <= 1 / 0.05  # in CPU seconds of its process
    assert "images on the CPU, eager / WSRL" not in rows and "WSRL is left out: give a clone" in capsys.readouterr().out
    assert torch.get_float32_matmul_precision() == "highest"
