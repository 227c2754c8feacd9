"""Data that is larger than the memory: said in one line before it is loaded."""

import logging

import pytest

from agent import learner, memory, pretrain
from agent.config import RewardConfig
from agent.data import replay_memory
from agent.data.episode_file import read_episode, write_episode
from agent.data.replay_buffer import Replay
from agent.data.replay_memory import needed_bytes, row_bytes
from agent.run import learner as run_learner
from agent.spec import Spec, UserError

SPEC = Spec({"cam": (64, 64, 3), "wrist": (32, 32, 3)}, {"pos": 3}, 2)


@pytest.fixture
def demos(tmp_path, make_episode):
    for number in range(20):
        write_episode(tmp_path / f"demos/{number}.hdf5", make_episode(20, number, success=number == 0, spec=SPEC))
    return tmp_path / "demos"


@pytest.fixture
def small(monkeypatch):
    """A machine with room for about half of the demonstrations, whatever has been taken of it."""
    monkeypatch.setattr(memory, "_groups", lambda: [20 * 10 * row_bytes(SPEC)])


@pytest.fixture
def train(demos, tmp_path, tiny_flags):
    def run(*flags):
        places = ["--data", str(demos), "--out", str(tmp_path / "o.pt"), "--run", str(tmp_path / "run")]
        pretrain.main([*places, "--updates", "2", *tiny_flags, *flags])

    return run


def test_item_28_what_is_needed_is_what_a_replay_takes(demos):
    paths = sorted(demos.iterdir())
    replay = Replay(SPEC, 1000, RewardConfig(), 0.9)
    for path in paths:
        replay.add(read_episode(path))
    taken = sum(column.bytes for column in replay.columns.values())
    loading = 2 * 21 * row_bytes(SPEC)
    assert needed_bytes(paths) - loading == pytest.approx(taken, rel=0.01)
    assert needed_bytes(paths, most_rows=21) == pytest.approx(loading + taken / 20, rel=0.01)
    assert needed_bytes(paths, successes_only=True) == pytest.approx(loading + taken / 20, rel=0.01)


def test_item_28_pretrain_says_what_it_needs_before_it_loads(train, small, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.run.demonstrations.read_episodes", lambda places: pytest.fail("loaded"))
    words = r"demos: needs 0\.01 GB of memory, and 0\.00 GB are free; --storage file"
    with pytest.raises(UserError, match=words):
        train()
    assert not (tmp_path / "run").exists() and not (tmp_path / "o.pt").exists()


def test_item_28_with_storage_file_or_fewer_episodes_it_trains(train, small, tmp_path):
    train("--storage", "file")
    (tmp_path / "o.pt").unlink()
    train("--successes-only", "true")
    assert (tmp_path / "o.pt").exists()


def test_item_28_the_learner_says_it_too(train, tmp_path, monkeypatch, caplog, make_episode):
    monkeypatch.setattr("agent.run.farewell.COME_S", 0.0)
    train()
    start = ["--ckpt", str(tmp_path / "o.pt"), "--address", "tcp://127.0.0.1:0", "--env-steps", "0"]
    with caplog.at_level(logging.WARNING):
        learner.main([*start, "--run", str(tmp_path / "online")])
    assert "to come" not in caplog.text
    monkeypatch.setattr(memory, "_groups", lambda: [20 * 10 * row_bytes(SPEC)])
    with pytest.raises(UserError, match=r"demos: needs .* --storage file"):
        learner.main([*start, "--run", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(memory, "_groups", lambda: [20 * 30 * row_bytes(SPEC)])
    with pytest.raises(UserError, match="demos: needs"):  # with the episodes that the run has already
        for number in range(20):
            episode = make_episode(20, number, spec=SPEC, number=number)
            episode.meta["order"] = number
            write_episode(tmp_path / f"online/episodes/{number}.hdf5", episode)
        learner.main(["--resume", str(tmp_path / "online"), *start[2:]])
    with caplog.at_level(logging.WARNING):
        more = ["--env-steps", "100000", "--run", str(tmp_path / "third")]
        monkeypatch.setattr(run_learner.Learner, "run", lambda self, stop: None)
        learner.main([*start, *more])
    assert "env steps to come need" in caplog.text and replay_memory.log.name in caplog.text
