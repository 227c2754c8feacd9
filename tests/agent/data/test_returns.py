"""Rewards and Monte-Carlo returns, against the closed forms of shared properties 10 and 11 and a direct sum."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import RewardConfig
from agent.data.returns import check_returns, learning_rewards, returns_to_go, rewards_and_returns
from agent.spec import UserError

ANTMAZE = RewardConfig(scale=10.0, bias=-5.0, sparse=True, failure_reward=0.0)
DENSE = RewardConfig(scale=1.0, bias=0.0, sparse=False)


@pytest.mark.parametrize("steps", [1, 2, 7, 300])
def test_p10_antmaze_success_at_step_T_has_the_closed_form(make_episode, steps):
    rewards, returns = rewards_and_returns(make_episode(steps, success=True), ANTMAZE, 0.99)
    assert rewards.tolist() == [-5.0] * (steps - 1) + [5.0]
    assert returns[0] == pytest.approx(-500 * (1 - 0.99 ** (steps - 1)) + 5 * 0.99 ** (steps - 1), rel=1e-5)
    assert returns[-1] == 5.0  # its own reward at the terminal step


@pytest.mark.parametrize("terminated", [False, True])
def test_p10_an_episode_of_failures_is_exactly_minus_500_everywhere(make_episode, terminated):
    _, returns = rewards_and_returns(make_episode(9, terminated=terminated), ANTMAZE, 0.99)
    assert returns.tolist() == [-500.0] * 9


def test_sparse_success_cut_by_a_time_limit_starts_from_nothing(make_episode):
    """Some tasks pay at success and go on: no bootstrapping with the last reward there."""
    episode = make_episode(3, rewards=[0, 1, 0], terminated=False)
    _, returns = rewards_and_returns(episode, ANTMAZE, 0.5)
    assert returns.tolist() == [-5 + 0.5 * (5 + 0.5 * -5), 5 + 0.5 * -5, -5]


@pytest.mark.parametrize("reward", [-2.0, 0.0, 0.75])
def test_p11_dense_constant_reward_cut_by_a_time_limit(make_episode, reward):
    _, returns = rewards_and_returns(make_episode(6, rewards=[reward] * 6, terminated=False), DENSE, 0.9)
    assert returns == pytest.approx([reward / 0.1] * 6)


def at_the_cut(mean, noise, gamma, value, count=400):
    """(bias, standard deviation) of the last return, against the value there, of episodes with these mean rewards."""
    random, cut = np.random.default_rng(0), np.zeros(len(mean), bool)
    rewards = mean + noise * random.standard_normal((count, len(mean)))
    last = [returns_to_go(row, cut, gamma, sparse=False, failure_reward=math.nan)[-1] for row in rewards]
    return np.mean(last) - value, np.std(last)


def test_dense_returns_of_a_noisy_reward_are_unbiased_and_know_more_than_its_last_step():
    """From r_last / (1 - gamma) the deviation would be that of one reward, 1, times 1 / (1 - gamma): 100."""
    bias, deviation = at_the_cut(np.ones(200), 1.0, gamma=0.99, value=100.0)
    assert abs(bias) < 3 * deviation / 20 and 8 < deviation < 12


@pytest.mark.parametrize("sign", [-1, 1])
def test_dense_returns_of_costs_and_of_gains_cut_by_a_time_limit_are_those_of_going_on(sign):
    """From 0, as the authors' code has it, a cost of 1 a step for ever would be worth -1 at the last step, not -20."""
    bias, _ = at_the_cut(sign * np.ones(60), 0.0, gamma=0.95, value=sign * 20.0)
    assert bias == pytest.approx(0, abs=1e-4)


def test_dense_returns_of_rewards_that_rise_stay_below_the_value():
    """An arm that is still getting nearer when the time is over: r = -exp(-t / 60)."""
    steps, gamma = np.arange(4000), 0.99
    rewards = -np.exp(-steps / 60)
    value = float(rewards[199:] @ gamma ** (steps[199:] - 199))
    bias, _ = at_the_cut(rewards[:200], 0.0, gamma, value)
    whole_episode = rewards[:200].mean() / (1 - gamma) - value
    assert whole_episode / 3 < bias < 0


def test_dense_terminated_does_not_bootstrap(make_episode):
    _, returns = rewards_and_returns(make_episode(3, rewards=[1, 2, 4], terminated=True), DENSE, 0.5)
    assert returns.tolist() == [1 + 1 + 1, 2 + 2, 4]


@given(
    raw=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=30),
    terminated=st.booleans(),
    scale=st.floats(0.1, 10),
    bias=st.floats(-5, 5),
    gamma=st.floats(0.5, 0.99),
)
def test_returns_equal_the_discounted_sum_of_the_rewards_that_learning_sees(raw, terminated, scale, bias, gamma):
    """Scale and bias once, not twice; powers of gamma, not of the failure reward."""
    steps = len(raw)
    rewards = learning_rewards(np.array(raw, np.float32), RewardConfig(scale, bias, sparse=False))
    seen = [scale * r + bias for r in raw]
    assert rewards == pytest.approx(seen, rel=1e-4, abs=1e-4)
    flags = np.zeros(steps, bool)
    flags[-1] = terminated
    horizon = seen[-round(1 / (1 - gamma)) :]
    tail = 0.0 if terminated else gamma * sum(horizon) / len(horizon) / (1 - gamma)
    expected = [
        sum(gamma ** (k - t) * seen[k] for k in range(t, steps)) + gamma ** (steps - 1 - t) * tail for t in range(steps)
    ]
    returns = returns_to_go(rewards, flags, gamma, sparse=False, failure_reward=math.nan)
    assert returns == pytest.approx(expected, rel=1e-3, abs=1e-2)
    check_returns(rewards, returns, gamma)  # what is right is never refused


def test_p01_nan_rewards_and_returns_are_refused(make_episode):
    episode = make_episode(3, rewards=[0, math.nan, 0], terminated=False)
    with pytest.raises(UserError):
        rewards_and_returns(episode, DENSE, 0.9)
    with pytest.raises(UserError):
        rewards_and_returns(make_episode(3), dataclasses.replace(DENSE, scale=math.nan), 0.9)
    with pytest.raises(UserError):
        check_returns(np.ones(3), np.array([1, math.nan, 1]), 0.9)


def test_returns_of_untransformed_rewards_are_refused(make_episode):
    """The mistake that others shipped: Q trains on -1 / 0, returns were computed from 0 / 1."""
    rewards = learning_rewards(make_episode(5, success=True).rewards, RewardConfig(bias=-1.0))
    raw = np.array([0.99**k for k in (4, 3, 2, 1, 0)], np.float32)
    with pytest.raises(UserError, match="outside"):
        check_returns(rewards, raw, 0.99)
    twice = np.full(5, -2 / (1 - 0.99))
    with pytest.raises(UserError, match="outside"):
        check_returns(rewards, twice, 0.99)


@pytest.mark.parametrize(
    "raw",
    [[0.0, 0.5, 1.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, 0.0]],
    ids=["three values", "failures worse than failure_reward", "failure_reward is that of success"],
)
def test_a_sparse_task_with_other_rewards_is_refused_naming_the_key(make_episode, raw):
    with pytest.raises(UserError, match=r"reward\.sparse.*failure_reward"):
        rewards_and_returns(make_episode(3, rewards=raw, terminated=True), RewardConfig(), 0.97)


def test_failures_are_recognised_after_any_scale_and_bias(make_episode):
    """Float32 rounding of scale * r + bias must not turn a failure into a success."""
    for scale in (0.1, 0.3, 1 / 3, 7.7, 10.0):
        config = RewardConfig(scale, 3 * scale, sparse=True, failure_reward=-3.0)
        _, returns = rewards_and_returns(make_episode(4, rewards=[-3.0] * 4), config, 0.9)
        failure = scale * -3.0 + 3 * scale
        assert returns == pytest.approx([failure / 0.1] * 4, abs=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 1.5, -0.1, math.nan])
def test_a_discount_without_an_end_is_refused(make_episode, gamma):
    with pytest.raises(UserError, match=r"calql\.gamma"):
        rewards_and_returns(make_episode(3), RewardConfig(), gamma)
