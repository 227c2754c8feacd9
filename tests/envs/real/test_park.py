"""Parking: an arm of this test's clock, and an arm's process on an emulated bus whose robot server ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from remembering_arm import PERIOD_S, Bus, Now, go

import envs
from envs.base import while_closing
from envs.real import guard as guard_module
from envs.real import lost_replies
from envs.real import park as park_module
from envs.real.bus.bus import Bus as ServoBus
from envs.real.bus.protocol import FEETECH
from envs.real.guard import Guard, Setup
from envs.real.park import Park, park
from envs.real.safety_filter import Limits
from envs.real.startup import NEAR

ONES = np.ones(2)
FINGERS = np.array([0.0, np.inf])
PLACE = Park(np.array([-0.5, np.nan]), 0.4 * ONES, 0.05 + FINGERS, 0.01 + FINGERS, np.array([False, True]))


class Heavy(Bus):
    """Its x sags by 0.04 below where it is sent; its y, a gripper, closes on something at 0.3. sent: every setpoint."""

    def __init__(self, now):
        super().__init__(now)
        self.sent, self.sag, self.stands = [], 0.04, False

    def state(self):
        at = np.array([self.at[0] - self.sag, min(self.at[1], 0.3)])
        return replace(super().state(), position=np.zeros(2) if self.stands else at)

    def command(self, target):
        sent = super().command(target)
        self.sent.append((self.now.now_s, sent.copy()))
        return sent

    def hold(self):
        super().hold()
        self.command(self.state().position)


@pytest.fixture
def now(monkeypatch):
    now = Now()
    for module in (guard_module, lost_replies, park_module):
        monkeypatch.setattr(module, "time", now)
    return now


@pytest.fixture
def arm(now, request):
    return getattr(request, "param", Heavy)(now)


@pytest.fixture
def guard(arm):
    limits = Limits(-ONES, ONES, 0.2 * ONES, ONES, 100 * ONES)
    made = Guard(Setup("", {}, limits, PERIOD_S, 0.15, 0.0, 50.0, 0.4 * ONES, 0.0, coast_s=0.1, park=PLACE), arm)
    made.connect()
    return made


def parked(guard, now, stop=lambda: False):
    def stopped(timeout_s):
        now.now_s += timeout_s
        return stop()

    return park(guard, stopped)


def test_it_goes_to_its_place_at_its_pace_and_the_gripper_presses_on_nothing(guard, arm, now):
    for step in range(8):
        go(guard, now, 0.05 * step, 0.1 * step)
    for _ in range(6):
        now.now_s += 0.02
        guard.tick()
    arm.sent.clear()
    begun_s = now.now_s
    assert parked(guard, now) == ""
    assert arm.at == pytest.approx([-0.5, 0.3], abs=1e-3)  # where the gripper is, no farther
    places, times = np.array([sent[0] for _, sent in arm.sent]), np.array([t for t, _ in arm.sent])
    assert np.all(np.diff(places) <= 1e-9) and 2.0 < now.now_s - begun_s < 4.5
    assert np.all(-np.diff(places) <= 1.0 * np.diff(times) + 1e-9)
    assert np.polyfit(times[10:60], places[10:60], 1)[0] == pytest.approx(-0.4, abs=0.05)


@pytest.mark.parametrize("held", [False, True])
def test_it_begins_where_it_was_sent_last_and_does_not_drop_to_where_it_is_measured(guard, arm, now, held):
    for step in range(8):
        go(guard, now, 0.05 * step)
    if held:
        guard.hold()
        arm.at = guard.filter.position.copy()  # as the driver's hold left it; it sags by so much more
    begin = arm.at[0]
    arm.sent.clear()
    guard.setup = replace(guard.setup, park=replace(PLACE, position=np.array([0.9, np.nan])))
    assert parked(guard, now) == ""
    assert min(sent[0] for _, sent in arm.sent) >= begin - 1e-9


def test_one_that_was_moved_by_hand_begins_where_it_is(guard, arm, now):
    go(guard, now, 0.05)
    guard.hold()
    arm.at = np.array([0.9, 0.0])
    arm.sent.clear()
    assert parked(guard, now) == ""
    assert arm.sent[0][1][0] == pytest.approx(0.9 - arm.sag, abs=0.03)


def test_a_stop_holds_it_at_once(guard, arm, now):
    go(guard, now, 0.05)
    looks = iter([False] * 30 + [True])
    assert parked(guard, now, lambda: next(looks)) == "stopped by a person"
    assert arm.log[-2:] == ["hold", "command"] and arm.at[0] > -0.4
    arm.log.clear()
    now.now_s += 1.0
    guard.tick()
    assert arm.log == []


def test_one_that_does_not_get_there_is_held_and_it_says_where_it_is(guard, arm, now):
    go(guard, now, 0.05)
    arm.stands = True
    guard.setup = replace(guard.setup, lag=9 * ONES)
    assert parked(guard, now) == "axis 'x' does not reach -0.5, it is at 0"
    assert "hold" in arm.log[-3:]


class Slow(Heavy):
    """Its x comes only half as fast as it is sent, without an end where it `swings`; its gripper never stands."""

    def __init__(self, now):
        super().__init__(now)
        self.x, self.seen_s, self.swings, self.speed = 0.0, now.monotonic(), False, 0.0

    def state(self):
        now_s = self.now.monotonic()
        most = 0.2 * (now_s - self.seen_s)
        before, self.seen_s = self.x, now_s
        self.x += np.clip(self.at[0] - self.x, -most, most)
        self.speed = abs(self.x - before)
        if "command" in self.log:
            self.at[1] = 0.2 * np.sin(9 * now_s)
        return replace(
            super().state(), position=np.array([self.x + 0.03 * self.swings * np.sin(9 * now_s), self.at[1]])
        )


@pytest.mark.parametrize("arm", [Slow], indirect=True)
def test_an_arm_that_is_near_its_place_is_waited_for_until_it_stands(guard, arm, now):
    for step in range(4):
        go(guard, now, 0.05 * step)
    arm.log.clear()
    assert parked(guard, now) == ""
    assert arm.speed == 0 and arm.x == pytest.approx(-0.5, abs=1e-3)


@pytest.mark.parametrize("arm", [Slow], indirect=True)
def test_one_that_swings_at_its_place_is_held_in_the_end(guard, arm, now):
    go(guard, now, 0.05)
    arm.swings, begun_s = True, now.now_s
    assert parked(guard, now) == "axis 'x' does not stand still"
    assert "hold" in arm.log[-3:] and now.now_s < begun_s + 5.0


def test_an_arm_with_an_error_is_not_moved(guard, arm, now):
    go(guard, now, 0.05)
    arm.error = OSError("no such device")
    guard.tick()
    arm.error = None
    arm.log.clear()
    assert "no such device" in parked(guard, now) and arm.log == []
    guard.clear()
    arm.lose["state"] = 9
    assert "no status packet" in parked(guard, now)


def test_lost_replies_on_the_way_are_bridged(guard, arm, now):
    go(guard, now, 0.05)
    losing = iter(range(10_000))

    def stop():
        if next(losing) % 7 == 0:
            arm.lose["state"] = arm.lose["command"] = 1
        return False

    assert parked(guard, now, stop) == "" and guard.lost > 10


def test_a_place_outside_of_an_axis_is_refused():
    for given, says in (({"x": 3.0}, "park: x is 3"), ({"elbow": 0.0}, "park: .*expected axes of x"), ([1], "park")):
        with pytest.raises(ValueError, match=says):
            envs.make("real", arm="mock", axes={"x": {"low": -1, "high": 1}}, park=given)


# ---- the arm's process, on an emulated bus ----

AXES = {name: {"low": 90, "high": 270, "speed": 120, "lag": 60, "home": 180} for name in "abcdef"}
NEAR_DEG = NEAR * 180  # so near it is parked; how near it stands depends on how late its servos were answered
OPTIONS = {"axes": AXES, "park": {"a": 150.0, "b": 200.0}, "realtime": False, "release_s": 0.3, "watchdog_s": 0.9}
DRIVER = """
import json, sys, time
import numpy as np
import envs
env = envs.make("real", **json.loads(sys.argv[1]))
env.reset(seed=0)
for _ in range(3):
    env.step(np.ones(6, np.float32))
if "held" in sys.argv:
    env.unwrapped.hold()
print("moved", flush=True)
while "held" not in sys.argv:
    env.step(np.zeros(6, np.float32))
time.sleep(60)
"""


@pytest.fixture
def servos():
    with ServoBus(FEETECH) as bus:
        bus.place(180.0)
        yield bus


def options(servos, **more):
    arm = {"arm": "envs.real.bus.client:BusArm", "arm_options": {"port": str(servos.port), "protocol": "feetech"}}
    return {**arm, **OPTIONS, **more}


def moved(servos, **more):
    env = envs.make("real", **options(servos, **more))
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones(6, np.float32))
    return env


def places(servos):
    return [servos.servos[number].position for number in (1, 2)]


def until(what, timeout_s=15.0):
    end_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def released(servos):
    until(lambda: not any(servos.torque().values()))


def test_closing_parks_the_arm_and_ends_its_torque(servos):
    moved(servos).close()
    assert places(servos) == pytest.approx([150, 200], abs=NEAR_DEG) and not any(servos.torque().values())


def test_one_that_was_never_moved_stays(servos):
    envs.make("real", **options(servos)).close()
    assert places(servos) == pytest.approx([180, 180], abs=0.2) and not any(servos.torque().values())


def test_one_that_a_person_has_stopped_stays(servos, caplog):
    env = moved(servos)
    env.unwrapped.hold()
    before = places(servos)
    while_closing(env, lambda: True)
    env.close()
    assert places(servos) == pytest.approx(before, abs=2) and not any(servos.torque().values())
    assert "not parked: a person has stopped or paused it" in caplog.text


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_a_second_interrupt_on_the_way_holds_it_at_once_and_torque_stays_for_release_s(servos, how):
    env = moved(servos, park={"a": 95.0})
    begun_s = time.monotonic()

    def stopped():
        if time.monotonic() < begun_s + 0.4:
            return False
        if how == "interrupt":
            raise KeyboardInterrupt
        return True

    while_closing(env, stopped)
    with pytest.raises(KeyboardInterrupt) if how == "interrupt" else contextlib.nullcontext():
        env.close()
    assert all(servos.torque().values())
    time.sleep(0.1)
    where = places(servos)
    assert where[0] > 100
    released(servos)
    assert places(servos) == pytest.approx(where, abs=3)


@pytest.mark.parametrize(("number", "held"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGTERM, False)])
def test_a_killed_robot_server_leaves_an_arm_that_parks_unless_it_was_held(servos, number, held):

    words = [sys.executable, "-c", DRIVER, json.dumps(options(servos)), *["held"] * held]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=os.getcwd()) as process:
        assert process.stdout.readline() == b"moved\n"
        before = places(servos)
        process.send_signal(number)
        process.wait()
    assert all(servos.torque().values())
    released(servos)
    assert places(servos) == pytest.approx(before if held else [150, 200], abs=NEAR_DEG)


def test_a_terminal_that_was_closed_with_the_robot_server_does_not_make_the_arm_fall(servos):
    """What its process reports cannot be written there any more."""
    ours, theirs = os.openpty()
    words = [sys.executable, "-c", DRIVER, json.dumps(options(servos))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, cwd=os.getcwd()) as process:
        os.close(theirs)
        assert process.stdout.readline() == b"moved\n"
        os.close(ours)
        process.kill()
        process.wait()
    released(servos)
    assert places(servos) == pytest.approx([150, 200], abs=NEAR_DEG)


def test_a_sigterm_that_comes_again_does_not_keep_the_torque_on(servos):
    """As from the next robot server, until it has the arm."""
    env = moved(servos, release_s=60.0)
    process = env.unwrapped._arm
    process._connection.close()
    time.sleep(0.2)
    assert all(servos.torque().values()) and process._process.poll() is None
    end_s = time.monotonic() + 15
    while process._process.poll() is None and time.monotonic() < end_s:
        process._process.terminate()
        time.sleep(0.001)
    assert not any(servos.torque().values())
    env.unwrapped._arm = SimpleNamespace(close=lambda paused: None)
    env.close()


def test_a_robot_server_that_is_killed_while_it_parks_does_not_keep_it_from_that(servos, monkeypatch):
    from envs.real import arm_process

    env = moved(servos)
    process = env.unwrapped._arm
    process._connection.send((99, "park"))
    time.sleep(0.1)
    process._connection.close()
    process._process.wait(15)
    assert places(servos) == pytest.approx([150, 200], abs=NEAR_DEG) and arm_process.PARK_S > 1
    env.unwrapped._arm = SimpleNamespace(close=lambda paused: None)
    env.close()
