"""How fast the setpoints are that an arm's motors get: by a clock of the test's own, in the time that really passed."""

import numpy as np
import pytest
from real_env import sleeping
from remembering_arm import PERIOD_S, Bus

from envs.real.arm import ArmError
from envs.real.guard import Guard, Setup
from envs.real.safety_filter import Limits
from envs.real.setpoints import Setpoints

VELOCITY, ACCELERATION, HZ = 1.0, 5.0, 50.0


class Recorded(Bus):
    """got: (when, where) of each setpoint, and of each hold."""

    def __init__(self, now):
        super().__init__(now)
        self.got = []

    def command(self, target):
        sent = super().command(target)
        self.got.append((self.now.now_s, self.at.copy()))
        return sent

    def hold(self):
        super().hold()
        self.got.append((self.now.now_s, self.at.copy()))


@pytest.fixture
def now(monkeypatch):
    return sleeping(monkeypatch)


@pytest.fixture
def bus(now):
    return Recorded(now)


@pytest.fixture
def made(bus):
    def make(hz=HZ, **changed):
        ones = np.ones(2)
        limits = Limits(-ones, ones, 9 * ones, VELOCITY * ones, ACCELERATION * ones)
        more = {"watchdog_s": 0.3, "coast_s": 0.1, **changed}
        guard = Guard(Setup("", {}, limits, PERIOD_S, release_s=0, setpoint_hz=hz, lag=ones, stuck_s=0.0, **more), bus)
        guard.connect()
        bus.got.append((bus.now.now_s, bus.at.copy()))
        return guard

    return make


def run(guard, now, for_s, tick_s=1 / HZ):
    """Ticks until `for_s` are over."""
    end_s = now.now_s + for_s
    while (left_s := end_s - now.now_s) > 1e-9:
        now.now_s += min(tick_s, left_s)
        guard.tick()


def speeds(bus):
    """(n - 1, 2) between the setpoints of `bus`; of two at the same instant infinite, unless they are the same."""
    times, places = np.array([t for t, _ in bus.got]), np.array([at for _, at in bus.got])
    moved, passed = np.abs(np.diff(places, axis=0)), np.diff(times)[:, None]
    return np.where(moved > 1e-9, moved / np.maximum(passed, 1e-9), 0.0)


def follow(guard, now, lates, speed, direction=1.0):
    """Commands of `speed`, each late by so much; the deadlines are absolute, so that the next comes the earlier."""
    start_s, x = now.now_s, guard.state().position[0]
    for number, late_s in enumerate(lates):
        run(guard, now, start_s + number * PERIOD_S + late_s - now.now_s)
        x += direction * speed * PERIOD_S
        guard.command(np.array([x, 0.0]), now.now_s)


@pytest.mark.parametrize("late_s", [0.0, 0.01, 0.032, 0.05, 0.09])
@pytest.mark.parametrize("hz", [0.0, 10.0, HZ, 1000.0])
def test_a_late_command_leads_to_no_faster_setpoints(made, bus, now, late_s, hz):
    guard = made(hz)
    run(guard, now, PERIOD_S)
    follow(guard, now, [0, 0, 0, 0, late_s, 0, late_s, late_s, 0], VELOCITY)
    assert speeds(bus).max() <= VELOCITY * (1 + 1e-6)
    assert bus.at[0] > 0.4 and guard.holds == 0


def test_late_commands_change_the_pace_little(made, bus, now):
    """Each asks for the same distance; after a late one the next comes early."""
    guard = made()
    run(guard, now, PERIOD_S)
    follow(guard, now, [0, 0, 0.04, 0, 0, 0.05, 0, 0.03], VELOCITY / 2)
    assert speeds(bus).max() <= 0.6 * VELOCITY


def test_setpoints_lag_behind_late_commands_until_the_arm_stands_and_no_longer(made, bus, now):
    guard = made()
    run(guard, now, PERIOD_S)
    follow(guard, now, [0, 0, 0.04, 0, 0], VELOCITY / 2)
    run(guard, now, PERIOD_S - 0.02)
    assert bus.at[0] < guard.state().target[0] - 0.01
    for _ in range(4):
        guard.command(guard.state().target, now.now_s)  # no motion is asked for
        run(guard, now, PERIOD_S)
    target = guard.state().target[0]
    assert bus.at[0] == target
    guard.command(np.array([target + 0.05, 0.0]), now.now_s)
    run(guard, now, PERIOD_S)
    assert bus.at[0] == pytest.approx(guard.state().target[0]) == pytest.approx(target + 0.05)


def test_turning_round_between_two_setpoints_is_no_jump(made, bus, now):
    guard = made()
    run(guard, now, PERIOD_S)
    follow(guard, now, [0, 0, 0], VELOCITY)
    run(guard, now, 0.045)
    follow(guard, now, [0, 0, 0], VELOCITY, -1.0)
    assert speeds(bus).max() <= VELOCITY * (1 + 1e-6)


@pytest.mark.parametrize("hz", [0.0, HZ])
@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.03, 5.0])
def test_the_first_command_after_a_hold_is_no_faster_and_covers_a_period(made, bus, now, hz, after_s):
    guard = made(hz, watchdog_s=1.0)
    run(guard, now, PERIOD_S)
    follow(guard, now, [0, 0], VELOCITY)
    guard.hold()
    stood = bus.at[0]
    now.now_s += after_s
    guard.command(np.array([0.9, 0.0]), now.now_s)
    assert speeds(bus).max() <= VELOCITY * (1 + 1e-6)
    moved = guard.state().target[0] - stood
    assert moved == pytest.approx(min(VELOCITY, ACCELERATION * PERIOD_S) * PERIOD_S if hz else moved)
    assert moved <= PERIOD_S * VELOCITY


def test_a_write_that_is_repeated_sends_where_the_arm_should_be_by_then(made, bus, now):
    guard = made()
    run(guard, now, PERIOD_S)
    follow(guard, now, [0, 0, 0], VELOCITY)
    bus.lose["command"] = 5
    for _ in range(4):
        guard.tick()
    before = now.now_s
    guard.tick()  # beyond coast_s: it is tried again, TIMEOUT_S later
    assert guard.error is None and bus.lose["command"] == 0 and now.now_s > before
    run(guard, now, PERIOD_S)
    assert speeds(bus).max() <= VELOCITY * (1 + 1e-6)


@pytest.mark.parametrize("hz", [0.0, 7.0, HZ, 1000.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_setpoint_is_faster_than_the_limit_whatever_is_lost_late_or_held(made, bus, now, seed, hz):
    rng, guard = np.random.default_rng(seed), made(hz)
    for _ in range(300):
        run(guard, now, float(rng.choice([0.0, 0.001, 0.03, PERIOD_S, 0.17])), float(rng.choice([0.005, 0.02])))
        if rng.random() < 0.2:
            bus.lose[str(rng.choice(["state", "command", "hold"]))] = int(rng.integers(1, 4))
        request = rng.choice([-9.0, 9.0, np.nan, *bus.at, 0.01], 2)
        try:
            kind = rng.random()
            if kind < 0.08:
                guard.hold()
            elif kind < 0.16:
                guard.state()
            else:
                guard.command(request, now.now_s - rng.choice([0.0, 0.02]))
        except ArmError:
            bus.lose.update(state=0, command=0, hold=0)
            guard.clear()
    assert len(bus.got) > 200 and speeds(bus).max() <= VELOCITY * (1 + 1e-6)
    assert np.abs([at for _, at in bus.got]).max() <= 1.0


def test_what_the_motors_got_instead_shifts_the_rest_of_the_way():
    way = Setpoints(HZ, np.zeros(1))
    way.rest(np.zeros(1), 0.0)
    way.lead(np.array([0.1]), 0.1, 1.0)
    assert way.next(1.0) == pytest.approx(0.02)
    way.confirm(np.array([0.01]))
    assert way.goal == pytest.approx(0.09) and way.sent == pytest.approx(0.01) and way.next(1.01) == pytest.approx(0.02)
