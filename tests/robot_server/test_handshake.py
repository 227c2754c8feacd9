"""What a robot remembers of WELCOME, REFUSE and WEIGHTS."""

from types import SimpleNamespace

import numpy as np
import pytest
from link_data import NETWORK, SPEC

from agent.spec import UserError
from agent.wire.messages import unpack
from robot_server import handshake
from robot_server.handshake import Handshake
from robot_server.weights_puller import WeightsPuller

WELCOME = {"network": NETWORK, "run": "run-1", "secret": "s1", "learner_boot": "b0"}
REFUSED = {"retry": True, "reason": "connected already"}


class Outbox:
    episodes, deliverable, run = {}, [], ""

    def use_run(self, run):
        self.run = run


class Damaged(Outbox):
    def use_run(self, run):
        raise OSError("the disk")


@pytest.fixture
def robot():
    return Handshake("tcp://127.0.0.1:1", "robot", "b1", SPEC, {})


def test_a_welcome_that_the_outbox_cannot_take_is_taken_whole_the_next_time(robot):
    with pytest.raises(OSError, match="the disk"):
        robot.welcome(WELCOME, Damaged())
    assert not robot.done and robot.run == robot.secret == robot.learner_boot == "" and robot.network is None
    outbox = Outbox()
    assert robot.welcome(WELCOME, outbox) is True and robot.done and outbox.run == "run-1"
    assert robot.welcome(WELCOME, outbox) is False and robot.welcome(WELCOME | {"learner_boot": "b2"}, outbox) is True


def test_only_refusals_in_a_row_end_a_robot(robot, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(handshake, "time", SimpleNamespace(monotonic=lambda: now_s))
    robot.refuse(REFUSED)
    robot.welcome(WELCOME, Outbox())
    now_s += handshake.REFUSED_FOR_S + 1
    robot.refuse(REFUSED)  # the first one in a row
    assert not robot.done
    now_s += handshake.REFUSED_FOR_S + 1
    with pytest.raises(UserError, match="refused: connected already"):
        robot.refuse(REFUSED)


def test_weights_that_came_are_followed_by_a_new_request():
    """Else the learner, which answers each once, sends none until some PULLs later."""
    weights = WeightsPuller()

    def asked():
        report = {"sent_s": 0.0, "reconnects": 0, "round_trip_s": 0.0}
        return unpack(weights.pull(Outbox(), None, **report)).fields["ask"]

    first = asked()
    assert asked() == first
    weights.receive(1, {"w": np.zeros(1)})
    assert asked() == first + 1
