"""A leader arm as a device: it says where the follower's axes are to go."""

import math
from functools import cached_property
from types import SimpleNamespace

import fake_lerobot
import gymnasium
import numpy as np
import pytest

from agent.spec import UserError
from envs.real import lost_replies
from robot_server.command import Command, action_of
from tools.devices import leader
from tools.devices.leader import Leader
from tools.recording.config import CollectConfig


class Terminal:
    def __init__(self):
        self.pressed = []

    def keys(self):
        pressed, self.pressed = self.pressed, []
        return pressed

    def close(self):
        self.pressed = None


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    fake_lerobot.install(tmp_path, monkeypatch)
    made = Terminal()
    monkeypatch.setattr(leader, "terminal_if_any", lambda: made)
    yield made
    fake_lerobot.forget()


def test_the_arm_follows_while_it_is_enabled(terminal):
    device = Leader("so9_leader", CollectConfig())
    assert device.read().place is None and not device.read().enabled
    terminal.pressed = ["e"]
    command = device.read()
    assert command.enabled and command.place == {"pan": 3.0, "lift": -4.0}
    assert device.read().enabled
    terminal.pressed = ["e", "y"]
    command = device.read()
    assert not command.enabled and command.place is None and command.events == ("success",)
    device.close()
    assert not device.leader.connected and terminal.pressed is None


def test_a_lost_reply_is_bridged_by_the_last_place_and_more_of_them_are_not(terminal, monkeypatch, caplog):
    now = SimpleNamespace(at_s=100.0, monotonic=lambda: now.at_s, sleep=lambda for_s: None)
    for module in (leader, lost_replies):
        monkeypatch.setattr(module, "time", now)
    device = Leader("so9_leader", CollectConfig())
    arm, whole, fails = device.leader, device.leader.get_action, []
    monkeypatch.setattr(arm, "get_action", lambda: fail() if fails and fails.pop() else whole())

    def fail():
        now.at_s += 0.05
        raise ConnectionError("no answer from motor 2")

    terminal.pressed = ["e"]
    told = device.read().place
    for count in (1, 2):  # the last place stands, or the next try is answered
        fails[:] = [True] * count
        assert device.read().place == told and device.read().place == told
    assert "the leader's bus: lost replies: 1" in caplog.text
    device.read()
    now.at_s += 10.0  # a place of so long ago is none
    monkeypatch.setattr(type(arm), "get_action", lambda self: {"pan.pos": 5.0, "lift.pos": -4.0})
    whole, fails[:] = arm.__class__.get_action.__get__(arm), [True]
    assert device.read().place == {"pan": 5.0, "lift": -4.0}
    fails[:] = [True] * 9
    with pytest.raises(UserError, match="no answer from motor 2"):
        for _ in range(9):
            device.read()


def test_one_that_goes_away_or_is_not_there_is_one_line(terminal):
    device = Leader("so9_leader", CollectConfig())
    device.leader.broken = True
    with pytest.raises(UserError, match="device 'lerobot:so9_leader': no answer from motor 2"):
        device.read()
    with pytest.raises(UserError, match="could not open /dev/none"):
        Leader("so9_leader", CollectConfig(leader={"port": "/dev/none"}))
    with pytest.raises(UserError, match="LeRobot knows no teleoperator 'so8_leader'"):
        Leader("so8_leader", CollectConfig())


def test_one_that_has_gone_is_closed_all_the_same(terminal, monkeypatch, caplog):
    """What it raises then would take the place of what had gone wrong."""
    device = Leader("so9_leader", CollectConfig())
    monkeypatch.setattr(device.leader, "disconnect", lambda: {}["elbow"])
    device.close()
    assert terminal.pressed is None and "lerobot:so9_leader: not disconnected" in caplog.text


@pytest.mark.parametrize("place", [math.nan, math.inf])
def test_a_place_that_is_no_number_is_a_lost_reply(terminal, monkeypatch, place):
    device = Leader("so9_leader", CollectConfig())
    terminal.pressed = ["e"]
    told = device.read().place
    monkeypatch.setattr(device.leader, "get_action", lambda: {"pan.pos": 3.0, "lift.pos": place})
    assert device.read().place == told
    with pytest.raises(UserError, match=r"it reports .*lift"):
        while True:
            device.read()


def test_a_reply_that_is_lost_while_it_connects_is_no_reason_to_give_up():
    class Teleoperator:
        def __init__(self, lost):
            self.lost, self.log = lost, []

        def connect(self, calibrate):
            self.log.append("connect")
            self.bus.port_handler.setupPort(1000000)
            if len(self.log) < 2 * self.lost + 1:
                raise ConnectionError("Could not connect on port")

        def disconnect(self):
            self.log.append("disconnect")

        @cached_property
        def bus(self):
            port = SimpleNamespace()
            port.setupPort = lambda baud: setattr(port, "ser", SimpleNamespace(timeout=0))
            return SimpleNamespace(port_handler=port)

    found = Teleoperator(2)
    leader.connect(found)
    assert found.log == ["connect", "disconnect", "connect", "disconnect", "connect"]
    assert found.bus.port_handler.ser.timeout > 0  # it sleeps until a reply comes
    with pytest.raises(ConnectionError, match=r"cannot connect it at its address \(ConnectionError: Could not connect"):
        leader.connect(Teleoperator(3))


def test_whatever_a_driver_raises_is_one_line(terminal, monkeypatch):
    device = Leader("so9_leader", CollectConfig())
    kind = type(device.leader)
    monkeypatch.setattr(kind, "get_action", lambda self: [][0])
    with pytest.raises(UserError, match=r"device 'lerobot:so9_leader': a reply was too short"):
        device.read()
    monkeypatch.setattr(kind, "connect", lambda self, calibrate: {}["gripper"])
    with pytest.raises(UserError, match=r"device 'lerobot:so9_leader': .* \(KeyError: 'gripper'\): check power"):
        Leader("so9_leader", CollectConfig())


class Arm(gymnasium.Env):
    paced = True
    action_space = gymnasium.spaces.Box(-1, 1, (5,), np.float32)

    def towards(self, place):
        return np.array([place["pan"], place["lift"], 0, 0, 0]) / 10


def test_the_action_leads_towards_the_place():
    assert action_of(Command(place={"pan": 3.0, "lift": -4.0}), Arm()) == pytest.approx([0.3, -0.4, 0, 0, 0])
    assert action_of(Command(enabled=False), Arm()).tolist() == [0] * 5  # not enabled: it stands


def test_an_environment_without_places_refuses_a_leader():
    class Other(gymnasium.Env):
        action_space = Arm.action_space

    with pytest.raises(UserError, match="a leader arm drives an arm of its own kind"):
        action_of(Command(place={"pan": 1.0}), Other())
