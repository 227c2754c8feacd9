"""The arm's own process, from inside: what it does about the other end, with an arm that only remembers."""

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest

from envs.real import arm_process, mock_arm
from envs.real import claim as claims
from envs.real.arm import ArmError, State
from envs.real.arm_process import ArmProcess, serve
from envs.real.guard import Guard, Setup
from envs.real.safety_filter import Limits


class Arm:
    axes = ("x",)

    def __init__(self):
        self.log = []

    def connect(self):
        self.log.append("connect")

    def state(self):
        return State(np.zeros(1), 0.0)

    def command(self, target):
        self.log.append("command")
        return target

    def hold(self):
        self.log.append("hold")


class Claim:
    said = None

    def say(self, holder):
        self.said = holder


@pytest.fixture
def kept():
    ones = np.ones(1)
    limits = Limits(-ones, ones, ones, ones, ones)
    guard = Guard(Setup("", {}, limits, 0.1, 60.0, 0.0, 0.0, ones, 0.0, realtime=False), Arm())
    guard.connect()
    return guard


def served(guard, *words):
    """What it answered, once the other end has gone after so many questions."""
    ours, theirs = Pipe()
    for number, word in enumerate(words):
        ours.send((number, *word))
    answers = []
    send = theirs.send
    theirs.send = lambda answer: (answers.append(answer), send(answer), len(answers) == len(words) and ours.close())
    if not words:
        ours.close()
    claim = Claim()
    serve(theirs, guard, claim)
    return answers, claim


def test_the_arm_is_held_as_soon_as_the_robot_server_has_gone(kept, capfd):
    _, claim = served(kept, ("command", np.full(1, 0.1), 1e12))
    assert kept.arm.log == ["connect", "command", "hold"] and claim.said["alone"]
    assert "the robot server has exited" in capfd.readouterr().err


def test_a_disk_that_is_full_does_not_shorten_the_hold(kept, monkeypatch):
    def full(self, holder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Claim, "say", full)
    kept.setup = replace(kept.setup, release_s=0.2)
    begun_s = time.monotonic()
    served(kept)
    assert time.monotonic() - begun_s >= 0.2 and kept.arm.log[-1] == "hold"


def test_a_hold_that_was_lost_is_repeated_while_nobody_commands_the_arm(kept, monkeypatch):
    tries, fails = [], [TimeoutError(), TimeoutError()]

    def hold():
        tries.append("hold")
        if fails:
            raise fails.pop()

    monkeypatch.setattr(kept.arm, "hold", hold)
    kept.setup = replace(kept.setup, release_s=0.3)
    served(kept)
    assert len(tries) == 3


def test_a_mistake_is_answered_and_the_arm_stays_in_its_keeping(kept):
    answers, _ = served(kept, ("command", np.zeros(3), 1e12), ("state",))
    assert isinstance(answers[0][1], ValueError) and isinstance(answers[1][1], State)


def test_a_drivers_own_mistake_is_answered_as_the_arms_error(kept, monkeypatch):
    monkeypatch.setattr(kept.arm, "state", lambda: {}["elbow"])
    answers, _ = served(kept, ("state",), ("hold",))
    assert all(isinstance(answer, ArmError) and "elbow" in str(answer) for _, answer in answers)


def test_what_cannot_be_sent_is_the_arms_error_and_not_the_end_of_its_process(kept, monkeypatch):
    seen = State(np.zeros(1), 0.0, images={"front": lambda: None})
    monkeypatch.setattr(kept.arm, "state", lambda: seen)
    answers, _ = served(kept, ("state",), ("command", np.full(1, 0.1), 1e12))
    assert all(isinstance(answer, ArmError) and "pickle" in str(answer) for _, answer in answers[1:])
    assert "command" not in kept.arm.log and kept.arm.log[-1] == "hold"


def test_a_driver_that_takes_long_to_load_has_as_long_to_connect_as_another(monkeypatch):
    waited, ends = [], []
    monkeypatch.setattr(subprocess, "Popen", lambda words, pass_fds, **_: ends.append(os.dup(pass_fds[0])))
    monkeypatch.setattr(ArmProcess, "_answer", lambda self, timeout_s: waited.append(timeout_s) or ("x", None))
    ArmProcess(SETUP)
    os.close(*ends)
    assert waited == [arm_process.LOAD_S, arm_process.CONNECT_S]


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_question():
    process = object.__new__(ArmProcess)  # only its end of the line
    process._connection, theirs = Pipe()
    process._timeout_s, process._number = 0.01, 0
    with pytest.raises(ArmError, match=r"has not answered for 0\.01 s; its last command is not repeated"):
        process.state()
    theirs.send((1, "late"))
    theirs.send((2, "in time"))
    assert process.state() == "in time"
    assert [theirs.recv(), theirs.recv()] == [(1, "state"), (2, "state")]


# ---- who has the arm ----

SETUP = Setup("mock", {}, Limits(*[np.ones(1)] * 5), 0.1, 60.0, 0.0, 0.0, np.ones(1), 0.0, realtime=False)
HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(claims, "LET_GO_S", 0.3)
    monkeypatch.setattr(claims, "NOTICE_S", 0.3)
    return tmp_path


def test_item_19_the_lock_is_in_a_folder_that_nobody_else_can_enter(temporary):
    claims.Claim(SETUP)
    (lock,) = temporary.rglob("*.lock")
    assert stat.S_IMODE(lock.parent.stat().st_mode) == 0o700 and stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert mock_arm.MockArmOptions().socket == str(lock.parent / "mock-arm.sock")


def test_item_19_a_link_is_not_followed(temporary):
    claims.Claim(SETUP)
    (lock,) = temporary.rglob("*.lock")
    lock.unlink()
    (temporary / "theirs").write_text("do not empty this")
    lock.symlink_to(temporary / "theirs")
    with pytest.raises(ValueError, match="arm 'mock': no lock"):
        claims.Claim(SETUP)
    lock.parent.rename(temporary / "elsewhere")
    lock.parent.symlink_to(temporary / "elsewhere")
    for refused in (lambda: claims.Claim(SETUP), lambda: mock_arm.mock_options({})):
        with pytest.raises(ValueError, match="not a folder of this user alone"):
            refused()
    assert (temporary / "theirs").read_text() == "do not empty this"


def test_a_driver_is_loaded_before_its_arm_is_taken_over(monkeypatch):
    """Whoever held it ends its torque then."""
    done = []

    class Taken:
        def __init__(self, setup):
            done.append("take")
            raise ValueError("another process drives it")

    line = SimpleNamespace(recv=lambda: SETUP, send=done.append)
    monkeypatch.setattr(arm_process, "Connection", lambda handle: line)
    monkeypatch.setattr(arm_process, "make_arm", lambda *_: done.append("load") or Arm())
    monkeypatch.setattr(arm_process, "Claim", Taken)
    monkeypatch.setattr(arm_process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["arm_process", "3"])
    arm_process.main()
    assert done[:2] == ["load", "take"] and "another process drives it" in str(done[2][1])


def test_one_arm_under_two_names_is_one_arm(temporary):
    controller, port = os.openpty()
    name, other = os.ttyname(port), temporary / "by-id"
    other.symlink_to(name)
    given = [{"port": name, "id": "follower"}, {"port": str(other), "use_degrees": False}, {"left": {"ports": [name]}}]
    hosts = [{"host": "10.0.0.7", "hz": 125.0}, {"host": "10.0.0.7", "gripper": "robotiq"}]
    for options in (given, hosts):
        holder = claims.Claim(replace(SETUP, kind="lerobot:so101_follower", options=options[0]))
        for others in options[1:]:
            with pytest.raises(ValueError, match=f"arm 'mock': another process .{os.getpid()}. drives it"):
                claims.Claim(replace(SETUP, options=others))
        claims.Claim(replace(SETUP, options={"port": "/dev/null", "host": "10.0.0.8"}))
        del holder
        claims.Claim(replace(SETUP, options=options[1]))
    os.close(port)
    os.close(controller)


def test_a_process_that_still_has_its_robot_server_is_not_ended(temporary):
    claims.Claim(SETUP)
    (lock,) = temporary.rglob("*.lock")
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            told = {"pid": holder.pid, "alone": False, "started": claims._started(holder.pid)}
            lock.write_text(json.dumps(told))
            with pytest.raises(ValueError, match=f"another process .{holder.pid}. drives it"):
                claims.Claim(SETUP)
            assert holder.poll() is None and json.loads(lock.read_text()) == told
        finally:
            holder.kill()


@pytest.mark.parametrize("started", ["another", None, "its own"])
def test_item_19_only_the_process_that_was_left_alone_with_the_arm_gets_the_signal(temporary, started):
    """A number in a file may be another process's by now: only with its start time does it name one."""
    claims.Claim(SETUP)
    (lock,) = temporary.rglob("*.lock")
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            with subprocess.Popen(["sleep", "60"]) as stranger:
                said = {"another": "1", None: None, "its own": claims._started(holder.pid)}[started]
                pid = holder.pid if started == "its own" else stranger.pid
                lock.write_text(json.dumps({"pid": pid, "alone": True, "started": said}))
                try:
                    if started == "its own":
                        claims.Claim(SETUP)
                        assert holder.wait(10) == -15
                        assert json.loads(lock.read_text())["pid"] == os.getpid()
                    else:
                        with pytest.raises(ValueError, match=f"another process .{pid}. drives it"):
                            claims.Claim(SETUP)
                    assert stranger.poll() is None
                finally:
                    stranger.kill()
        finally:
            holder.kill()
