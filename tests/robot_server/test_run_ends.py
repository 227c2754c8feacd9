"""A run that ends tells its robots, however slow its updates are; both sides are processes of their own."""

import re
import signal
import time

import pytest
from forked import Program

from agent.data.episode_file import read_episodes
from tools.stress.faults import first_checkpoint
from tools.stress.processes import ENV
from tools.stress.proxy import Proxy

LEARNER = """
import sys, time
from agent import cli, learner
from agent.mailbox import robots
from agent.run.trainer import Trainer
robots.LIVE_S = 0.3
made = Trainer.update
def slow(*args):
    time.sleep(1.0)
    print("updating", flush=True)
    return made(*args)
Trainer.update = slow
cli.run(learner.main)
"""
FLAGS = ["--offline-share", "0", "--online.batch", "16", "--threads", "1", "--device", "cpu"]


@pytest.fixture
def start(tmp_path):
    """start("-m", "robot_server", ...): a Python process; its `said()` is all that it has said so far."""
    processes = []

    def start(*words):
        processes.append(Program(*words, out=tmp_path / f"out{len(processes)}"))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def learner(tmp_path, start):
    """learner("--env-steps", "40"): one with updates of a second, to which a silence of 0.3 s is a long one."""
    first_checkpoint(tmp_path / "offline.pt")

    def run(*flags):
        where = ["--ckpt", tmp_path / "offline.pt", "--run", tmp_path / "run", "--address", "tcp://127.0.0.1:0"]
        process = start("-c", LEARNER, *(flags if "--resume" in flags else [*where, *FLAGS, *flags]))
        until(lambda: "listening on" in process.said(), process)
        process.port = int(re.search(r"listening on tcp://127\.0\.0\.1:(\d+)", process.said())[1])
        return process

    return run


@pytest.fixture
def robot(tmp_path, start):
    def run(port, *flags):
        words = ["--env", "fake", "--spool", tmp_path / "spool", "--address", f"tcp://127.0.0.1:{port}", "--hz", "50"]
        words += [word for key, value in ENV.items() for word in (f"--{key}", value)]
        return start("-m", "robot_server", *words, *flags)

    return run


def until(condition, *processes, seconds=120.0):
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, [process.said() for process in processes]
        time.sleep(0.01)


def ended(process):
    return lambda: process.poll() is not None


def test_a_run_that_ends_during_slow_updates_tells_its_robots(learner, robot, tmp_path):
    """Item 21: the robot acts through updates that are three times as long as the silence of a robot that is gone."""
    one = learner("--env-steps", "40", "--utd", "0.1")
    process = robot(one.port)
    until(ended(one), one, process)
    until(ended(process), one, process, seconds=10)
    assert one.returncode == process.returncode == 0, one.said() + process.said()
    assert "the learner's run is over" in process.said() and one.said().count("updating") == 4
    assert not list((tmp_path / "spool").iterdir())


def test_a_robot_that_is_silent_when_the_run_ends_hears_of_it_when_it_is_back(learner, robot):
    one = learner("--env-steps", "40", "--utd", "0.1")
    proxy = Proxy(one.port)
    try:
        process = robot(proxy.port)
        until(lambda: "updating" in one.said(), one, process)
        until(lambda: one.said().count("updating") == 3, one, process)
        proxy.become("drop")
        until(lambda: one.said().count("updating") == 4, one, process)
        time.sleep(2.0)
        assert one.poll() is None and process.poll() is None
        proxy.become("pass")
        until(ended(process), one, process)
        assert process.returncode == 0 and "the learner's run is over" in process.said()
        until(ended(one), one, process, seconds=20)
        assert one.returncode == 0
    finally:
        proxy.close()


def test_a_run_that_was_over_when_it_is_resumed_tells_its_robots(learner, robot, tmp_path):
    """The learner is killed between its last update and their farewell; they look for it once a second."""
    one = learner("--env-steps", "20", "--utd", "0")
    process = robot(one.port)
    until(lambda: "updating" in one.said() or (tmp_path / "run" / "latest.pt").exists(), one)
    until(lambda: list((tmp_path / "run" / "episodes").glob("[!.]*.hdf5")), one, process)
    one.send_signal(signal.SIGKILL)
    one.wait()
    again = learner("--resume", tmp_path / "run", "--address", f"tcp://127.0.0.1:{one.port}")
    until(ended(process), again, process)
    assert process.returncode == 0 and "the learner's run is over" in process.said()
    until(ended(again), again, process, seconds=20)
    assert sum(len(episode) for episode in read_episodes([tmp_path / "run" / "episodes"])) >= 20
