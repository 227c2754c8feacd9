"""Replay: what comes out is what went in, and never across an episode's border."""

from __future__ import annotations

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import RewardConfig
from agent.data.replay_buffer import Replay, sample_mixed
from agent.spec import Episode, Spec, SpecError, UserError

DENSE = RewardConfig(scale=2.0, bias=1.0, sparse=False)
GAMMA = 0.5
LABELLED = Spec({"cam": (2, 2, 3)}, {"label": 2}, 1)


def labelled(number: int, steps: int, terminated: bool, success: bool) -> Episode:
    """An episode whose every number says which episode and step it belongs to."""
    rows = np.arange(steps + 1)
    last = np.arange(steps) == steps - 1
    return Episode(
        observations={
            "cam": np.broadcast_to(
                np.stack([np.full(steps + 1, number % 256), rows % 256, rows * 0], -1)[:, None, None],
                (steps + 1, 2, 2, 3),
            ).astype(np.uint8),
            "label": np.stack([np.full(steps + 1, number), rows], -1).astype(np.float32),
        },
        actions=(np.arange(steps)[:, None] / 100 - 0.5).astype(np.float32),
        rewards=(number + np.arange(steps) / 10).astype(np.float32),
        terminated=last & terminated,
        truncated=last & (not terminated),
        success=last & success,
        policy_versions=np.zeros(steps, np.int64),
        interventions=np.zeros(steps, bool),
        times_s=np.zeros(steps),
        observation_ages_s=np.zeros(steps, np.float32),
        action_latencies_s=np.zeros(steps, np.float32),
    )


@cache
def expected_return(number: int, step: int, steps: int, terminated: bool) -> float:
    rewards = [2 * (number + k / 10) + 1 for k in range(steps)]
    tail = 0 if terminated else float(np.mean(rewards[-2:])) * GAMMA / (1 - GAMMA)  # of the last 1 / (1 - GAMMA)
    return sum(GAMMA ** (k - step) * rewards[k] for k in range(step, steps)) + GAMMA ** (steps - 1 - step) * tail


@settings(max_examples=80, deadline=None)
@given(
    capacity=st.integers(2, 40),
    plan=st.lists(st.tuples(st.integers(1, 15), st.booleans(), st.booleans()), min_size=1, max_size=40),
)
def test_p13_no_pair_and_no_return_crosses_an_episode_however_often_the_ring_wraps(capacity, plan):
    """Also: first in, first out by episode; the newest are complete; at most capacity rows, and not far fewer."""
    plan = [(min(steps, capacity - 1), terminated, success) for steps, terminated, success in plan]
    replay = Replay(LABELLED, capacity, DENSE, GAMMA, seed=1)
    for count in range(1, len(plan) + 1):
        replay.add(labelled(count - 1, *plan[count - 1]))
        held = list(range(count - replay.episodes, count))  # the newest ones
        assert len(replay) == sum(plan[number][0] for number in held)
        rows = len(replay) + replay.episodes
        assert replay.episodes >= 1 and rows <= capacity
        if len(held) < count:  # something had to go: for good reason
            longest = max(plan[number][0] + 1 for number in range(count))
            assert rows + 2 * longest > capacity
        if count % 5 and count < len(plan):
            continue
        batch = replay.sample(30 * len(replay))
        numbers, steps = batch.observations["label"].long().unbind(-1)
        where = list(zip(numbers.tolist(), steps.tolist(), strict=True))
        assert torch.equal(batch.next_observations["label"].long(), torch.stack([numbers, steps + 1], -1))
        for observation, step in ((batch.observations, steps), (batch.next_observations, steps + 1)):
            pixel = torch.stack([numbers, step, 0 * step], -1).to(torch.uint8)[:, None, None]
            assert torch.equal(observation["cam"], pixel.expand(-1, 2, 2, -1))
        ends = [plan[number][1] and step == plan[number][0] - 1 for number, step in where]
        assert batch.terminated.tolist() == [float(end) for end in ends]
        assert batch.succeeded.tolist() == [float(plan[number][2]) for number, _ in where]
        torch.testing.assert_close(batch.actions[:, 0], steps / 100 - 0.5)
        torch.testing.assert_close(batch.rewards, 2 * (numbers + steps / 10) + 1)
        returns = [expected_return(number, step, *plan[number][:2]) for number, step in where]
        torch.testing.assert_close(batch.returns, torch.tensor(returns), rtol=1e-4, atol=1e-4)
        seen = set(where)
        assert seen == {(number, step) for number in held for step in range(plan[number][0])}


def test_memory_is_what_was_asked_for_and_images_stay_uint8(spec, make_episode):
    replay = Replay(spec, 50, RewardConfig(), 0.9)
    for seed in range(20):
        replay.add(make_episode(7, seed=seed))
    batch = replay.sample(3)
    assert batch.observations["cam"].dtype == batch.next_observations["cam"].dtype == torch.uint8
    assert {len(column.rows) for column in replay.columns.values()} == {50}
    assert replay.episodes == 6 and len(replay) == 42  # 6 x 8 of 50 rows


def test_sampling_is_uniform_over_steps_and_follows_the_seed(spec, make_episode):
    def filled(seed):
        replay = Replay(spec, 100, RewardConfig(), 0.9, seed)
        for steps in (1, 2, 17):
            replay.add(make_episode(steps, seed=steps, success=steps == 17))
        return replay

    one, same, other = filled(3), filled(3), filled(4)
    assert torch.equal(one.sample(50).actions, same.sample(50).actions)
    assert not torch.equal(one.sample(50).actions, other.sample(50).actions)
    assert one.sample(20_000).succeeded.mean().item() == pytest.approx(17 / 20, abs=0.02)


def test_p16_returns_do_not_depend_on_when_or_where_an_episode_came_in(spec, make_episode):
    """A replay that has wrapped gives an episode the returns that a fresh one of it alone gives."""
    episodes = [make_episode(5 + k, seed=k, success=k % 2 == 0) for k in range(12)]
    online, offline = Replay(spec, 40, RewardConfig(), 0.9), Replay(spec, 400, RewardConfig(), 0.9)
    for episode in episodes:
        online.add(episode)
        offline.add(episode)

    def returns_by_action(replay):
        batch = replay.sample(3000)
        return {tuple(a): r for a, r in zip(batch.actions.tolist(), batch.returns.tolist(), strict=True)}

    kept, everything = returns_by_action(online), returns_by_action(offline)
    assert kept == {action: everything[action] for action in kept} and 20 < len(kept) < len(everything)


def damaged(episode: Episode, name: str, value) -> Episode:
    episode = copy.deepcopy(episode)
    getattr(episode, name)[0] = value
    return episode


def test_a_refused_episode_changes_nothing(spec, make_episode, state_spec):
    replay = Replay(spec, 20, RewardConfig(), 0.9, seed=0)
    replay.add(make_episode(6, success=True))
    replay.add(make_episode(6, seed=1))
    before = {name: column.rows.clone() for name, column in replay.columns.items()}, len(replay), replay.episodes
    good = make_episode(8, seed=2)
    bad = [
        (make_episode(20), "20 steps does not fit"),
        (make_episode(3, spec=state_spec), "cam"),
        (damaged(good, "rewards", math.nan), "rewards"),
        (damaged(good, "rewards", -1.0), "failure_reward"),
        (damaged(good, "terminated", True), "last step"),
        (damaged(good, "actions", math.inf), "actions"),
    ]
    for episode, message in bad:
        with pytest.raises(UserError, match=message):
            replay.add(episode)
    assert all(torch.equal(before[0][name], column.rows) for name, column in replay.columns.items())
    assert (len(replay), replay.episodes) == before[1:]
    with pytest.raises(SpecError):
        replay.add(damaged(good, "truncated", True))


def test_state_statistics(make_episode):
    spec = Spec({}, {"a": 2, "b": 1}, 2)
    replay = Replay(spec, 100, RewardConfig(), 0.9)
    episodes = [make_episode(9, seed=1, spec=spec), make_episode(4, seed=2, spec=spec)]
    for episode in episodes:
        episode.observations["b"][:] = 3.0  # stands still
        replay.add(episode)
    mean, std = replay.state_statistics().standardisation()
    rows = np.concatenate([np.concatenate([e.observations["a"], e.observations["b"]], -1)[:-1] for e in episodes])
    assert mean == pytest.approx(rows.mean(0), rel=1e-4)
    assert std == pytest.approx([*rows[:, :2].std(0), 3 / 20], rel=1e-4)
    without = Replay(Spec({"cam": (4, 4, 3)}, {}, 1), 10, RewardConfig(), 0.9).state_statistics()
    assert [len(part) for part in without.standardisation()] == [0, 0] and not without.report()


@pytest.mark.parametrize(
    "share, offline_steps, online_steps, expected",
    [
        (0.5, 8, 8, 16),
        (0.25, 8, 8, 8),
        (0.0, 8, 8, 0),
        (1.0, 8, 8, 32),
        (-1, 24, 8, 24),  # by size
        (-1, 8, 24, 8),
        (0.5, 8, 0, 32),  # what one side lacks the other gives
        (0.0, 8, 0, 32),
        (0.5, 0, 8, 0),
        (-1, 0, 8, 0),
    ],
)
def test_mixed_batches_have_the_share_asked_for(spec, make_episode, share, offline_steps, online_steps, expected):
    sides = []
    for steps, success in ((offline_steps, True), (online_steps, False)):
        replay = Replay(spec, 100, RewardConfig(), 0.9)
        for start in range(0, steps, 8):
            replay.add(make_episode(8, seed=start, success=success))
        sides.append(replay)
    batch = sample_mixed(*sides, 32, share)
    assert len(batch.actions) == 32 and batch.succeeded.sum().item() == expected
    assert {len(v) for v in batch.observations.values()} == {32} == {len(v) for v in batch.next_observations.values()}


def test_mixed_batches_without_an_offline_side(spec, make_episode):
    replay = Replay(spec, 100, RewardConfig(), 0.9)
    replay.add(make_episode(8))
    assert len(sample_mixed(None, replay, 5, 0.5).actions) == 5
    assert len(sample_mixed(replay, None, 5, 0.5).actions) == 5


def test_a_removed_episode_is_sampled_no_more_and_the_others_are(spec, make_episode):
    replay = Replay(spec, 40, RewardConfig(), 0.9, 0)
    tickets = [replay.add(make_episode(n, seed=n)) for n in (4, 5, 6)]
    before = replay.changes
    replay.remove(tickets[1])
    assert len(replay) == 10 and replay.episodes == 2 and replay.changes > before
    kept = np.concatenate([make_episode(n, seed=n).actions for n in (4, 6)])
    np.testing.assert_array_equal(replay.columns["actions"].rows[replay.index].numpy(), kept)
    replay.remove(tickets[1])  # once is enough
    assert len(replay) == 10
    for seed in range(20):  # round the ring a few times
        tickets.append(replay.add(make_episode(7, seed=seed)))
        if seed % 3 == 0:
            replay.remove(tickets[-2])
        rows = sorted((first, first + steps + 1) for first, steps, _ in replay._episodes)
        assert all(end <= begin for (_, end), (begin, _) in zip(rows, rows[1:], strict=False))
        assert len(replay) == sum(steps for _, steps, _ in replay._episodes) == len(replay.index)


def test_samples_are_those_of_an_index_put_together_episode_by_episode(spec, make_episode):
    random = np.random.default_rng(0)
    replay = Replay(spec, 60, RewardConfig(), 0.9, seed=3)
    rows_of: dict[int, tuple[int, int]] = {}
    for turn in range(40):
        steps = int(random.integers(1, 12))
        ticket = replay.add(make_episode(steps, seed=turn))
        rows_of[ticket] = replay._head - steps - 1, steps
        if turn % 4 == 3:
            replay.remove(ticket - int(random.integers(0, 3)))
        held = [(first, steps) for first, steps, _ in replay._episodes]
        assert held == [rows_of[number] for _, _, number in replay._episodes]
        index = torch.cat([torch.arange(first, first + steps) for first, steps in held])
        assert replay.index.dtype == torch.int64 and torch.equal(replay.index, index)
        drawn = torch.Generator()
        drawn.set_state(replay.generator.get_state())
        rows = index[torch.randint(len(index), (16,), generator=drawn)]
        batch = replay.sample(16)
        for name in ("actions", "rewards", "returns"):
            assert torch.equal(getattr(batch, name), replay.columns[name].rows[rows])
        for key in spec.keys:
            assert torch.equal(batch.observations[key], replay.columns[f"obs/{key}"].rows[rows])
            assert torch.equal(batch.next_observations[key], replay.columns[f"obs/{key}"].rows[rows + 1])
    assert Replay(spec, 60, RewardConfig(), 0.9).index.tolist() == []
