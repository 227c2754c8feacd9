"""A run's episodes on disk and in the replay."""

import pytest

from agent.config import RewardConfig
from agent.episode_file import episode_paths, read_head
from agent.replay import Replay
from agent.store import Store


@pytest.fixture
def store(tmp_path, spec):
    """store(sparse): a store on this test's folder, as after a restart."""
    return lambda sparse: Store(tmp_path, Replay(spec, 100, RewardConfig(sparse=sparse), 0.9, 0).add)


def test_an_episode_that_is_set_aside_later_leaves_its_place_in_the_order_empty(tmp_path, store, make_episode):
    first = store(sparse=False)
    for number in range(3):
        rewards = [0, 0.5, 0, 1] if number == 1 else [0, 0, 0, 1]
        first.take(make_episode(4, success=True, number=number, rewards=rewards))
    again = store(sparse=True)
    assert len(set(again.read_back())) == 3 and (again.episodes, again.set_aside) == (2, 1)
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
    assert (first.episodes, first.env_steps, first.set_aside) == (1, 4, 0)
    assert len(episode_paths([tmp_path / "discarded"])) == len(episode_paths([tmp_path / "episodes"])) == 1
    again = store(sparse=True)
    assert len(set(again.read_back())) == 2  # its robot is told that it is here, if it asks
    assert (again.episodes, again.env_steps) == (1, 4)
