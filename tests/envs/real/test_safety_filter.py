"""The safety filter against hostile requests."""

import numpy as np
import pytest

from envs.real.safety_filter import Filter, Limits
from tools.stress.safety_filter import AXES, PERIOD_S, fast_setpoints, limits, violations


@pytest.mark.parametrize("seed", range(8))
def test_no_command_leaves_a_limit(seed):
    rng = np.random.default_rng(seed)
    filter = Filter(limits(rng), PERIOD_S)
    filter.rest(rng.uniform(filter.limits.low, filter.limits.high), 0.0)
    assert violations(filter, filter.limits, 3000, rng, exact=seed % 2 == 0) == 0


@pytest.mark.parametrize(
    "broken",
    [{"low": -9}, {"high": 9}, {"velocity": 9, "step": 9, "acceleration": 900}, {"acceleration": 900}, {"step": 9}],
    ids=lambda broken: next(iter(broken)),
)
def test_the_check_above_sees_a_limit_that_is_not_kept(broken):
    ones = np.ones(AXES)
    kept = {"low": -ones, "high": ones, "step": 0.02 * ones, "velocity": 0.3 * ones, "acceleration": 2 * ones}
    filter = Filter(Limits(**{**kept, **{key: value * ones for key, value in broken.items()}}), PERIOD_S)
    filter.rest(0 * ones, 0.0)
    assert violations(filter, Limits(**kept), 2000, np.random.default_rng(0), exact=True)


@pytest.mark.parametrize("seed", range(4))
def test_no_setpoint_leaves_a_limit(seed):
    rng = np.random.default_rng(seed)
    filter = Filter(limits(rng), PERIOD_S)
    filter.rest(rng.uniform(filter.limits.low, filter.limits.high), 0.0)
    count, wrong = fast_setpoints(filter, filter.limits, 500, rng)
    assert count > 1000 and wrong == 0


@pytest.mark.parametrize("broken", [{"low": -9}, {"high": 9}, {"velocity": 9, "step": 9, "acceleration": 900}])
def test_the_check_of_setpoints_sees_a_limit_that_is_not_kept(broken):
    ones = np.ones(AXES)
    kept = {"low": -ones, "high": ones, "step": 0.02 * ones, "velocity": 0.3 * ones, "acceleration": 2 * ones}
    filter = Filter(Limits(**{**kept, **{key: value * ones for key, value in broken.items()}}), PERIOD_S)
    filter.rest(0 * ones, 0.0)
    assert fast_setpoints(filter, Limits(**kept), 1000, np.random.default_rng(0))[1]


@pytest.fixture
def one():
    """One axis from 0 to 1: 0.5 a second at most, 1 a second squared."""
    return Filter(Limits(*(np.array([value]) for value in (0.0, 1.0, 0.2, 0.5, 1.0))), PERIOD_S)


def test_what_may_be_asked_for_is_done_exactly(one):
    one.rest(np.array([0.5]), 0.0)
    assert one.target(np.array([0.508]), 0.1) == pytest.approx(0.508)
    assert one.target(np.array([0.52]), 0.2) == pytest.approx(0.52)


def test_it_speeds_up_and_brakes_before_the_end(one):
    one.rest(np.array([0.0]), 0.0)
    at = [0.0]
    for step in range(1, 60):
        at.append(float(one.target(np.array([9.0]), step * PERIOD_S)[0]))
    speeds = np.diff(at) / PERIOD_S
    assert speeds[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5]) and speeds.max() == pytest.approx(0.5)
    assert at[-1] == pytest.approx(1.0, abs=1e-3) and max(at) <= 1.0 and np.diff(speeds).min() > -0.1 - 1e-9


def test_what_is_no_number_asks_to_stand_still(one):
    one.rest(np.array([0.5]), 0.0)
    assert one.target(np.array([np.nan]), 0.1) == 0.5 and one.target(np.array([np.inf]), 0.2) == 0.5
    assert one.refused == 2
    with pytest.raises(ValueError, match="shape"):
        one.target(np.zeros(2), 0.3)


def test_an_arm_that_stands_outside_only_comes_back(one):
    one.rest(np.array([1.4]), 0.0)
    assert one.target(np.array([2.0]), 0.1) <= 1.4
    at = [float(one.target(np.array([0.9]), 0.1 * step)[0]) for step in range(2, 60)]
    inside = next(step for step, place in enumerate(at) if place <= 1.0)
    assert np.diff(at[: inside + 1]).max() < 0 and max(at[inside:]) <= 1.0 and at[-1] == pytest.approx(0.9, abs=0.02)


def test_two_commands_at_once_move_no_farther_than_one(one):
    one.rest(np.array([0.0]), 0.0)
    first = one.target(np.array([1.0]), 0.1)
    assert one.target(np.array([1.0]), 0.1) == first


@pytest.mark.parametrize(
    ("bad", "says"), [({"low": 2.0}, "low 2 is above high 1"), ({"step": 0.0}, "above 0"), ({"high": np.nan}, "finite")]
)
def test_limits_that_make_no_sense_are_named(bad, says):
    given = {"low": 0.0, "high": 1.0, "step": 0.1, "velocity": 1.0, "acceleration": 1.0, **bad}
    with pytest.raises(ValueError, match=f"axis 'x': .*{says}|axis 'x': {says}"):
        Limits(**{key: np.array([value]) for key, value in given.items()}).check(["x"])


@pytest.mark.parametrize("seed", range(5))
def test_the_reach_is_as_far_as_an_arm_that_moves_already_is_sent(seed):
    rng = np.random.default_rng(seed)
    bounds = limits(rng)
    filter, time_s, shortest = Filter(bounds, PERIOD_S), 0.0, np.inf
    filter.rest(rng.uniform(bounds.low, bounds.high), time_s)
    goal = bounds.high + 1
    for number in range(400):
        if number % 40 == 0:
            goal = np.where(rng.random(len(goal)) < 0.5, bounds.low - 1, bounds.high + 1)
        low, high = bounds.reach(filter.position, PERIOD_S)
        time_s += PERIOD_S
        target = filter.target(goal, time_s)
        assert (target >= low - 1e-12).all() and (target <= high + 1e-12).all()
        inner = np.abs(target - (bounds.low + bounds.high) / 2) < 0.4 * (bounds.high - bounds.low)  # no need to brake
        short = np.abs(target - np.where(goal > target, high, low))
        shortest = np.minimum(shortest, np.where(inner, short, np.inf))
    assert (shortest < 1e-9).all()  # it is not farther than that
    outside = bounds.high + 0.5
    low, high = bounds.reach(outside, PERIOD_S)
    assert (high == outside).all() and (low < outside).all()
