"""Lost replies of an arm's bus: bridged for a moment, counted, and then a fault. The arm only remembers."""

import numpy as np
import pytest
from real_env import sleeping
from remembering_arm import PERIOD_S, TIMEOUT_S, Bus, go

from envs.real.arm import ArmError
from envs.real.guard import Guard, Setup
from envs.real.safety_filter import Limits


@pytest.fixture
def now(monkeypatch):
    return sleeping(monkeypatch)


@pytest.fixture
def bus(now):
    return Bus(now)


@pytest.fixture
def made(bus):
    def make(**changed):
        ones = np.ones(2)
        limits = Limits(-ones, ones, 0.2 * ones, 1.0 * ones, 100 * ones)
        given = {
            "coast_s": 0.1,
            "watchdog_s": 0.15,
            "release_s": 0.0,
            "setpoint_hz": 0.0,
            "lag": 0.1 * ones,
            "stuck_s": 0.5,
        }
        guard = Guard(Setup("", {}, limits, PERIOD_S, **{**given, **changed}), bus)
        guard.connect()
        bus.log.clear()
        return guard

    return make


def test_a_lost_read_is_bridged_by_the_last_state_which_is_marked_and_counted(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    before = guard.state()
    bus.lose["state"] = 1
    state = guard.state()
    assert state.coasted and state.lost == 1 and state.position.tolist() == before.position.tolist()
    assert state.time_s == before.time_s  # its age shows
    state = guard.state()
    assert not state.coasted and state.lost == 1 and guard.error is None


def test_a_state_older_than_coast_s_does_not_stand_the_read_is_repeated(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    now.now_s += 0.09
    bus.lose["state"] = 1
    state = guard.state()
    assert not state.coasted and state.lost == 1 and state.time_s == now.now_s


def test_nothing_answered_for_coast_s_is_a_fault(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    since_s, bus.lose["state"] = now.now_s, 1000
    with pytest.raises(ArmError, match="no status packet"):
        for _ in range(100):
            guard.state()
    assert 0.1 <= now.now_s - since_s <= 0.1 + 2 * TIMEOUT_S + 0.02 and bus.log[-1] == "hold"
    bus.lose["state"] = 0
    with pytest.raises(ArmError, match="no status packet"):  # latched
        guard.state()
    guard.clear()
    assert not guard.state().coasted


def test_without_coast_s_the_first_lost_read_is_a_fault(made, bus, now):
    guard = made(coast_s=0.0)
    bus.lose["state"] = 1
    with pytest.raises(ArmError, match="no status packet"):
        guard.state()


@pytest.mark.parametrize("error", [OSError("no such device"), ArmError("protective stop"), RuntimeError("overload")])
def test_only_a_lost_reply_is_bridged(made, bus, now, error):
    guard = made()
    go(guard, now, 0.05)
    bus.error = error
    with pytest.raises(ArmError, match=str(error)):
        guard.state()


def test_while_coasting_the_target_moves_no_more_than_a_step_and_stays_within_lag_of_what_was_measured(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    bus.stuck, measured, before = True, 0.05, 0.05
    for _ in range(3):
        bus.lose["state"] = 1
        now.now_s += 0.01
        _, target, state = guard.command(np.array([9.0, 0.0]), now.now_s)
        assert state.coasted or now.now_s - state.time_s < 0.02
        assert 0 <= target[0] - before <= 0.2 and target[0] <= measured + 0.1 + 1e-9
        before = target[0]


def test_no_motion_begins_on_a_state_that_is_only_remembered(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    guard.hold()
    bus.at, bus.lose["state"] = np.array([0.3, 0.0]), 1  # it moved since
    now.now_s += 0.05
    begun, target, state = guard.command(np.array([0.35, 0.0]), now.now_s)
    assert not state.coasted and begun == pytest.approx([0.3, 0]) and target == pytest.approx([0.35, 0])


def test_a_hold_is_repeated_until_it_is_answered(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    bus.lose["hold"] = bus.lose["state"] = 2
    assert not guard.hold().coasted and bus.log == ["command", "hold"]
    go(guard, now, 0.1)
    bus.lose["hold"] = 1000
    with pytest.raises(ArmError, match="no status packet"):
        guard.hold()


def test_an_axis_is_not_called_stuck_by_states_that_are_only_remembered(made, bus, now):
    guard = made(stuck_s=0.04)
    go(guard, now, 0.05)
    for _ in range(2):
        bus.lose["state"] = 1
        now.now_s += 0.01
        _, _, state = guard.command(np.array([0.9, 0.0]), now.now_s)
        assert state.coasted


def test_a_lost_write_delays_the_motion_and_makes_no_jump(made, bus, now):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.1)
    assert bus.at[0] == pytest.approx(0.02)
    bus.lose["command"] = 2
    seen, times = [bus.at[0]], [now.now_s]
    for _ in range(8):
        now.now_s += 0.02
        guard.tick()
        seen.append(bus.at[0])
        times.append(now.now_s)
    assert np.all(np.diff(seen) <= 1.0 * np.diff(times) + 1e-9)  # the axis's velocity
    assert guard.error is None and guard.lost == 2 and 0.02 < seen[-1] < 0.1
    assert guard.filter.position[0] == pytest.approx(seen[-1])


def test_the_write_after_a_lost_one_is_the_newest_target(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    bus.lose["command"] = 1
    begun, target, _ = go(guard, now, 0.15)
    assert begun == pytest.approx(target) and bus.at[0] == pytest.approx(0.05)  # nothing was sent
    begun, target, _ = go(guard, now, 0.9)
    assert begun[0] == pytest.approx(0.05) and bus.at[0] == target[0] <= 0.05 + 0.15 + 1e-9  # no two steps in one
    assert bus.log == ["command", "command"]


def test_writes_that_are_lost_for_coast_s_are_a_fault(made, bus, now):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)
    bus.lose["command"] = 1000
    for _ in range(8):
        guard.tick()
    assert guard.error and bus.log[-1] == "hold"


def test_the_time_that_a_lost_reply_takes_is_not_the_robot_servers(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    now.now_s += 0.13
    bus.lose["state"] = 1
    guard.state()
    guard.tick()
    assert guard.holds == 0
    now.now_s += 0.05
    guard.tick()
    assert guard.holds == 1  # and it does not add up


def test_a_hold_ends_where_the_arm_is_measured(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    bus.at = np.array([0.02, 0.0])  # it lags
    assert guard.state().target == pytest.approx([0.05, 0]) and guard.hold().target == pytest.approx([0.02, 0])


@pytest.fixture
def connects(made, bus, monkeypatch):
    """connects(*fails): connect, which fails in these ways first."""
    guard = made()

    def connect(*fails):
        left = list(fails)

        def connect():
            bus.log.append("connect")
            if left:
                raise left.pop(0)

        monkeypatch.setattr(bus, "connect", connect)
        guard.connect()

    return connect


def test_a_connection_that_loses_a_reply_is_tried_again(connects, bus):
    connects(ConnectionError("no status packet"), TimeoutError())
    assert bus.log == ["connect", "disconnect"] * 2 + ["connect"]


@pytest.mark.parametrize(
    "fails",
    [
        [ConnectionError("missing motor IDs: 3"), RuntimeError("already connected")],
        [ConnectionError("missing motor IDs: 3"), *[TimeoutError("later")] * 2],
    ],
)
def test_the_first_error_of_a_connection_is_the_one_that_is_raised(connects, fails):
    with pytest.raises(ConnectionError, match="missing motor IDs: 3"):
        connects(*fails)


@pytest.mark.parametrize("error", [ArmError("protective stop"), RuntimeError("overload"), OSError("no such device")])
def test_a_connection_that_needs_a_person_is_not_tried_again(connects, bus, error):
    """Nor does it lose its power meanwhile."""
    with pytest.raises(type(error), match=str(error)):
        connects(error)
    assert bus.log == ["connect"]


# ---- a hold after an error is repeated ----


def stuck(guard, bus, now):
    """The error of an axis that stands still."""
    bus.stuck = True
    with pytest.raises(ArmError, match="stuck"):
        for _ in range(20):
            go(guard, now, 0.9)


def test_a_hold_that_is_lost_after_an_error_is_repeated_until_it_is_answered(made, bus, now):
    guard = made(stuck_s=0.05)
    bus.lose["hold"] = 3
    stuck(guard, bus, now)
    for _ in range(2):
        assert 0 < guard.wait_s < 0.1  # not only when the next question comes
        guard.tick()
        assert "hold" not in bus.log
    guard.tick()
    assert bus.log[-1] == "hold" and bus.log.count("hold") == 1
    guard.tick()
    assert bus.log.count("hold") == 1 and guard.wait_s == 0.5


def test_so_is_one_that_the_driver_answers_with_another_error(made, bus, now, monkeypatch):
    guard = made()
    fails = [OSError("no such device"), KeyError("elbow"), None]

    def hold():
        if error := fails.pop(0):
            raise error
        bus.log.append("hold")

    monkeypatch.setattr(bus, "hold", hold)
    with pytest.raises(ArmError, match="no such device"):
        guard.hold()
    guard.tick()
    assert bus.log[-1] == "hold" and not fails and str(guard.error) == "no such device"
    with pytest.raises(ArmError, match="no such device"):  # still latched
        go(guard, now, 0.1)


def test_a_hold_that_is_due_ends_with_the_connection_that_clears_it(made, bus, now):
    guard = made()
    bus.lose["hold"] = bus.lose["state"] = 1000
    with pytest.raises(ArmError, match="no status packet"):
        guard.hold()
    bus.lose["hold"] = bus.lose["state"] = 0
    guard.clear()
    bus.log.clear()
    guard.tick()
    assert bus.log == []


# ---- how long the losses of a row may be apart ----


def test_a_loss_before_a_hold_and_one_long_after_it_are_two_isolated_ones(made, bus, now):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)
    bus.lose["command"] = 1
    guard.tick()
    guard.hold()
    now.now_s += 10.0
    bus.lose["command"] = 2
    go(guard, now, 0.1)
    assert guard.error is None and guard.lost == 2  # not tried again at once either, as the last of a row is
    guard.tick()
    assert guard.error is None and guard.lost == 3


def test_a_loss_before_an_error_does_not_count_after_it_was_cleared(made, bus, now):
    guard = made(stuck_s=0.05)
    bus.lose["command"] = 1
    stuck(guard, bus, now)
    bus.stuck = False
    now.now_s += 60.0
    guard.clear()
    bus.lose["command"] = 1
    go(guard, now, 0.1)
    assert guard.error is None and guard.lost == 2


def test_nor_does_it_count_while_the_arm_is_connected_again(made, bus, now):
    guard = made(setpoint_hz=50.0)
    go(guard, now, 0.05)
    bus.lose["state"] = 1
    guard.state()
    bus.error = OSError("no such device")
    guard.tick()
    bus.error = None
    now.now_s += 60.0
    bus.lose["state"] = 2
    guard.clear()
    assert guard.error is None and guard.lost == 3


def test_of_two_writes_lost_in_a_row_at_a_slow_pace_the_second_is_tried_again(made, bus, now):
    guard = made(watchdog_s=1.0)
    go(guard, now, 0.05)
    for x in (0.1, 0.15):
        bus.lose["command"] = 1
        go(guard, now, x, after_s=0.2)
    assert guard.error is None and guard.lost == 2 and bus.log.count("hold") == 0


def test_of_two_reads_lost_in_a_row_at_a_slow_pace_the_second_is_tried_again(made, bus, now):
    guard = made(watchdog_s=1.0, setpoint_hz=50.0)
    go(guard, now, 0.05)
    bus.lose["state"] = 1
    assert guard.state().coasted
    for _ in range(8):
        now.now_s += 0.02
        guard.tick()
    bus.lose["state"] = 1
    assert not guard.state().coasted and guard.error is None and guard.lost == 2


def test_writes_that_are_never_answered_are_a_fault_although_reads_are(made, bus, now):
    guard = made(watchdog_s=1.0)
    go(guard, now, 0.05)
    bus.lose["command"] = 1000
    with pytest.raises(ArmError, match="no status packet"):
        for _ in range(3):
            go(guard, now, 0.9)
    assert bus.log[-1] == "hold"


# ---- commands and the watchdog ----


def test_no_motion_begins_on_a_command_that_lost_replies_have_made_old(made, bus, now):
    guard = made(coast_s=0.3)
    bus.lose["state"] = 6
    begun, target, state = go(guard, now, 0.9)
    assert begun.tolist() == target.tolist() == state.position.tolist() and bus.log == []
    guard.tick()
    assert bus.log == [] and guard.error is None
    assert go(guard, now, 0.05)[1] == pytest.approx([0.05, 0])


def test_a_write_that_is_lost_after_a_hold_leaves_the_target_where_the_arm_was_held(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    guard.hold()
    bus.at, bus.lose["command"] = np.array([0.5, 0.0]), 1  # it was moved by hand
    assert go(guard, now, 0.55)[1] == pytest.approx([0.5, 0])
    begun, target, _ = go(guard, now, 0.55)
    assert begun == pytest.approx([0.5, 0]) and target == pytest.approx([0.55, 0])


def test_the_watchdog_waits_no_longer_than_coast_s_for_lost_replies(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    for _ in range(5):
        bus.lose["state"] = 1
        guard.state()
        guard.state()
    now.now_s += 0.105  # 0.255 s after the command
    guard.tick()
    assert guard.holds == 1


def test_what_lost_replies_took_before_a_command_does_not_count_after_it(made, bus, now):
    guard = made()
    go(guard, now, 0.05)
    bus.lose["state"] = 1
    guard.state()
    assert guard.wait_s == pytest.approx(0.15 + 0.001)  # the reply took TIMEOUT_S, and so much more is left
    go(guard, now, 0.1)
    now.now_s += 0.16
    guard.tick()
    assert guard.holds == 1


def test_a_read_that_is_lost_within_a_command_leads_to_no_faster_setpoints(made, bus, now):
    guard = made(setpoint_hz=50.0, lag=np.ones(2))
    go(guard, now, 0.9)
    seen, times = [bus.at[0]], [now.now_s]

    def move():
        seen.append(bus.at[0])
        times.append(now.now_s)

    for _ in range(3):
        now.now_s += 0.02
        guard.tick()
        move()
    bus.lose["state"] = 1
    go(guard, now, 0.9, after_s=0.008)  # a period after the first, once it is answered
    move()
    for _ in range(3):
        now.now_s += 0.02
        guard.tick()
        move()
    assert guard.lost == 1 and np.all(np.diff(seen) <= 1.0 * np.diff(times) + 1e-9)
