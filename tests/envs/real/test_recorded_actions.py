"""What a real arm's environment reports of steps with lost replies: the guard in this process, a clock of its own."""

import numpy as np
import pytest
from real_env import real_env, sleeping
from remembering_arm import PERIOD_S, Bus

from envs.real.options import RealOptions

SPEED = 0.5
FORWARD = np.array([1.0, 0.0])
AXES = {name: {"low": -1, "high": 1, "speed": SPEED, "acceleration": 100, "lag": 0.5} for name in "xy"}


@pytest.fixture
def now(monkeypatch):
    return sleeping(monkeypatch)


@pytest.fixture
def bus(now):
    return Bus(now)


@pytest.fixture
def env(now, bus, monkeypatch):
    made = real_env(RealOptions(axes=AXES, realtime=False, coast_s=0.2, watchdog_s=0.3), bus, now, monkeypatch)
    made.reset(seed=0)
    return made


def test_the_options_reach_the_guard(env):
    assert env._arm.setup.coast_s == 0.2 and env._arm.setup.watchdog_s == 0.3


def test_without_losses_the_action_is_the_motion(env, bus):
    before = env.target[0]
    for _ in range(3):
        info = env.step(FORWARD)[4]
        assert info["action"] == pytest.approx([1, 0]) and not info["coasted"]
    assert env.target[0] - before == pytest.approx(3 * SPEED * PERIOD_S)


def test_setpoints_that_are_lost_in_a_step_are_not_in_its_action_nor_caught_up_by_the_next(env, bus):
    env.step(FORWARD)
    before = env.target[0]
    bus.lose["command"] = 2
    short = env.step(FORWARD)[4]["action"]
    assert 0.2 < short[0] < 0.8 and short[1] == 0
    assert env.target[0] - before == pytest.approx(short[0] * SPEED * PERIOD_S)
    after = env.step(FORWARD)[4]["action"]
    assert after == pytest.approx([1, 0])
    assert env.target[0] - before == pytest.approx((short[0] + after[0]) * SPEED * PERIOD_S)
    assert bus.at[0] == pytest.approx(env.target[0], abs=0.2 * SPEED * PERIOD_S)  # its last setpoint may be to come


def test_a_hold_by_the_watchdog_is_not_reported_as_motion(env, bus, now):
    env.step(FORWARD)
    bus.stuck = True

    def hold(left_s):
        now.now_s += left_s
        env._arm.hold()
        return False

    env.paused = hold
    assert abs(env.step(FORWARD)[4]["action"][0]) < 0.3


def test_a_step_that_ends_with_a_remembered_state_says_so_and_losses_are_counted(env, bus, monkeypatch):
    env.step(FORWARD)
    assert env.lost_replies == 0
    whole = env._arm.state

    def state():
        bus.lose["state"] = 1
        return whole()

    monkeypatch.setattr(env._arm, "state", state)
    info = env.step(FORWARD)[4]
    assert info["coasted"] and info["observation_age_s"] > 0 and env.lost_replies == 1
