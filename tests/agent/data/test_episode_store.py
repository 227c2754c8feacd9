"""A run's episodes on disk and in the replay."""

import dataclasses

import numpy as np
import pytest

from agent.config import RewardConfig
from agent.data.episode_file import episode_paths, read_head, write_episode
from agent.data.episode_store import Store
from agent.data.replay_buffer import Replay
from agent.data.returns import rewards_and_returns
from agent.spec import Episode
from agent.wire.messages import episode_key


@pytest.fixture
def store(tmp_path, spec):
    """store(sparse): a store on this test's folder, as after a restart."""
    return lambda sparse: Store(tmp_path, Replay(spec, 100, RewardConfig(sparse=sparse), 0.9, 0).add, lambda key: None)


def test_an_episode_that_is_set_aside_later_leaves_its_place_in_the_order_empty(tmp_path, store, make_episode):
    first = store(sparse=False)
    for number in range(3):
        rewards = [0, 0.5, 0, 1] if number == 1 else [0, 0, 0, 1]
        first.take(make_episode(4, success=True, number=number, rewards=rewards))
    again = store(sparse=True)
    again.read_back()
    assert len(again.steps) == 3 and (again.episodes, again.quarantined) == (2, 1)
    again.take(make_episode(4, success=True, number=3))
    orders = {meta["number"]: meta["order"] for _, meta in map(read_head, episode_paths([tmp_path / "episodes"]))}
    assert orders == {0: 0, 2: 2, 3: 3}


def test_what_a_killed_learner_was_writing_is_cleared_away(tmp_path, store, make_episode):
    store(sparse=True).take(make_episode(4, success=True))
    parts = [tmp_path / "episodes" / ".x.hdf5.7.part", tmp_path / ".latest.pt.7.part"]
    for part in parts:
        part.write_bytes(b"half of a file")
    again = store(sparse=True)
    again.read_back()
    assert again.episodes == 1 and not any(part.exists() for part in parts)


def test_a_discarded_episode_is_kept_and_not_learnt_from(tmp_path, store, make_episode):
    first, bad = store(sparse=True), make_episode(4, number=1)
    bad.meta["marked"] = "discard"
    assert first.take(make_episode(4, success=True, number=0)) and not first.take(bad)
    assert (first.episodes, first.env_steps, first.quarantined) == (1, 4, 0)
    assert len(episode_paths([tmp_path / "discarded"])) == len(episode_paths([tmp_path / "episodes"])) == 1
    again = store(sparse=True)
    again.read_back()
    assert len(again.steps) == 2  # its robot is told that it is here, if it asks
    assert (again.episodes, again.env_steps) == (1, 4)


def test_item_19_robots_whose_names_run_into_each_other_keep_their_episodes(tmp_path, store, make_episode):
    first = store(sparse=True)
    for steps, (robot, boot) in ((4, ("arm", "2-deadbeef")), (5, ("arm-2", "deadbeef"))):
        episode = make_episode(steps, success=True, number=0)
        episode.meta |= {"robot": robot, "boot": boot}
        assert first.take(episode)
    assert len(episode_paths([tmp_path / "episodes"])) == 2
    old = make_episode(3, success=True, number=1)  # as an earlier release named it
    old.meta |= {"robot": "arm", "boot": "2-deadbeef", "order": 2}
    write_episode(tmp_path / "episodes" / "arm-2-deadbeef-000001.hdf5", old)
    again = store(sparse=True)
    again.read_back()
    stored = {("arm", "2-deadbeef", 0): 4, ("arm-2", "deadbeef", 0): 5, ("arm", "2-deadbeef", 1): 3}
    assert again.steps == stored and again.episodes == 3


# ---- an episode that comes a second time, longer ----


class Learning:
    """A store with a replay behind it, as in a learner."""

    def __init__(self, folder, spec, sparse=True):
        self.replay, self.tickets, self.told = Replay(spec, 100, RewardConfig(sparse=sparse), 0.9, 0), {}, []
        self.store = Store(
            folder, self.add, self.drop, lambda key, path: self.told.append((key[2], path and path.name))
        )

    def add(self, episode):
        self.tickets[episode_key(episode.meta)] = self.replay.add(episode)

    def drop(self, key):
        self.replay.remove(self.tickets.pop(key))

    def sampled(self, name="returns"):
        """What can be sampled of a column, in order."""
        return self.replay.columns[name].rows[self.replay.index].tolist()


@pytest.fixture
def versions(make_episode):
    """(short, whole): what a learner made of the first four steps, and the episode of nine."""
    whole = make_episode(9, seed=5, success=True, number=1)
    last = dataclasses.replace(whole.transitions()[2], truncated=True)
    last = dataclasses.replace(last, final_observation=whole.transitions()[3].observation)
    return Episode.from_transitions([*whole.transitions()[:2], last], dict(whole.meta)), whole


def test_a_longer_version_replaces_what_was_cut_short_on_disk_and_in_the_replay(tmp_path, spec, make_episode, versions):
    """Item 10: no step twice, returns of the whole episode, and only the whole of it after a restart."""
    short, whole = versions
    before, after = make_episode(4, seed=1, number=0), make_episode(5, seed=2, number=2)
    learning = Learning(tmp_path, spec)
    for episode in (before, short, after):
        assert learning.store.take(episode)
    assert learning.store.env_steps == 12
    assert learning.store.take(whole)
    store = learning.store
    assert (store.episodes, store.env_steps, len(learning.replay), learning.replay.episodes) == (3, 18, 18, 3)
    assert store.steps == {("arm", "b0", 0): 4, ("arm", "b0", 1): 9, ("arm", "b0", 2): 5}
    returns = [rewards_and_returns(episode, learning.replay.reward, 0.9)[1] for episode in (before, after, whole)]
    np.testing.assert_array_equal(learning.sampled(), np.concatenate(returns))
    actions = np.concatenate([before.actions, after.actions, whole.actions])
    np.testing.assert_array_equal(learning.sampled("actions"), actions)
    assert len(episode_paths([tmp_path / "episodes"])) == 3
    assert [name and number for number, name in learning.told] == [0, 1, 2, None, 1]

    again = Learning(tmp_path, spec)
    again.store.read_back()
    assert again.store.steps == store.steps and again.store.env_steps == 18
    assert again.sampled("actions") == learning.sampled("actions") and again.sampled() == learning.sampled()


def test_a_shorter_version_never_replaces_a_longer_one(tmp_path, spec, versions):
    short, whole = versions
    learning = Learning(tmp_path, spec)
    assert learning.store.take(whole) and learning.store.take(short)
    (path,) = episode_paths([tmp_path / "episodes"])
    assert read_head(path)[0] == 9 and learning.store.env_steps == len(learning.replay) == 9


def test_a_longer_version_that_a_person_discarded_takes_the_shorter_one_out_of_learning(tmp_path, spec, versions):
    short, whole = versions
    whole.meta["marked"] = "discard"
    learning = Learning(tmp_path, spec)
    assert learning.store.take(short) and not learning.store.take(whole)
    assert (learning.store.episodes, learning.store.env_steps, len(learning.replay)) == (0, 0, 0)
    assert not list((tmp_path / "episodes").iterdir()) and len(episode_paths([tmp_path / "discarded"])) == 1


def test_a_longer_version_that_learning_cannot_use_and_one_that_it_can(tmp_path, spec, versions):
    short, whole = versions
    short.rewards[:] = [0, 0.5, 0.25]  # three values are not sparse
    first = Learning(tmp_path, spec, sparse=False)
    assert first.store.take(short)
    again = Learning(tmp_path, spec)  # now the config says sparse
    again.store.read_back()
    assert (again.store.quarantined, again.store.episodes) == (1, 0) and again.store.steps == {("arm", "b0", 1): 3}
    assert again.store.take(whole)
    assert (again.store.quarantined, again.store.episodes, again.store.env_steps) == (0, 1, 9)
    assert not list((tmp_path / "quarantine").iterdir())


def test_a_learner_that_was_killed_while_it_replaced_an_episode_takes_the_longer_one(tmp_path, spec, versions):
    short, whole = versions
    whole.meta["marked"] = "discard"
    learning = Learning(tmp_path, spec)
    learning.store.take(short)
    whole.meta["order"] = 0
    write_episode(tmp_path / "discarded" / "whole.hdf5", whole)  # and not yet removed: the other one
    again = Learning(tmp_path, spec)
    again.store.read_back()
    assert again.store.steps == {("arm", "b0", 1): 9} and len(again.replay) == 0
    assert not list((tmp_path / "episodes").iterdir()) and len(list((tmp_path / "replaced").iterdir())) == 1


def test_an_episode_that_does_not_fit_on_the_disk_leaves_its_shorter_version(tmp_path, spec, versions, monkeypatch):
    short, whole = versions
    learning = Learning(tmp_path, spec)
    learning.store.take(short)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError):
            learning.store.take(whole)
    assert learning.store.env_steps == len(learning.replay) == 3
    assert learning.store.take(whole) and learning.store.env_steps == len(learning.replay) == 9
