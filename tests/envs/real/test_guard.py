"""What keeps an arm safe, with an arm that only remembers, and a clock of the test's own."""

from types import SimpleNamespace

import numpy as np
import pytest
from remembering_arm import PERIOD_S, Arm, Now, go

from envs.real import guard as guard_module
from envs.real.arm import ArmError, State
from envs.real.guard import Guard, Setup
from envs.real.safety_filter import Limits


@pytest.fixture
def now(monkeypatch):
    now = Now()
    monkeypatch.setattr(guard_module, "time", now)
    return now


@pytest.fixture
def arm(now):
    return Arm(now)


@pytest.fixture
def made(arm):
    def make(**changed):
        ones = np.ones(2)
        limits = Limits(-ones, ones, 0.2 * ones, 1.0 * ones, 100 * ones)
        given = {"watchdog_s": 0.15, "release_s": 0.0, "setpoint_hz": 0.0, "lag": 0.1 * ones, "stuck_s": 0.5}
        guard = Guard(Setup("", {}, limits, PERIOD_S, **{**given, **changed}), arm)
        guard.connect()
        arm.log.clear()
        return guard

    return make


class Leaps(Arm):
    """Its torque comes on with a goal of an earlier session, to which it moves by 0.02 each time it is looked at."""

    goal = None

    def connect(self):
        super().connect()
        self.goal = 0.9

    def state(self):
        if self.goal is not None:
            self.at = np.array([min(self.at[0] + 0.02, self.goal), 0.0])
        return super().state()

    def hold(self):
        super().hold()
        self.goal = None


@pytest.mark.parametrize("arm", [Leaps(None)])
def test_an_arm_that_leaps_when_its_torque_comes_on_is_held_at_once(made, arm, now):
    arm.now = now
    with pytest.raises(ArmError, match=r"axis 'x' moved by 0\.06 when its torque came on, before any command"):
        made()
    assert arm.log == ["connect", "hold"] and arm.at[0] < 0.1


def test_an_arm_that_sags_when_its_torque_comes_on_does_not_leap(made, arm, now, monkeypatch):
    places = [0.0, 0.02, 0.04]
    monkeypatch.setattr(arm, "state", lambda: State(np.array([places.pop(0) if places else 0.04, 0.0]), now.now_s))
    assert made().error is None


def test_a_command_goes_through_the_filter_to_the_arm(made, arm, now):
    guard = made()
    begun, target, state = go(guard, now, 0.05)
    assert begun.tolist() == [0, 0] and target == pytest.approx([0.05, 0]) and state.position.tolist() == [0, 0]
    begun, target, state = go(guard, now, 9.0)
    assert begun == pytest.approx([0.05, 0]) and target == pytest.approx([0.15, 0]) and arm.at == pytest.approx(target)


def test_setpoints_lead_evenly_to_the_target(made, arm, now):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.1)
    seen = [arm.at[0]]
    for _ in range(5):
        now.now_s += 0.02
        guard.tick()
        seen.append(arm.at[0])
    assert seen == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])


def test_without_a_command_the_arm_is_held_once_and_goes_on_with_the_next(made, arm, now):
    guard = made()
    go(guard, now, 0.05)
    now.now_s += 0.14
    guard.tick()
    assert arm.log == ["command"] and 0 < guard.wait_s < 0.02
    now.now_s += 0.02
    guard.tick()
    guard.tick()
    assert arm.log == ["command", "hold"] and guard.holds == 1
    arm.at = np.array([0.3, 0.0])  # it coasted
    begun, target, _ = go(guard, now, 0.35)
    assert begun == pytest.approx([0.3, 0]) and target == pytest.approx([0.35, 0]) and arm.log[-1] == "command"


def test_a_command_that_was_under_way_for_too_long_is_not_carried_out(made, arm, now):
    guard = made()
    go(guard, now, 0.05)
    now.now_s += PERIOD_S
    begun, target, state = guard.command(np.array([0.1, 0.0]), now.now_s - 0.2)
    assert begun.tolist() == target.tolist() == state.position.tolist() == [0.05, 0] and arm.log == ["command", "hold"]
    assert go(guard, now, 0.1)[1] == pytest.approx([0.1, 0])


def test_setpoints_after_a_hold_begin_where_the_arm_is_then(made, arm, now):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)
    guard.hold()
    arm.at = np.array([0.5, 0.0])  # it was moved by hand
    go(guard, now, 0.6)
    assert arm.at == pytest.approx([0.52, 0])


def test_how_long_an_axis_stood_before_a_hold_does_not_count_after_it(made, arm, now):
    guard = made()
    arm.stuck = True
    for _ in range(4):
        go(guard, now, 0.3)
    guard.hold()
    for _ in range(4):
        go(guard, now, 0.3)


def test_the_watchdogs_time_runs_from_when_a_command_was_sent(made, arm, now):
    guard = made()
    guard.command(np.array([0.05, 0.0]), now.now_s - 0.1)
    now.now_s += 0.04
    guard.tick()
    assert arm.log == ["command"]
    now.now_s += 0.02
    guard.tick()
    assert arm.log == ["command", "hold"]


def test_a_driver_that_cannot_hold_is_not_taken_for_one_that_stands(made, arm, now, monkeypatch):
    guard = made()
    go(guard, now, 0.05)

    def fail():
        raise OSError("no answer from motor 3")

    monkeypatch.setattr(arm, "hold", fail)
    with pytest.raises(ArmError, match="motor 3"):
        guard.hold()
    with pytest.raises(ArmError, match="motor 3"):
        go(guard, now, 0.1)
    assert arm.log == ["command"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("elbow"), "KeyError: 'elbow'"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (ValueError("a bad\npacket"), "a bad packet"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("how", ["command", "turn"])
def test_a_drivers_own_mistake_holds_the_arm_and_keeps_its_power(made, arm, now, monkeypatch, error, line, how):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)

    def fail(target):
        raise error

    monkeypatch.setattr(arm, "command", fail)
    if how == "turn":
        guard.tick()
    else:
        with pytest.raises(ArmError):
            go(guard, now, 0.1)
    assert arm.log[-1] == "hold" and "disconnect" not in arm.log and str(guard.error) == line


@pytest.mark.parametrize("how", ["command", "state", "turn"])
def test_what_the_driver_reports_is_latched_until_a_person_clears_it(made, arm, now, how):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)
    arm.error = OSError("no such device")
    arm.log.clear()
    if how == "turn":
        guard.tick()
    else:
        with pytest.raises(ArmError, match="no such device"):
            go(guard, now, 0.1) if how == "command" else guard.state()
    assert arm.log[-1] == "hold" and "hold" in arm.log
    arm.error = None
    arm.log.clear()
    for call in (lambda: go(guard, now, 0.1), guard.state, guard.hold):
        with pytest.raises(ArmError, match="no such device"):
            call()
    assert "command" not in arm.log
    guard.clear()
    assert arm.log[-2:] == ["disconnect", "connect"]
    go(guard, now, 0.1)
    assert arm.log[-1] == "command"


def test_an_arm_that_only_stood_keeps_its_power_when_it_is_cleared(made, arm, now):
    guard = made()
    arm.stuck = True
    with pytest.raises(ArmError, match="stuck"):
        for _ in range(12):
            go(guard, now, 0.9)
    arm.log.clear()
    guard.clear()
    assert arm.log == ["hold"]
    arm.stuck = False
    go(guard, now, 0.05)
    assert arm.at[0] == pytest.approx(0.05)


@pytest.mark.parametrize("place", [[np.nan, 0.0], [0.0, np.inf], [0.0]])
def test_a_place_where_no_arm_can_be_holds_it(made, arm, now, place):
    guard = made()
    go(guard, now, 0.05)
    arm.at, arm.stuck = np.array(place), True
    arm.log.clear()
    with pytest.raises(ArmError, match="the arm's driver reports the position"):
        go(guard, now, 0.1)
    assert "command" not in arm.log and arm.log[-1] == "hold"
    arm.at = np.zeros(2)
    guard.clear()
    assert go(guard, now, 0.05)[1] == pytest.approx([0.05, 0])


def test_a_state_of_the_drivers_own_class_will_do(made, arm, now, monkeypatch):
    guard = made()
    own = SimpleNamespace(position=[0.3, 0.0], time_s=now.monotonic())
    monkeypatch.setattr(arm, "state", lambda: own)
    state = guard.state()
    assert isinstance(state, State) and state.position.tolist() == [0.3, 0.0] and dict(state.images) == {}


@pytest.mark.parametrize(
    "seen",
    [
        None,
        np.zeros(2),
        SimpleNamespace(position=np.zeros(2)),
        SimpleNamespace(position=np.zeros(2), time_s=None),
        SimpleNamespace(position="there", time_s=0.0),
        State(np.zeros(2), "now"),
    ],
)
def test_what_is_no_state_holds_it(made, arm, now, monkeypatch, seen):
    guard = made()
    go(guard, now, 0.05)
    monkeypatch.setattr(arm, "state", lambda: seen)
    with pytest.raises(ArmError):
        go(guard, now, 0.1)
    assert arm.log[-1] == "hold" and guard.error


@pytest.mark.parametrize("how", ["command", "turn"])
@pytest.mark.parametrize(
    "sent", [np.full(2, np.nan), None, "ok", {"x": 0.1}, np.zeros(1), np.zeros(3), np.zeros((2, 2)), 0.0]
)
def test_a_driver_that_sent_no_numbers_of_its_axes_holds_it(made, arm, now, monkeypatch, sent, how):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)
    monkeypatch.setattr(arm, "command", lambda target: sent)
    if how == "turn":
        guard.tick()  # whatever it raised would end the arm's process, and its torque
    else:
        with pytest.raises(ArmError):
            go(guard, now, 0.05)
    assert arm.log[-1] == "hold" and guard.error and np.isfinite(guard.filter.position).all()


def test_what_is_still_broken_is_not_cleared(made, arm, now):
    guard = made()
    arm.error = ArmError("motor 3")
    with pytest.raises(ArmError):
        guard.state()
    with pytest.raises(ArmError, match="motor 3"):
        guard.clear()
    arm.error = None
    with pytest.raises(ArmError, match="motor 3"):
        guard.state()


def test_the_target_is_no_farther_ahead_than_lag_and_an_arm_that_stands_there_is_stuck(made, arm, now):
    guard = made()
    go(guard, now, 0.1)
    arm.stuck = True
    targets = [go(guard, now, 0.1 + 0.1 * step)[1][0] for step in range(1, 7)]
    assert targets == pytest.approx([0.2] * 6)
    with pytest.raises(
        ArmError, match=r"axis 'x' has stood still at 0\.1 on its way to 0\.8 for 0\.\d s: stuck, or push"
    ):
        go(guard, now, 0.8)
    assert arm.log[-1] == "hold" and guard.error


def test_it_does_not_jump_when_what_was_in_its_way_is_gone(made, arm, now):
    guard = made(stuck_s=0.0)
    arm.stuck = True
    for _ in range(30):
        go(guard, now, 0.9)
    arm.stuck = False
    _, target, _ = go(guard, now, 0.9)
    assert guard.error is None and arm.at == pytest.approx(target) and target[0] <= 0.1 + 1e-9


def test_one_that_stands_although_nobody_asks_for_more_is_stuck_too(made, arm, now):
    guard = made()
    arm.stuck = True
    target = go(guard, now, 0.3)[1][0]
    with pytest.raises(ArmError, match="stuck"):
        for _ in range(8):
            target = go(guard, now, target)[1][0]


def test_an_arm_that_is_pushed_is_not_pulled_back_harder_than_lag(made, arm, now):
    guard = made()
    go(guard, now, 0.1)
    arm.stuck, arm.at = True, np.array([-0.5, 0.0])
    for step in range(3):
        _, target, _ = go(guard, now, 0.1)
        assert target[0] <= (0.0 if step == 0 else -0.1) + 1e-9  # the filter's own pace, then at the leash
    assert go(guard, now, 0.1)[1][0] <= -0.2


@pytest.mark.parametrize("wish", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_asks_to_stand_still_here_too(made, arm, now, wish):
    guard = made()
    go(guard, now, 0.05)
    assert go(guard, now, wish)[1] == pytest.approx([0.05, 0]) and guard.filter.refused == 1


def test_one_that_follows_late_is_slower_but_not_stuck(made, arm, now):
    guard = made()
    arm.stuck, sent = True, [np.zeros(2)]
    for step in range(40):
        sent.append(go(guard, now, 0.9 * np.sin(step / 6))[1])
        arm.at = sent[max(0, len(sent) - 3)]
    assert guard.error is None and np.ptp([target[0] for target in sent]) > 0.5


def test_one_that_presses_on_for_a_moment_is_not(made, arm, now):
    guard = made()
    for _ in range(4):
        arm.stuck = True
        for _ in range(4):
            go(guard, now, 0.9)
        arm.stuck = False
        go(guard, now, 0.0)  # back: not ahead any more
    assert guard.error is None


def test_what_a_driver_cuts_off_is_not_taken_for_sent(made, arm, now):
    guard = made()
    arm.clips = 0.03
    assert go(guard, now, 0.05)[1] == pytest.approx([0.03, 0])
    begun, target, _ = go(guard, now, 0.02)
    assert begun == pytest.approx([0.03, 0]) and target == pytest.approx([0.02, 0]) and guard.error is None


class Sags(Arm):
    """Position servos: x gives way by 0.04, y has something between its fingers at 0.3."""

    sags = True

    def state(self):
        return State(np.array([self.at[0] - 0.04, min(self.at[1], 0.3)]), self.now.monotonic())

    def hold(self):
        super().hold()
        self.at = self.state().position


@pytest.fixture
def sagging(now):
    arm = Sags(now)

    def make(**changed):
        ones = np.ones(2)
        limits = Limits(-ones, ones, 0.2 * ones, ones, 100 * ones)
        given = {"lag": 0.4 * ones, "stuck_s": 0.0, "squeeze": np.array([np.nan, 0.1]), "sag": np.array([0.05, 0.1])}
        guard = Guard(Setup("", {}, limits, PERIOD_S, 0.15, 0.0, 50.0, **{**given, **changed}), arm)
        guard.connect()
        return guard, arm

    return make


def driven(guard, now, x, y, count):
    for _ in range(count):
        go(guard, now, x, y, after_s=0.0)
        for _ in range(5):
            now.now_s += 0.02
            guard.tick()


def test_an_arm_that_sags_does_not_come_down_with_every_hold(sagging, now):
    guard, arm = sagging()
    driven(guard, now, 0.5, 0.0, 12)
    for _ in range(5):
        now.now_s += PERIOD_S
        state = guard.hold()
        assert state.target[0] == arm.at[0] == pytest.approx(0.5)
        driven(guard, now, state.target[0], 0.0, 3)
    assert arm.at[0] == pytest.approx(0.5)


@pytest.mark.parametrize("why", ["moves", "is pushed", "other motors", "not told"])
def test_otherwise_it_is_held_where_it_is(sagging, now, monkeypatch, why):
    if why == "other motors":
        monkeypatch.setattr(Sags, "sags", False)
    guard, arm = sagging(**({"sag": None} if why == "not told" else {}))
    driven(guard, now, 0.5, 0.0, 12)
    if why == "moves":
        go(guard, now, 0.6, 0.0, after_s=0.0)
    elif why == "is pushed":
        monkeypatch.setattr(arm, "state", lambda: State(np.array([0.44, 0.0]), now.monotonic()))
        guard.state()
    state = guard.hold()
    assert state.target[0] == state.position[0] < 0.5 and arm.at[0] < 0.5


def test_a_gripper_that_is_held_goes_on_pressing_by_its_squeeze(sagging, now):
    guard, arm = sagging()
    driven(guard, now, 0.0, 0.9, 12)
    assert arm.at[1] == pytest.approx(0.7)  # lag ahead
    now.now_s += PERIOD_S
    assert guard.hold().target[1] == arm.at[1] == pytest.approx(0.4)
    driven(guard, now, 0.0, 0.4, 2)
    assert arm.at[1] == pytest.approx(0.4)


def test_one_that_was_moved_by_hand_begins_where_it_is_and_one_that_sags_where_it_was_held(sagging, now, monkeypatch):
    guard, arm = sagging()
    driven(guard, now, 0.5, 0.0, 12)
    now.now_s += PERIOD_S
    guard.hold()
    assert guard.stand().target == pytest.approx([0.5, 0.0])
    monkeypatch.setattr(arm, "state", lambda: State(np.array([0.4, 0.0]), now.monotonic()))
    assert guard.stand().target == pytest.approx([0.4, 0.0])
    begun, target, _ = go(guard, now, 0.4)
    assert begun == pytest.approx([0.4, 0]) and target == pytest.approx([0.4, 0])
    assert guard.stand().target == pytest.approx([0.4, 0.0])  # while it moves, too
