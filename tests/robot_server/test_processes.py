"""The real `python -m robot_server --env fake`, as a process of its own; the learner's end is here."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from forked import Program

import envs
from agent.config import NetworkConfig
from agent.data.episode_file import episode_paths
from agent.mailbox.mailbox import Mailbox
from agent.policy import Policy
from agent.spec import Spec
from agent.wire.messages import episode_key
from robot_server.control_client import Operator

ROOT = Path(__file__).parent.parent.parent
NETWORK = {"features": 8, "state_features": 8, "channels": [4], "strides": [2], "actor_hidden": [8]}
NO_END = ["--reach", "0", "--horizon", "100000"]  # an episode ends by a signal alone


@pytest.fixture(scope="module")
def spec():
    pytest.importorskip("envs.fake")
    env = envs.make("fake")
    found = Spec.from_spaces(env.observation_space, env.action_space)
    env.close()
    return found


class Learner:
    """Keeps a list instead of a disk."""

    def __init__(self, spec, address="tcp://127.0.0.1:0"):
        self.spec, self.episodes = spec, []
        self.weights = Policy(spec, NetworkConfig(**NETWORK)).weights()
        self.mailbox = None
        self.start(address)

    def start(self, address, offers=True):
        stored = {episode_key(episode.meta): len(episode) for episode in self.episodes}
        self.mailbox = Mailbox(address, self.spec, NETWORK, stored=stored, secret="s1")
        if offers:
            self.mailbox.offer(1, self.weights)
        self.address = self.mailbox.address

    def stop(self):
        if self.mailbox:
            self.mailbox.close()
        self.mailbox = None

    def work(self):
        if self.mailbox:
            self.mailbox.wait(0.01)
            for episode in self.mailbox.drain():
                episode.check(self.spec)
                self.episodes.append(episode)
                self.mailbox.acknowledge(episode)
        else:
            time.sleep(0.01)

    def until(self, condition, seconds=120.0):  # on a busy machine torch alone takes long to load
        deadline_s = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline_s, "too late"
            self.work()

    def in_an_episode(self):
        """Whether an episode has begun."""
        return any(episode.steps for episode in self.mailbox.assembly.open.values())


@pytest.fixture
def learner(spec):
    learner = Learner(spec)
    yield learner
    learner.stop()


@pytest.fixture
def start(tmp_path):
    processes = []

    def start(address, *flags):
        words = ["robot_server", "--env", "fake", "--address", address, "--spool", tmp_path / "spool", *flags]
        processes.append(Program("-m", *words, out=tmp_path / f"out{len(processes)}"))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def ended(process):
    return lambda: process.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_delivers_the_running_episode_as_truncated(learner, start, tmp_path, number):
    process = start(learner.address, "--hz", "5", "--seed", "7", "--robot_name", "arm", *NO_END)
    learner.until(learner.in_an_episode)
    os.kill(process.pid, number)
    learner.until(ended(process))
    assert process.returncode == 0, process.said()
    assert "Traceback" not in process.said() and "cut short" in process.said()
    (episode,) = learner.episodes
    assert episode.truncated[-1] and not episode.terminated.any()
    assert (episode.meta["robot"], episode.meta["number"], episode.meta["seed"]) == ("arm", 0, 7)
    assert episode.meta["env"]["name"] == "fake"
    np.testing.assert_array_equal(episode.policy_versions, 1)
    assert not list((tmp_path / "spool").glob("*")) and not learner.mailbox.robots


def test_it_waits_for_the_learner_and_stops_after_the_episodes_asked_for(learner, start):
    learner.stop()
    process = start(learner.address, "--episodes", "3")
    learner.until(lambda: f"waiting for a learner at {learner.address}" in process.said())
    learner.start(learner.address)
    learner.until(ended(process))
    assert process.returncode == 0, process.said()
    assert [episode.meta["number"] for episode in learner.episodes] == [0, 1, 2]
    first = learner.episodes[0].meta["seed"]
    assert [episode.meta["seed"] - first for episode in learner.episodes] == [0, 1, 2]
    assert sum(" episode " in line for line in process.said().splitlines()) == 3


def test_a_robot_that_hears_before_its_first_policy_that_the_run_is_over_leaves(learner, start):
    learner.stop()
    learner.start(learner.address, offers=False)
    process = start(learner.address)
    learner.until(lambda: learner.mailbox.robots)
    learner.until(lambda: learner.mailbox.done() or process.poll() is not None)
    assert process.returncode == 0 and "the learner's run is over" in process.said(), process.said()


def test_ctrl_c_while_there_is_no_learner(start):
    process = start("tcp://127.0.0.1:1")
    deadline_s = time.monotonic() + 120
    while "waiting" not in process.said():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert "Traceback" not in process.said()


def test_a_restarted_robot_server_delivers_what_the_first_one_could_not(learner, start, tmp_path):
    process = start(learner.address, "--hz", "5", *NO_END)
    learner.until(learner.in_an_episode)
    (boot,) = {key[1] for key in learner.mailbox.assembly.open}
    before = len(learner.episodes)
    learner.stop()
    process.send_signal(signal.SIGINT)
    learner.until(lambda: "cut short" in process.said())
    assert episode_paths([tmp_path / "spool"])
    process.send_signal(signal.SIGINT)  # no patience: the second one ends the wait for a learner that is gone
    learner.until(ended(process))
    assert process.returncode == 0, process.said()
    assert len(episode_paths([tmp_path / "spool"])) == 1
    learner.start(learner.address)
    again = start(learner.address, "--episodes", "1")
    learner.until(ended(again))
    assert again.returncode == 0, again.said()
    boots = [episode.meta["boot"] for episode in learner.episodes[before:]]
    assert boots[0] == boot and len(boots) == 2 and boots[1] != boot
    assert learner.episodes[before].truncated[-1]
    assert not list((tmp_path / "spool").glob("*"))


def test_a_robot_server_that_is_killed_has_kept_what_had_ended(learner, start, tmp_path):
    """kill -9 while there is no learner: from its spool the next one delivers every episode that had ended."""
    process = start(learner.address, "--hz", "100", "--max-backlog-steps", "100000")
    learner.until(learner.in_an_episode)
    ((_, boot, number),) = learner.mailbox.assembly.open
    learner.stop()
    learner.until(lambda: process.said().count("episode ") >= len(learner.episodes) + 4)
    process.kill()
    process.wait(60)
    ended_ones = process.said().count("policy 1")
    learner.start(learner.address)
    again = start(learner.address, "--episodes", "1")
    learner.until(ended(again))
    assert again.returncode == 0, again.said()
    numbers = sorted(e.meta["number"] for e in learner.episodes if e.meta["boot"] == boot)
    assert numbers == list(range(len(numbers))) and len(numbers) >= ended_ones > number
    assert not list((tmp_path / "spool").glob("*"))


def test_a_full_spool_stops_the_robot_until_the_learner_has_taken_it(learner, start, tmp_path):
    process = start(learner.address, "--hz", "200", "--spool-gb", "0.0003", "--reach", "0")
    learner.until(learner.in_an_episode)
    learner.stop()
    learner.until(lambda: "that no learner has taken yet" in process.said())
    kept = len(episode_paths([tmp_path / "spool"]))
    before, until_s = process.said(), time.monotonic() + 1.0
    learner.until(lambda: time.monotonic() > until_s)
    assert kept > 1 and process.said() == before and process.poll() is None  # it makes no more steps
    learner.start(learner.address)
    learner.until(lambda: "episode " in process.said()[len(before) :] and learner.in_an_episode())
    process.send_signal(signal.SIGTERM)
    learner.until(ended(process))
    assert process.returncode == 0, process.said()
    numbers = sorted(episode.meta["number"] for episode in learner.episodes)
    assert numbers == list(range(process.said().count("return")))
    *whole, cut = sorted(learner.episodes, key=lambda episode: episode.meta["number"])
    assert all(len(episode) == 20 for episode in whole) and len(cut) >= 1  # the signal may come after one step
    assert not list((tmp_path / "spool").glob("*"))


def test_a_learner_killed_in_the_middle_gets_everything_once(learner, start):
    process = start(learner.address, "--hz", "100", "--episodes", "6")
    learner.until(lambda: learner.episodes and learner.in_an_episode())
    learner.stop()
    gone_until_s = time.monotonic() + 0.3
    learner.until(lambda: time.monotonic() > gone_until_s)
    learner.start(learner.address)
    learner.until(ended(process))
    assert process.returncode == 0, process.said()
    assert sorted(episode.meta["number"] for episode in learner.episodes) == list(range(6))
    for episode in learner.episodes:
        assert not (episode.truncated[:-1] | episode.terminated[:-1]).any()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--address", "tcp://10.1.2.3:5555"], "tcp://10.1.2.3:5555"),
        (["--robot_name", "a/b"], "robot_name"),
        (["--robot_nam", "a"], "did you mean '--robot-name'"),
        (["--hz", "fast"], "robot.hz"),
        (["--threads", "0"], "robot.threads is 0"),
    ],
)
def test_a_configuration_error_is_one_line(start, flags, text):
    process = start("tcp://127.0.0.1:1", *flags)
    assert process.wait(120) == 2
    (line,) = process.said().splitlines()
    assert line.startswith("error: ") and text in line


def test_a_learner_with_another_spec_refuses(spec, start):
    other = Learner(Spec({}, {"state": 99}, spec.action_dim))
    try:
        process = start(other.address)
        other.until(ended(process))
        assert process.returncode == 2
        assert "refused" in process.said() and "'state'" in process.said() and "Traceback" not in process.said()
    finally:
        other.stop()


def test_a_deterministic_robot_acts_with_the_mean_of_the_policy(learner, start, spec):
    process = start(learner.address, "--episodes", "1", "--deterministic")
    learner.until(ended(process))
    policy = Policy(spec, NetworkConfig(**NETWORK))
    policy.load_weights(learner.weights)
    (episode,) = learner.episodes
    for step in episode.transitions():
        mean = policy.act(step.observation, deterministic=True)
        np.testing.assert_allclose(step.action, mean, atol=1e-5)


# A driver, in a third process ----------------------------------------------------------------------------------------

DRIVER = """
import sys, time
import numpy as np
from robot_server.control_client import Operator
from robot_server.command import Command
operator = Operator(sys.argv[1])
while True:
    operator.drive(Command(np.float32([0.01, 0, 0, 0, 0, 0]), enabled=True))
    time.sleep(0.02)
"""


@pytest.fixture
def driver(tmp_path):
    """A person's tool that drives whatever robot server has its operator's socket there."""
    address = f"ipc://{tempfile.mkdtemp(prefix='driver-')}/control.sock"
    process = subprocess.Popen([sys.executable, "-c", DRIVER, address], cwd=ROOT)
    process.address = address
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(): the resets and steps that the environment has really made."""
    monkeypatch.setenv("FAKE_ENV_LOG", str(tmp_path / "made.jsonl"))

    def read():
        text = (tmp_path / "made.jsonl").read_text() if (tmp_path / "made.jsonl").exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    return read


def test_a_driver_who_falls_silent_in_a_motion_holds_the_arm(learner, start, driver, made):
    """Frozen, not killed: its connection stays. The arm stands soon after, and the time of the hold makes no data."""
    learner.stop()
    learner.start(learner.address, offers=False)
    flags = ["--control", driver.address, "--hz", "20", "--horizon", "100000", "--seed", "1"]
    process, other = start(learner.address, *flags), Operator(driver.address)

    def state():
        return other.ask("state", timeout_s=0.5).get("state", {})

    def quiet_for(seconds):
        """Whether no step is made in that time."""
        before, end_s = len(made()), time.monotonic() + seconds
        learner.until(lambda: time.monotonic() > end_s)
        return len(made()) == before

    learner.until(lambda: "connected to the learner" in process.said() and state().get("driven") == "driven")
    learner.mailbox.offer(1, learner.weights)  # the policy makes no step before the driver's
    learner.until(lambda: len(made()) > 20)

    os.kill(driver.pid, signal.SIGSTOP)
    silent_s = time.time()
    learner.until(lambda: state().get("driven") == "held")
    learner.until(lambda: quiet_for(0.3))
    assert quiet_for(1.0), "twenty periods"
    before = len(made())
    assert not any(made()[-1]["action"])  # the last step was to stand still

    back_s = time.time()
    os.kill(driver.pid, signal.SIGCONT)
    learner.until(lambda: len(made()) > before + 10)
    os.kill(driver.pid, signal.SIGSTOP)
    learner.until(lambda: state().get("driven") == "held")
    assert other.ask("event", event="stop")["stopped"]
    learner.until(lambda: learner.episodes)
    os.kill(driver.pid, signal.SIGCONT)
    learner.until(lambda: state().get("driven") == "driven")
    assert quiet_for(0.5) and state()["stopped"]  # whoever drives does not release a stop
    other.close()

    (episode,), (reset, *steps) = learner.episodes, made()
    assert reset["seed"] == 1 and episode.actions.tolist() == [step["action"] for step in steps]
    assert episode.interventions.all() and episode.truncated[-1] and not episode.truncated[:-1].any()
    begun_s, moves = episode.times_s, episode.actions.any(axis=1)
    assert len(begun_s[begun_s < back_s]) == before - 1 and back_s - begun_s[begun_s < back_s][-1] > 1.0
    assert begun_s[moves & (begun_s < back_s)][-1] < silent_s + 1.0  # HELD_S, several times over: a busy machine
    assert moves[begun_s > back_s].any()
