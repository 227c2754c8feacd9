"""Replay over several steps, chunks or n_step: each sample against the episode's own steps, counted out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.config import RewardConfig
from agent.data.replay_buffer import Replay, sample_mixed
from agent.data.returns import rewards_and_returns

GAMMA, CHUNK = 0.9, 4
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
@pytest.mark.parametrize(("chunk", "n_step"), [(CHUNK, 1), (1, CHUNK)])
def test_a_sample_is_the_steps_that_follow_as_one(spec, make_episode, capacity, chunk, n_step):
    episodes = [make_episode(3 + k % 7, seed=k, success=k % 2 == 0) for k in range(12)]
    replay = Replay(spec, capacity, DENSE, GAMMA, seed=1, chunk=chunk, n_step=n_step)
    for episode in episodes:
        replay.add(episode)
    batch, found = replay.sample(400), set()
    assert batch.actions.shape == (400, chunk * spec.action_dim)
    for number in range(400):
        episode, step = find(batch, number, episodes, spec)
        steps = min(CHUNK, len(episode) - step)
        rewards, returns = rewards_and_returns(episode, DENSE, GAMMA)
        wanted = [episode.actions[min(step + k, len(episode) - 1)] for k in range(chunk)]
        np.testing.assert_array_equal(batch.actions[number], np.concatenate(wanted))
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


def test_both_sides_of_a_mixed_batch_have_chunks(spec, make_episode):
    sides = [Replay(spec, 60, RewardConfig(), GAMMA, seed, chunk=CHUNK) for seed in (1, 2)]
    for side, replay in enumerate(sides):
        episode = make_episode(9, seed=side, success=True)
        episode.actions[:] = side / 2
        replay.add(episode)
    batch = sample_mixed(*sides, 10, 0.5)
    assert batch.actions.shape == (10, CHUNK * spec.action_dim)
    assert (batch.actions[:5] == 0).all() and (batch.actions[5:] == 0.5).all()
    again = [Replay(spec, 60, RewardConfig(), GAMMA, seed, chunk=CHUNK) for seed in (1, 2)]
    for side, replay in enumerate(again):
        replay.add(make_episode(9, seed=side, success=True))
    for place, alone in ((slice(5), again[0].sample(5)), (slice(5, 10), again[1].sample(5))):
        for name in ("rewards", "terminated", "returns", "succeeded"):
            assert torch.equal(getattr(batch, name)[place], getattr(alone, name)), name
        for key, value in alone.next_observations.items():
            assert torch.equal(batch.next_observations[key][place], value), key


def test_processes_share_a_batch_of_chunks(spec, make_episode):
    whole, *parts = (Replay(spec, 60, RewardConfig(), GAMMA, 1, chunk=CHUNK) for _ in range(3))
    for replay in (whole, *parts):
        replay.add(make_episode(9, success=True))
    batch = whole.sample(8)
    for rank, replay in enumerate(parts):
        for own, all_of_it in zip(replay.sample(8, shard=(rank, 2)).tensors(), batch.tensors(), strict=True):
            assert torch.equal(own, all_of_it[rank::2])


def test_rows_of_a_removed_episode_are_used_again(spec, make_episode):
    replay = Replay(spec, 24, RewardConfig(), GAMMA, 1, chunk=CHUNK)
    tickets = [replay.add(make_episode(9, seed=seed, success=True)) for seed in (1, 2)]
    replay.remove(tickets[1])
    newest = make_episode(5, seed=3, success=True)
    replay.add(newest)
    batch = replay.sample(200)
    for number in range(200):
        episode, step = find(batch, number, [make_episode(9, seed=1, success=True), newest], spec)
        steps = min(CHUNK, len(episode) - step)
        for key, values in episode.observations.items():
            np.testing.assert_array_equal(batch.next_observations[key][number], values[step + steps])


def test_chunks_of_one_are_steps(spec, make_episode):
    plain, chunks = Replay(spec, 60, RewardConfig(), GAMMA, 3), Replay(spec, 60, RewardConfig(), GAMMA, 3, chunk=1)
    for replay in (plain, chunks):
        replay.add(make_episode(9, success=True))
    for own, other in zip(plain.sample(50).tensors(), chunks.sample(50).tensors(), strict=True):
        assert torch.equal(own, other)
