"""A UR through the real ur_rtde, against an emulated controller; what needs no ur_rtde runs without it."""

import importlib.util
import socket
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from envs.real.arm import ArmError, make_arm
from envs.real.arm_ur import RTDE_PORT, VERSION_2, dashboard, stopped
from envs.real.ur_sdk import Measured, Robot
from tools.stress.arms.emulated import Emulated, own_address

KIND = "ur"
HOST, SILENT, NOBODY = own_address(41), own_address(42), own_address(43)
needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("rtde_control") is None, reason="ur_rtde is not installed (wheels: x86_64, Python <= 3.12)"
)


@pytest.fixture(scope="module")
def controller():
    with Emulated("ur", HOST) as made:
        yield made


@pytest.fixture
def arm(controller):
    made = make_arm(KIND, {"host": HOST})
    patient(made.connect)
    yield made
    for mend in ("plug", "mend"):
        controller.make(mend)
    made.disconnect()
    assert not controller.report()["unknown"]


def patient(call, *given, timeout_s=5.0):
    """What `call` returns or raises, but for lost replies: the emulator may be late."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            return call(*given)
        except TimeoutError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.002)


def seen(arm):
    return patient(arm.state).position


def swing(arm, degrees, steps=20):
    """The first joint, in steps; returns the last target."""
    target = seen(arm).copy()
    for _ in range(steps):
        target[0] += degrees / steps
        assert (patient(arm.command, target) == target).all()
        time.sleep(0.02)
    return target


def until(what, timeout_s=5.0):
    end_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@needs_sdk
def test_it_moves_in_degrees_holds_and_ends_its_program(arm, controller):
    begun = patient(arm.state)
    assert begun.position == pytest.approx([0, -90, 90, -90, -90, 0], abs=1)
    assert 0 <= time.monotonic() - begun.time_s < 0.1
    target = swing(arm, 8.0)
    until(lambda: seen(arm) == pytest.approx(target, abs=0.1))
    patient(arm.command, target + [10, 0, 0, 0, 0, 0])
    time.sleep(0.05)
    patient(arm.hold)
    held = seen(arm)
    assert target[0] < held[0] < target[0] + 9
    time.sleep(0.2)
    assert seen(arm) == pytest.approx(held, abs=0.1)
    patient(arm.command, held)  # it goes on after a hold
    until(lambda: controller.report()["servoing"])
    arm.disconnect()
    assert not controller.report()["servoing"] and controller.report()["runtime"] == 1
    with pytest.raises(ArmError, match="no connection"):
        seen(arm)
    arm.disconnect()


def test_the_emulator_reports_what_it_can_make_nothing_of(controller):
    for fault in ("protective_halt", "thing", "thing soft"):
        with pytest.raises(RuntimeError, match=f"to '{fault}'"):
            controller.make(fault)
    with socket.create_connection((HOST, RTDE_PORT), timeout=5.0) as client:
        client.sendall(struct.pack(">HB", 3, ord("U")))
        assert client.recv(1) == b""
    until(lambda: controller.report()["unknown"] == ["IndexError('index out of range')"])
    controller.make("forget_unknown")


@needs_sdk
def test_a_target_that_is_not_followed_by_another_stays_the_target(arm, controller):
    """The computer may die: the controller goes to the last setpoint and stands."""
    target = swing(arm, 4.0)
    controller.make("silent")
    time.sleep(1.5)
    assert controller.history(time.monotonic() - 0.3)[-1][1] == pytest.approx(target[0], abs=0.1)


@needs_sdk
def test_a_gripper_is_the_last_axis(controller):
    made = make_arm(KIND, {"host": HOST, "gripper": "robotiq"})
    assert made.axes[-1] == "gripper" and len(made.axes) == 7
    try:
        patient(made.connect)
        target = seen(made).copy()
        target[-1] = 120
        patient(made.command, target)
        until(lambda: seen(made)[-1] == 120)
        target[-1] = 255
        patient(made.command, target)
        until(lambda: seen(made)[-1] > 125)
        patient(made.hold)
        until(lambda: controller.report()["gripper"]["GTO"] == 0)
        assert controller.report()["gripper"]["POS"] < 255
        assert seen(made)[:-1] == pytest.approx(target[:-1], abs=0.2)
    finally:
        made.disconnect()
    assert len(make_arm(KIND, {"host": HOST}).axes) == 6


@needs_sdk
def test_without_the_arms_process_the_arm_is_stopped(arm, controller):
    target = swing(arm, 1.0)
    patient(arm.command, target + [10, 0, 0, 0, 0, 0])
    arm._sdk._connection.close()  # as when it was killed
    until(lambda: not controller.report()["servoing"])


@needs_sdk
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("protective_stop", "protective stop: find its cause, then unlock it"),
        ("protective_stop paused", "protective stop"),
        ("emergency_stop", "emergency stop: release the button"),
        ("safeguard_stop", "safeguard stop"),
        ("stop_program", "its program was stopped"),
    ],
)
def test_a_stop_of_the_controller_is_an_error_with_its_remedy(arm, controller, fault, line):
    target = swing(arm, 2.0)
    controller.make(fault)
    time.sleep(0.1)
    for call in (lambda: arm.command(target), arm.state):
        with pytest.raises(ArmError, match=line):
            patient(call)
    patient(arm.hold)  # it stands by itself


@needs_sdk
def test_a_protective_stop_is_unlocked_by_the_release_only_of_whoever_caused_it(arm, controller):
    swing(arm, 2.0)
    controller.make("protective_stop")
    time.sleep(0.1)
    with pytest.raises(ArmError, match="protective stop"):
        seen(arm)
    stranger = make_arm(KIND, {"host": HOST})
    with pytest.raises(ArmError, match="unlock"):
        patient(stranger.connect)
    stranger.disconnect()
    arm.disconnect()
    controller.make("protective_stop")  # its 5 s begin again: this machine may be slow
    with pytest.raises(ArmError, match="until 5s after"):
        patient(arm.connect)
    arm.disconnect()
    controller.make("forget_stop")
    patient(arm.connect)
    swing(arm, 2.0)


@needs_sdk
def test_a_silent_link_is_a_lost_reply_and_then_no_connection(arm, controller):
    target = swing(arm, 2.0)
    controller.make("silent")
    time.sleep(0.06)
    for call in (lambda: arm.command(target), arm.state, arm.hold):
        begun_s = time.monotonic()
        with pytest.raises(TimeoutError):
            call()
        assert time.monotonic() - begun_s < 0.5  # ur_rtde by itself waits for minutes
    controller.make("plug")
    seen(arm)
    patient(arm.hold)
    controller.make("silent")
    time.sleep(1.3)
    with pytest.raises(ArmError, match="no connection"):
        arm.state()


@needs_sdk
def test_after_a_closed_connection_nothing_reconnects_by_itself(arm, controller):
    swing(arm, 2.0)
    controller.make("drop")
    time.sleep(0.1)
    for call in (arm.state, arm.hold):
        with pytest.raises(ArmError, match="no connection"):
            patient(call)
    scripts = controller.report()["scripts"]
    time.sleep(0.5)
    assert controller.report()["scripts"] == scripts  # ur_rtde by itself uploads it again and again
    arm.disconnect()
    patient(arm.connect)
    swing(arm, 2.0)


@needs_sdk
def test_local_control_is_refused_with_the_remedy(controller):
    controller.make("local")
    made = make_arm(KIND, {"host": HOST})
    try:
        with pytest.raises(ArmError, match="remote control"):
            patient(made.connect)
    finally:
        controller.make("mend")
        made.disconnect()


def test_what_the_options_and_the_address_must_be():
    with pytest.raises(ValueError, match="host is missing"):
        make_arm(KIND, {})
    with pytest.raises(ValueError, match="hz 5 is not within"):
        make_arm(KIND, {"host": HOST, "hz": 5})
    with pytest.raises(ValueError, match="gripper 'claw' is not robotiq"):
        make_arm(KIND, {"host": HOST, "gripper": "claw"})
    with pytest.raises(ArmError, match="port 30004: Connection refused"):
        make_arm(KIND, {"host": NOBODY}).connect()


def test_a_port_that_does_not_answer_is_no_controller(monkeypatch):
    monkeypatch.setattr("envs.real.controller_probe.ANSWER_S", 0.1)
    with socket.create_server((SILENT, RTDE_PORT)):
        with pytest.raises(ArmError, match=r"no answer for 0.1 s; is the controller on"):
            make_arm(KIND, {"host": SILENT}).connect()


def test_without_ur_rtde_the_error_says_what_to_install(controller):
    if importlib.util.find_spec("rtde_control"):
        pytest.skip("it is installed")
    with pytest.raises(ArmError, match=r"rtde_receive.*pip install ur_rtde"):
        make_arm(KIND, {"host": HOST}).connect()


def test_an_error_without_a_text_is_no_success(monkeypatch):
    robot = object.__new__(Robot)
    robot._host, robot._hz = HOST, 125.0

    def fail(host, hz):
        raise RuntimeError

    monkeypatch.setitem(sys.modules, "rtde_control", SimpleNamespace(RTDEControlInterface=fail))
    assert robot.control().startswith("its control script cannot be uploaded (RuntimeError); set the pendant")


@pytest.mark.parametrize(
    ("bits", "mode", "runtime", "line"),
    [
        (1, 7, 2, ""),
        (1, 7, 1, "program was stopped"),
        (1, 7, 4, "program was stopped"),
        (1, 3, 1, "motors are off"),
        (1 << 2, 7, 1, "protective"),
        (1 << 2 | 1 << 7, 7, 1, "emergency"),
        (1 << 4, 7, 4, "safeguard"),
        (1 << 5, 7, 1, "emergency"),
        (1 << 6, 7, 1, "emergency"),
        (1 << 8, 7, 1, "violation"),
        (1 << 9, 7, 1, "fault"),
        (1 << 3, 7, 1, "recovery"),
    ],
)
def test_why_it_cannot_move(bits, mode, runtime, line):
    said = stopped(Measured([0.0] * 6, bits, mode, runtime), of_program=True)
    assert line in said and bool(line) == bool(said)


def test_the_emulators_frames_are_those_of_rtde(controller):
    with socket.create_connection((HOST, RTDE_PORT), 2.0) as line:
        line.sendall(VERSION_2)
        assert line.recv(16) == bytes.fromhex("0004 56 01")
        line.sendall(bytes.fromhex("0003 76"))
        assert line.recv(32) == struct.pack(">HB4I", 19, 118, 5, 12, 4, 0)
        names = b"timestamp,actual_q,no_such_thing"
        line.sendall(struct.pack(">HBd", 11 + len(names), 79, 125.0) + names)
        assert line.recv(64)[3:] == b"\x01DOUBLE,VECTOR6D,NOT_FOUND"
    assert dashboard(HOST, "running") == "Program running: false"
    assert np.array(controller.history()).shape[1] == 7
