"""tools.teleop between a device and a robot's control loop."""

import threading
import time

import numpy as np
import pytest

from robot_server.command import STILL, Command
from robot_server.control import Control
from robot_server.control_client import Operator
from tools import teleop

MOVE = Command(np.array([1, 0, 0, 0, 0, 0], np.float32), enabled=True)


class Script:
    """A device that gives one command after the other, the last one again and again; then stop() says true."""

    keys = ""

    def __init__(self, *commands):
        self.commands, self.gripper, self.turns = list(commands), [], 0

    def read(self):
        self.turns += 1
        return self.commands.pop(0) if len(self.commands) > 1 else self.commands[0]

    def reset(self, gripper):
        self.gripper.append(gripper)

    def stop(self):
        return self.turns > 20


@pytest.fixture
def arm():
    """What the robot's control loop read, in order."""
    control, read, over = Control("tcp://127.0.0.1:*"), [], threading.Event()
    control.show({}, {"action": [0.0, 0.0, 0.9], "step": 3})

    def run():
        while not over.is_set():
            read.append(control.read())
            time.sleep(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    read_by, read[:] = (read, control.address), []
    yield read_by
    over.set()
    thread.join()
    control.close()


def run(device, address):
    operator = Operator(address)
    teleop.teleoperate(device, operator, device.stop)
    end_s = time.monotonic() + 0.3
    while time.monotonic() < end_s:
        operator.ask("state")
    operator.close()


def test_an_enabled_device_drives_with_the_gripper_as_it_is(arm):
    read, address = arm
    device = Script(Command(), MOVE)
    run(device, address)
    assert device.gripper == [1.0]  # the robot's last action has it closed
    driven = [command for command in read if command.enabled]
    assert not read[0].enabled and driven[0].motion[0] == 1
    assert read[-1].enabled and read[-1].motion.tolist() == STILL.tolist()  # the tool has gone: held


def test_what_is_not_enabled_does_not_drive_and_gives_back(arm):
    read, address = arm
    run(Script(Command(MOVE.motion)), address)
    assert not any(command.enabled for command in read)
    run(Script(MOVE, MOVE, MOVE, Command()), address)
    assert any(command.enabled for command in read) and not read[-1].enabled


def test_words_reach_the_robot_and_stop_ends_the_tool_only(arm):
    read, address = arm
    device = Script(Command(events=("success",)), Command(events=("stop",)))
    run(device, address)
    assert [event for command in read for event in command.events] == ["success"] and device.turns == 2


def test_one_key_pauses_and_goes_on_whoever_paused(arm):
    read, address = arm
    key, until_shown = Command(events=("pause",)), [Command()] * 10
    run(Script(key, *until_shown, key, Command(events=("stop",))), address)
    assert [event for command in read for event in command.events] == ["pause", "resume"]


def test_a_pause_that_the_person_has_not_been_shown_is_not_lifted(arm):
    """Item 2: two people paused at the same moment, and the second key resumed."""
    read, address = arm
    other = Operator(address)

    class Hand(Script):
        def read(self):
            command = super().read()
            if command.events == ("pause",):
                assert other.ask("event", event="pause")["paused"]
            return command

    run(Hand(Command(), Command(events=("pause",)), Command(events=("stop",))), address)
    assert [event for command in read for event in command.events] == ["pause", "pause"]
    assert other.ask("state")["state"]["paused"]
    other.close()


def test_no_key_releases_a_stop(arm, capsys):
    """Items 1 and 2: the pause key went on after a STOP of somebody else, too."""
    _, address = arm
    operator = Operator(address)
    assert operator.ask("event", event="stop")["stopped"]
    keys = [Command(events=(event,)) for event in ("pause", "resume", "success")]
    run(Script(*keys, Command(events=("stop",))), address)
    state = operator.ask("state")["state"]
    assert state["stopped"] and not state["paused"] and state["stop"] == 1
    teleop.show(operator, False)
    assert "stopped: inspect the arm, then release it on the page" in capsys.readouterr().err
    assert operator.lift("release")["done"] == "release" and not operator.ask("state")["state"]["stopped"]
    operator.close()


def test_somebody_else_who_drives_is_said(arm, capsys):
    _, address = arm
    other, over = Operator(address), threading.Event()
    driving = threading.Thread(target=lambda: [other.drive(MOVE) for _ in iter(lambda: over.wait(0.01), True)])
    driving.start()
    time.sleep(0.2)
    run(Script(MOVE), address)
    over.set()
    driving.join()
    other.close()
    assert "you do not drive: another operator is driving" in capsys.readouterr().err


def test_a_robot_that_is_away_is_said(capsys):
    teleop.show(Operator("tcp://127.0.0.1:9"), False)
    assert "no robot server answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_only_a_persons_devices(refused):
    assert "the devices are keyboard, gamepad, spacemouse" in refused("teleop", "--device", "scripted")
    assert "the devices are" in refused("teleop")
