"""Scripted experts succeed when they mean to, and fail when they are told to."""

import numpy as np
import pytest

import envs
import envs.experts


def successes(name, count, *, noise=0.0, failure_rate=0.0, **options):
    env = envs.make(name, **options)
    expert = envs.experts.make(env, noise, failure_rate, seed=0)
    total = 0
    for seed in range(count):
        observation, _ = env.reset(seed=seed)
        expert.reset()
        over = False
        while not over:
            action = expert.act(observation)
            assert action.dtype == np.float32 and np.abs(action).max() <= 1
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        total += terminated
    env.close()
    return total


@pytest.mark.parametrize(
    "options",
    [{}, {"control_hz": 20.0}, {"action": "pose"}, {"task": "Can", "horizon": 120}],
    ids=["lift", "20 Hz", "pose", "can"],
)
def test_experts_succeed(options):
    assert successes("sim", 4, cameras=[], **options) == 4


def test_the_fake_expert_succeeds():
    assert successes("fake", 30) == 30


def test_spoilt_episodes_fail():
    assert successes("sim", 10, cameras=[], horizon=50, failure_rate=1.0) <= 2
    assert successes("fake", 20, failure_rate=1.0) <= 4


def test_noise_changes_actions_but_not_the_gripper():
    env = envs.make("sim", cameras=[])
    quiet, noisy = envs.experts.make(env), envs.experts.make(env, noise=0.3, seed=1)
    observation, _ = env.reset(seed=0)
    quiet.reset()
    noisy.reset()
    left, right = quiet.act(observation), noisy.act(observation)
    env.close()
    assert np.abs(left[:3] - right[:3]).max() > 0.01 and left[3] == right[3]


def test_there_is_not_one_for_everything():
    with pytest.raises(ValueError, match="Door"):
        envs.experts.make(envs.make("sim", task="Door", cameras=[]))
