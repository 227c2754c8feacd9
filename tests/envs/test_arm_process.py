"""The arm's own process, from inside: what it does about the other end, with an arm that only remembers."""

from multiprocessing import Pipe

import numpy as np
import pytest

from envs.arm import ArmError, State
from envs.arm_process import ArmProcess, serve
from envs.keeper import Keeper, Setup
from envs.safety import Limits


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
    keeper = Keeper(Setup("", {}, limits, 0.1, 60.0, 0.0, 0.0, ones, 0.0, realtime=False), Arm())
    keeper.connect()
    return keeper


def served(keeper, *words):
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
    serve(theirs, keeper, claim)
    return answers, claim


def test_the_arm_is_held_as_soon_as_the_robot_server_has_gone(kept, capfd):
    _, claim = served(kept, ("command", np.full(1, 0.1), 1e12))
    assert kept.arm.log == ["connect", "command", "hold"] and claim.said["alone"]
    assert "the robot server has gone" in capfd.readouterr().err


def test_a_mistake_is_answered_and_the_arm_stays_in_its_keeping(kept):
    answers, _ = served(kept, ("command", np.zeros(3), 1e12), ("state",))
    assert isinstance(answers[0][1], ValueError) and isinstance(answers[1][1], State)


def test_a_drivers_own_mistake_is_answered_as_the_arms_error(kept, monkeypatch):
    monkeypatch.setattr(kept.arm, "state", lambda: {}["elbow"])
    answers, _ = served(kept, ("state",), ("hold",))
    assert all(isinstance(answer, ArmError) and "elbow" in str(answer) for _, answer in answers)


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
