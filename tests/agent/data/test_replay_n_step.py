"""Replay with n-step targets: each sample against the episode's own steps, counted out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.config import RewardConfig
from agent.data.replay_buffer import Replay, sample_mixed
from agent.data.returns import rewards_and_returns

GAMMA, N = 0.9, 4
DENSE = RewardConfig(scale=2.0, bias=-0.5, sparse=False)


def find(batch, number, episodes, spec):
    """(episode, step) whose observation is that of sample `number`: random numbers that do not repeat."""
    seen = batch.observations["pos"][number].numpy()
    for episode in episodes:
        for step in range(len(episode)):
            if np.array_equal(episode.observations["pos"][step], seen):
                return episode, step
    raise AssertionError


@pytest.mark.parametrize("capacity", [200, 30], ids=["roomy", "ring wraps"])
def test_a_sample_is_the_steps_that_follow_as_one(spec, make_episode, capacity):
    episodes = [make_episode(3 + k % 7, seed=k, success=k % 2 == 0) for k in range(12)]
    replay = Replay(spec, capacity, DENSE, GAMMA, seed=1, n_step=N)
    for episode in episodes:
        replay.add(episode)
    batch, found = replay.sample(400), set()
    assert batch.actions.shape == (400, spec.action_dim)
    for number in range(400):
        episode, step = find(batch, number, episodes, spec)
        steps = min(N, len(episode) - step)
        rewards, returns = rewards_and_returns(episode, DENSE, GAMMA)
        np.testing.assert_array_equal(batch.actions[number], episode.actions[step])
        reward = sum(GAMMA**k * rewards[step + k] for k in range(steps))
        assert batch.rewards[number] == pytest.approx(reward, rel=1e-5)
        ended = episode.terminated[step + steps - 1]
        discount = GAMMA * (1 - float(batch.terminated[number]))  # of the value after these steps
        assert discount == pytest.approx(0 if ended else GAMMA**steps, abs=1e-6)
        assert batch.returns[number] == returns[step] and batch.succeeded[number] == episode.succeeded
        for key, images in episode.observations.items():
            np.testing.assert_array_equal(batch.next_observations[key][number], images[step + steps])
        found.add((ended, steps))
    assert {steps for _, steps in found} == {1, 2, 3, 4} and {ended for ended, _ in found} == {True, False}


def test_both_sides_of_a_mixed_batch_look_as_far_ahead(spec, make_episode):
    sides = [Replay(spec, 60, RewardConfig(), GAMMA, seed, n_step=N) for seed in (1, 2)]
    for side, replay in enumerate(sides):
        episode = make_episode(9, seed=side, success=True)
        episode.actions[:] = side / 2
        replay.add(episode)
    batch = sample_mixed(*sides, 10, 0.5)
    assert batch.actions.shape == (10, spec.action_dim)
    assert (batch.actions[:5] == 0).all() and (batch.actions[5:] == 0.5).all()
    again = [Replay(spec, 60, RewardConfig(), GAMMA, seed, n_step=N) for seed in (1, 2)]
    for side, replay in enumerate(again):
        replay.add(make_episode(9, seed=side, success=True))
    for place, alone in ((slice(5), again[0].sample(5)), (slice(5, 10), again[1].sample(5))):
        for name in ("rewards", "terminated", "returns", "succeeded"):
            assert torch.equal(getattr(batch, name)[place], getattr(alone, name)), name
        for key, value in alone.next_observations.items():
            assert torch.equal(batch.next_observations[key][place], value), key


def test_processes_share_a_batch_of_several_steps(spec, make_episode):
    whole, *parts = (Replay(spec, 60, RewardConfig(), GAMMA, 1, n_step=N) for _ in range(3))
    for replay in (whole, *parts):
        replay.add(make_episode(9, success=True))
    batch = whole.sample(8)
    for rank, replay in enumerate(parts):
        for own, all_of_it in zip(replay.sample(8, shard=(rank, 2)).tensors(), batch.tensors(), strict=True):
            assert torch.equal(own, all_of_it[rank::2])


def test_rows_of_a_removed_episode_are_used_again(spec, make_episode):
    replay = Replay(spec, 24, RewardConfig(), GAMMA, 1, n_step=N)
    tickets = [replay.add(make_episode(9, seed=seed, success=True)) for seed in (1, 2)]
    replay.remove(tickets[1])
    newest = make_episode(5, seed=3, success=True)
    replay.add(newest)
    batch = replay.sample(200)
    for number in range(200):
        episode, step = find(batch, number, [make_episode(9, seed=1, success=True), newest], spec)
        steps = min(N, len(episode) - step)
        for key, values in episode.observations.items():
            np.testing.assert_array_equal(batch.next_observations[key][number], values[step + steps])
