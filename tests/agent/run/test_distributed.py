"""Two processes with half of each batch against one with the whole of it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rank_worker
import torch
from forked import Program

from agent import learner, pretrain
from agent.calql.algorithm import Weights
from agent.data.episode_file import write_episode
from agent.data.episode_store import Store
from agent.run import checkpoint, farewell
from agent.run.distributed import Order, Ranks
from agent.run.trainer import Trainer
from agent.spec import UserError
from tools.common.process import free_port

ROOT = Path(__file__).parents[3]


@pytest.fixture
def job(tmp_path, make_episode, tiny_flags):
    """A folder with a pretrained checkpoint, its demonstrations, and episodes to come."""
    for k in range(3):
        write_episode(tmp_path / "demos" / f"e{k}.hdf5", make_episode(6, seed=100 + k, success=k != 1))
        write_episode(tmp_path / "episodes" / f"e{k}.hdf5", make_episode(5 + k, seed=k, success=k == 1, number=k))
    flags = [*tiny_flags, "--data", str(tmp_path / "demos"), "--run", str(tmp_path / "pre")]
    pretrain.main([*flags, "--updates", "3", "--out", str(tmp_path / "offline.pt"), "--lagrange-threshold", "0.8"])
    return tmp_path


def together(folder, *words):
    """Run two processes with the variables by which torchrun tells them of each other."""
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    ranks = [{**shared, "RANK": str(k), "LOCAL_RANK": str(k)} for k in range(2)]
    programs = [Program(*words, out=folder / f"out{k}", environ=rank) for k, rank in enumerate(ranks)]
    try:
        codes = [program.wait(120) for program in programs]
    finally:
        for program in programs:
            program.kill()
    assert codes == [0, 0], [program.said()[-3000:] for program in programs]


def assert_alike(one, other, whole):
    """Two processes' agents are equal to the bit, and near that of one process with the whole of each batch."""
    for part in ("policy", "critics", "targets", "average"):
        for name, value in whole[part].items():
            assert torch.equal(one[part][name], other[part][name]), f"the processes differ in {name}"
            torch.testing.assert_close(one[part][name], value, rtol=1e-4, atol=1e-5, msg=name)
            assert value.isfinite().all()
    for name in ("log_alpha", "log_multiplier"):
        torch.testing.assert_close(one[name], whole[name], rtol=1e-4, atol=1e-6)
    assert torch.equal(one["generator"], whole["generator"])


def test_two_processes_with_half_the_batch_equal_one_with_the_whole(job):
    together(job, ROOT / "tests/agent/run/rank_worker.py", job / "offline.pt", job, 20)
    one, other = (torch.load(job / f"rank{k}.pt", weights_only=True) for k in (0, 1))

    start = checkpoint.load(job / "offline.pt")
    alone = Trainer(start, start.run_config(), job, Ranks())
    rank_worker.make_updates(alone, job, 20)
    whole = alone.agent.state_dict()
    assert one["steps"] == other["steps"] == len(alone.replay) == 18
    assert_alike(one["agent"], other["agent"], whole)
    for name, state in alone.generators.items():
        assert torch.equal(one["generators"][name], state)
    moved = start.agent["critics"]["weights.0"] - whole["critics"]["weights.0"]
    assert moved.abs().max() > 1e-3


def test_a_batch_that_cannot_be_shared_is_refused(make_agent):
    ranks = Ranks()
    ranks.count = 3
    with pytest.raises(UserError, match=r"online\.batch 16 can't be shared by 3 processes"):
        ranks.join(make_agent(), 16)


def test_a_resumed_run_trains_by_two_processes_as_alone(job, make_episode, monkeypatch):
    """The follower learns from the episodes that its leader reads back."""
    monkeypatch.setattr(farewell, "COME_S", 0.0)
    start = ["--ckpt", str(job / "offline.pt"), "--run", str(job / "alone"), "--address", "tcp://127.0.0.1:0"]
    learner.main([*start, "--env-steps", "0", "--utd", "2", "--actor-every", "2"])
    for k in range(3):
        episode = make_episode(5 + k, seed=k, success=k == 1, number=k)
        episode.meta["order"] = k
        write_episode(job / "alone" / "episodes" / f"arm-{k}.hdf5", episode)
    shutil.copytree(job / "alone", job / "shared")
    end = ["--env-steps", "18", "--address", "tcp://127.0.0.1:0"]
    learner.main(["--resume", str(job / "alone"), *end])
    together(job, ROOT / "tests/agent/run/rank_learner.py", job, "--resume", job / "shared", *end)
    alone, shared = (checkpoint.load(job / name / "latest.pt") for name in ("alone", "shared"))
    assert alone.counters["updates"] == shared.counters["updates"] == 36
    follower = torch.load(job / "rank1.pt", weights_only=True)
    assert follower["steps"] == 18
    for name, state in shared.generators.items():  # each process has drawn the same batches, and its own part of them
        assert torch.equal(state, follower["generators"][name]) and torch.equal(state, alone.generators[name])
    assert_alike(shared.agent, follower["agent"], alone.agent)
    before = checkpoint.load(job / "offline.pt").agent["critics"]["weights.0"]
    assert (before - shared.agent["critics"]["weights.0"]).abs().max() > 1e-3


def test_the_real_command_under_torchrun(job):
    """The link is rank 0's alone; the run ends in both."""
    words = ["-m", "agent.learner", "--ckpt", job / "offline.pt", "--learner.run", job / "run", "--env-steps", "0"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = list(map(str, [*launch, *words, "--address", "tcp://127.0.0.1:0"]))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "(x 2)" in done.stderr and done.stdout.count("finished") == 1
    assert [json.loads(line)["kind"] for line in (job / "run" / "log.jsonl").read_text().splitlines()] == []
    assert checkpoint.load(job / "run" / "latest.pt").counters["updates"] == 0


@pytest.mark.parametrize("wanted", [False, True])
def test_a_persons_episodes_go_to_the_demonstrations_if_wanted(job, make_episode, wanted):
    start = checkpoint.load(job / "offline.pt")
    config = start.run_config()
    online = dataclasses.replace(config.online, interventions_offline=wanted)
    config = dataclasses.replace(config, online=online)
    trainer = Trainer(start, config, job, Ranks())
    before = trainer.offline.episodes
    acted, driven = make_episode(4, success=True), make_episode(4, success=True)
    driven.interventions[1] = True
    for episode in (acted, driven):
        trainer.add(episode)
    assert trainer.replay.episodes == 2 and trainer.offline.episodes == before + wanted


def test_a_follower_replaces_an_episode_as_its_leader_does(job, make_episode):
    """Item 10, with several processes: the shorter version is learnt from, then the longer one alone."""
    starts = [checkpoint.load(job / "offline.pt") for _ in "ab"]  # two: an optimizer works on the tensors that it loads
    leader, follower = (Trainer(start, start.run_config(), job, Ranks()) for start in starts)
    told = []
    store = Store(job / "run", leader.add, leader.drop, lambda *news: told.append(news))
    short, whole = make_episode(4, seed=1), make_episode(9, seed=1, success=True)
    bad = make_episode(12, seed=2)
    bad.meta["marked"] = "discard"
    steps = []

    def orders():
        for episode in (make_episode(5, seed=3, number=1), short, whole, bad):
            store.take(episode)
            news = tuple((key, path and str(path)) for key, path in told)
            told.clear()
            yield Order(Weights(1.0, 0.5), True, news)
            steps.append((len(follower.replay), len(leader.replay)))
            leader.update(Weights(1.0, 0.5), True)

    follower.ranks.orders = orders
    follower.follow()
    assert steps == [(5, 5), (9, 9), (14, 14), (5, 5)]
    for name, state in leader.generators.items():
        assert torch.equal(state, follower.generators[name])
    for name, value in leader.agent.state_dict()["policy"].items():
        assert torch.equal(value, follower.agent.state_dict()["policy"][name])
