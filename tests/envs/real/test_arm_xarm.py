"""An xArm through the real SDK, against an emulated controller; what needs no SDK runs without it."""

import importlib.util
import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

import envs
from envs.base import RobotFault
from envs.real.arm import ArmError, make_arm
from envs.real.arm_xarm import CONTROL_PORT, GET_VERSION
from tools.stress.arms.emulated import Emulated, own_address
from tools.stress.arms.xarm import HOME

KIND = "xarm"
HOST, NOBODY = own_address(51), own_address(52)
needs_sdk = pytest.mark.skipif(importlib.util.find_spec("xarm") is None, reason="xarm-python-sdk is not installed")
FIRST = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
pytestmark = pytest.mark.skipif(
    bool(os.geteuid()) and FIRST > CONTROL_PORT,
    reason="the emulator's port 502 needs root, or sysctl net.ipv4.ip_unprivileged_port_start=502",
)


@pytest.fixture(scope="module")
def controller():
    with Emulated("xarm", HOST) as made:
        yield made


@pytest.fixture
def arm(controller):
    made = make_arm(KIND, {"host": HOST})
    made.connect()
    yield made
    for mend in ("plug", "mend", "clear"):
        controller.make(mend)
    made.disconnect()
    assert not controller.report()["unknown"]


def swing(arm, degrees, steps=20):
    """The first joint, in steps; returns the last target."""
    target = arm.state().position.copy()
    for _ in range(steps):
        target[0] += degrees / steps
        assert (arm.command(target) == target).all()
        time.sleep(0.01)
    return target


@needs_sdk
def test_it_moves_in_degrees_holds_and_is_stopped_at_the_end(arm, controller):
    begun = arm.state()
    assert begun.position[1:] == pytest.approx([-45, -45, 0, 90, 0], abs=0.1)
    assert 0 <= time.monotonic() - begun.time_s < 0.1
    target = swing(arm, 8.0)
    time.sleep(0.2)
    assert arm.state().position == pytest.approx(target, abs=0.05)
    arm.command(target + [0.5, 0, 0, 0, 0, 0])
    arm.hold()
    held = arm.state().position
    time.sleep(0.2)
    assert arm.state().position == pytest.approx(held, abs=0.3)
    swing(arm, 1.0)
    arm.disconnect()
    assert controller.report()["state"] == 4
    with pytest.raises(ArmError, match="no connection"):
        arm.state()
    arm.disconnect()


@needs_sdk
def test_connecting_moves_nothing(arm, controller):
    arm.disconnect()
    time.sleep(0.2)
    since_s = time.monotonic()
    arm.connect()
    time.sleep(0.2)
    rows = controller.history(since_s)
    assert len(rows) > 20 and max(abs(rows[-1][n] - row[n]) for row in rows for n in range(1, 7)) < 0.01
    assert controller.report()["mode"] == 1


@needs_sdk
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("error 24", "C24, Speed Exceeds Limit: lower `velocity`"),
        ("error 31", "C31, Collision Caused Abnormal Current: look what it touched"),
        ("error 60", "C60, Linear speed exceeded limit in servo_j mode: the hand is too fast"),
        ("error 12", "C12, Servo motor 2 error: see its manual"),
    ],
)
def test_an_error_has_its_remedy_and_the_release_clears_it(arm, controller, fault, line):
    target = swing(arm, 1.0)
    controller.make(fault)
    for call in (lambda: arm.command(target), arm.state):
        with pytest.raises(ArmError, match=line):
            call()
    arm.hold()  # the controller has stopped it
    arm.disconnect()
    arm.connect()
    swing(arm, 1.0)


@needs_sdk
def test_a_target_that_is_too_far_is_c24(arm):
    target = swing(arm, 1.0)
    with pytest.raises(ArmError, match="C24"):
        arm.command(target + [60, 0, 0, 0, 0, 0])


@needs_sdk
def test_an_error_that_was_there_before_is_not_cleared_from_here(arm, controller):
    arm.disconnect()
    controller.make("error 31")
    stranger = make_arm(KIND, {"host": HOST})
    with pytest.raises(ArmError, match=r"C31.*, and clear it in UFACTORY Studio"):
        stranger.connect()
    stranger.disconnect()
    assert controller.report()["error"] == 31


@needs_sdk
def test_a_pressed_emergency_stop_stays_an_error_until_it_is_released(arm, controller):
    swing(arm, 1.0)
    controller.make("emergency_stop")
    with pytest.raises(ArmError, match="release the emergency stop button"):
        arm.state()
    arm.disconnect()
    with pytest.raises(ArmError, match="release the emergency stop button"):
        arm.connect()
    controller.make("mend")
    arm.disconnect()
    arm.connect()
    swing(arm, 1.0)


@needs_sdk
def test_a_stop_by_another_program_and_a_target_out_of_range_are_errors(arm, controller):
    target = swing(arm, 1.0)
    with pytest.raises(ArmError, match="narrow `low` and `high`"):
        arm.command(target + [0, 0, 90, 0, 0, 0])
    controller.make("stop")
    with pytest.raises(ArmError, match="it was stopped, in UFACTORY Studio"):
        arm.command(target)
    arm.hold()


@needs_sdk
def test_a_lost_answer_is_a_timeout_and_the_next_one_is_not_mistaken_for_it(arm, controller):
    target = swing(arm, 1.0)
    controller.make("lose 1")
    begun_s = time.monotonic()
    with pytest.raises(TimeoutError, match="30 ms"):
        arm.command(target)
    assert time.monotonic() - begun_s < 0.5
    assert arm.state().position == pytest.approx(target, abs=0.5)
    controller.make("silent")
    for call in (lambda: arm.command(target), arm.state, arm.hold):
        with pytest.raises(TimeoutError):
            call()
    controller.make("plug")
    time.sleep(0.1)
    assert arm.state().position == pytest.approx(target, abs=0.5)


@needs_sdk
def test_on_a_dead_link_at_most_one_target_waits(arm, controller):
    target = swing(arm, 1.0)
    time.sleep(0.2)
    stands = arm.state().position
    controller.make("silent")
    for _ in range(5):
        target[0] += 0.5
        with pytest.raises(TimeoutError):
            arm.command(target)
    controller.make("plug")
    time.sleep(0.3)
    assert arm.state().position[0] == pytest.approx(stands[0] + 0.5, abs=0.05)
    arm.command(target - [2, 0, 0, 0, 0, 0])


@needs_sdk
def test_a_closed_connection_is_an_error(arm, controller):
    controller.make("drop")
    time.sleep(1.0)
    for call in (arm.state, arm.hold):
        with pytest.raises(ArmError, match="no connection"):
            call()
    arm.disconnect()
    arm.connect()
    swing(arm, 1.0)


@needs_sdk
def test_behind_the_guard_it_is_held_and_released(controller):
    controller.make("clear")
    axes = {
        f"joint{n}": {"low": home - 20, "high": home + 20, "speed": 20, "home": home} for n, home in enumerate(HOME, 1)
    }
    env = envs.make("real", arm=KIND, arm_options={"host": HOST}, axes=axes, realtime=False)
    try:
        env.reset(seed=0)
        for _ in range(5):
            env.step(np.ones(6, np.float32))
        controller.make("error 31")
        with pytest.raises(RobotFault, match="C31, Collision"):
            env.step(np.ones(6, np.float32))
        env.unwrapped.clear()
        controller.make("lose 1")
        for _ in range(3):
            env.step(-np.ones(6, np.float32))
        assert env.unwrapped.lost_replies == 1
    finally:
        env.close()
    assert controller.report()["state"] == 4


@needs_sdk
def test_the_number_of_joints_is_that_of_the_arm(controller):
    made = make_arm(KIND, {"host": HOST, "joints": 7})
    assert len(made.axes) == 7
    with pytest.raises(ArmError, match="has 6 joints: write arm_options: joints: 6"):
        made.connect()
    made.disconnect()


def test_what_the_options_and_the_address_must_be():
    with pytest.raises(ValueError, match="host is missing"):
        make_arm(KIND, {})
    with pytest.raises(ValueError, match="joints 4 is not"):
        make_arm(KIND, {"host": HOST, "joints": 4})


def test_without_the_sdk_the_error_says_what_to_install():
    if importlib.util.find_spec("xarm"):
        pytest.skip("it is installed")
    with pytest.raises(ArmError, match="pip install xarm-python-sdk"):
        make_arm(KIND, {"host": HOST}).connect()


@needs_sdk
def test_an_address_where_nothing_answers_is_one_line():
    with pytest.raises(ArmError, match="port 502: Connection refused"):
        make_arm(KIND, {"host": NOBODY}).connect()


def test_the_emulators_frames_are_those_of_the_private_protocol(controller):
    with socket.create_connection((HOST, CONTROL_PORT), 2.0) as line:
        line.sendall(GET_VERSION)
        answer = line.recv(128)
        assert answer[:6] == struct.pack(">HHH", 1, 2, len(answer) - 6) and answer[6] == 1
        assert answer[8:].startswith(b"6,6,XI") and answer.endswith(b"v2.5.0\0")
        controller.make("clear")
        line.sendall(struct.pack(">HHHB", 2, 2, 2, 99) + b"\0")
        assert line.recv(128) == struct.pack(">HHHBB", 2, 2, 2, 99, 0x18)  # invalid, not ready
    assert "function 99" in controller.report()["unknown"]
    controller.make("forget_unknown")
