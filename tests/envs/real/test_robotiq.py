"""A Robotiq gripper against an emulated URCap, by itself."""

import time

import pytest

from envs.real.arm import ArmError
from envs.real.robotiq import Robotiq
from tools.stress.arms.emulated import Emulated, own_address

HOST, NOBODY = own_address(61), own_address(62)


@pytest.fixture(scope="module")
def controller():
    with Emulated("ur", HOST) as made:
        yield made


@pytest.fixture
def gripper(controller):
    for mend in ("plug", "mend", "gripper STA 3", "gripper FLT 0", "thing 255"):
        controller.make(mend)
    made = Robotiq(HOST)
    yield made
    made.close()


def until(what, timeout_s=5.0):
    end_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_it_goes_where_it_is_sent_and_connecting_moves_nothing(gripper, controller):
    begun = controller.report()["gripper"]["POS"]
    time.sleep(0.1)
    assert gripper.position() == begun == controller.report()["gripper"]["POS"]
    gripper.move(200.4)
    until(lambda: gripper.position() == 200)
    gripper.move(-5)
    until(lambda: gripper.position() == 0)
    gripper.move(300)
    until(lambda: gripper.position() == 255)
    assert controller.report()["gripper"]["FOR"] == 100


def test_one_that_was_never_moved_is_not_stopped_either(gripper, controller):
    gripper.move(0)
    until(lambda: controller.report()["gripper"]["GTO"] == 1)
    other = Robotiq(HOST)
    try:
        other.stop()
        seen_s = other._seen_s
        until(lambda: other._seen_s > seen_s + 0.1)  # it has had its turn
        assert controller.report()["gripper"]["GTO"] == 1
    finally:
        other.close()


def test_it_stops_where_it_is_and_goes_on(gripper, controller):
    gripper.move(0)
    until(lambda: gripper.position() == 0)
    gripper.move(255)
    until(lambda: gripper.position() > 20)
    gripper.stop()
    until(lambda: controller.report()["gripper"]["GTO"] == 0)
    stands = controller.report()["gripper"]["POS"]
    assert stands < 255
    gripper.stop()
    time.sleep(0.2)
    assert controller.report()["gripper"]["POS"] == stands
    gripper.move(255)  # the same target as before
    until(lambda: gripper.position() == 255)


def test_it_stops_at_a_thing(gripper, controller):
    gripper.move(0)
    until(lambda: gripper.position() == 0)
    controller.make("thing 90")
    gripper.move(255)
    until(lambda: gripper.position() == 90)
    time.sleep(0.1)
    assert gripper.position() == 90


def test_a_fault_and_a_closed_connection_are_errors(gripper, controller):
    controller.make("gripper FLT 14")
    with pytest.raises(ArmError, match="fault 14: look it up"):
        until(lambda: gripper.position() < 0)
    controller.make("gripper FLT 0")
    another = Robotiq(HOST)
    controller.make("drop")
    with pytest.raises(ArmError, match="robotiq: "):
        until(lambda: another.position() < 0)
    another.close()


def test_silence_is_a_lost_reply_until_the_time_for_an_answer_is_over(gripper, controller):
    until(lambda: gripper.position() >= 0)
    controller.make("silent")
    with pytest.raises(TimeoutError, match="no position for 300 ms"):
        until(lambda: gripper.position() < 0)
    with pytest.raises(ArmError, match="timed out"):
        until(lambda: not waited(gripper))
    controller.make("plug")


def waited(gripper):
    try:
        return gripper.position()
    except TimeoutError:
        return True


def test_one_that_is_not_active_has_no_power_or_is_not_there_is_refused(gripper, controller):
    controller.make("gripper STA 0")
    with pytest.raises(ArmError, match="it is not active: activate it at the pendant"):
        Robotiq(HOST)
    controller.make("gripper STA 3")
    controller.make("emergency_stop")
    with pytest.raises(ArmError, match="has its wrist power"):
        Robotiq(HOST)
    with pytest.raises(ArmError, match="is its URCap installed"):
        Robotiq(NOBODY)
