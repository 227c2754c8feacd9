"""What arrives is written by a thread: nothing is learnt from, and nothing acknowledged, before it is on the disk."""

import dataclasses
import errno
import itertools
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from agent.config import RewardConfig
from agent.data import episode_store
from agent.data.episode_file import SUFFIX, read_episode, write_episode
from agent.data.episode_store import Store
from agent.data.replay_buffer import Replay
from agent.run import intake
from agent.run.intake import MAX_WRITING, Intake
from agent.wire.messages import episode_key, episode_name


class Disk:
    """Writes episodes when it is let; fails at once at the calls of those numbers."""

    def __init__(self):
        self.let, self.begun, self.fails = threading.Event(), [], set()

    def write(self, path, episode):
        self.begun.append(episode.meta["number"])
        if len(self.begun) in self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        assert self.let.wait(20)
        write_episode(path, episode)


class Run:
    """An intake between a mailbox that hands out `arriving`, and a replay."""

    def __init__(self, folder, spec, robot_gb=1.0):
        self.folder, self.arriving, self.acknowledged, self.logged = folder, [], [], []
        self.replay = Replay(spec, 1000, RewardConfig(), 0.9)
        self.store = Store(folder, self.use, lambda key: self.used.remove(key))
        self.used = []
        self.over_share, self.warned = set(), []
        mailbox = SimpleNamespace(drain=self.drain, acknowledge=self.acknowledge, over_share=self.over_share, steps=0)
        self.store.read_back()
        self.kinds = []  # of what was logged
        log = SimpleNamespace(write=self.log, say=lambda _: None)
        self.intake = Intake(mailbox, self.store, log, robot_gb, self.warned.append)

    def log(self, kind, *_, **fields):
        self.kinds.append(kind)
        self.logged.append(fields["number"])

    def use(self, episode):
        self.replay.add(episode)
        self.used.append(episode_key(episode.meta))

    def drain(self):
        arrived, self.arriving = self.arriving, []
        return arrived

    def acknowledge(self, episode):
        path = self.folder / "episodes" / f"{episode_name(episode.meta)}{SUFFIX}"
        assert read_episode(path).equals(episode), "acknowledged, and not on the disk"
        assert self.used[-1] == episode_key(episode.meta)
        self.acknowledged.append((episode.meta["number"], len(episode)))

    def take_in(self, count):
        """Until so many have been acknowledged."""
        end_s = time.monotonic() + 20
        while len(self.acknowledged) < count:
            self.intake.take_in(0, 1)
            assert time.monotonic() < end_s


@pytest.fixture
def disk(monkeypatch):
    made = Disk()
    monkeypatch.setattr(episode_store, "write_episode", made.write)
    yield made
    made.let.set()


@pytest.fixture
def run(tmp_path, spec, disk):
    return Run(tmp_path, spec)


def test_the_learner_goes_on_while_an_episode_is_written(run, disk, make_episode):
    run.arriving = [make_episode(4, seed=n, success=True, number=n) for n in range(2)]
    for _ in range(3):
        run.intake.take_in(0, 1)
    assert not run.acknowledged and not run.logged and len(run.replay) == run.store.env_steps == 0
    disk.let.set()
    run.take_in(2)
    assert run.acknowledged == [(0, 4), (1, 4)] and run.logged == [0, 1] and len(run.replay) == run.store.env_steps == 8


def test_what_is_being_written_is_taken_in_at_the_end(run, disk, make_episode):
    run.arriving = [make_episode(4, seed=n, number=n) for n in range(3)]
    run.intake.take_in(0, 1)
    disk.let.set()
    run.intake.finish(0, 1)
    assert run.acknowledged == [(0, 4), (1, 4), (2, 4)] and run.store.episodes == 3


def test_only_so_many_are_given_to_the_thread(run, disk, make_episode):
    run.arriving = [make_episode(1, number=n) for n in range(MAX_WRITING + 5)]
    run.intake.take_in(0, 1)
    disk.let.set()
    run.intake.finish(0, 1)
    assert len(run.acknowledged) == MAX_WRITING
    run.take_in(MAX_WRITING + 5)
    assert [number for number, _ in run.acknowledged] == list(range(MAX_WRITING + 5))


@pytest.mark.parametrize("fails", [{1}, {2}, {1, 2, 3}, {2, 4, 7}])
def test_a_disk_that_is_full_for_a_while_loses_none_and_takes_none_twice(
    run, disk, make_episode, monkeypatch, caplog, fails
):
    monkeypatch.setattr(intake, "RETRY_S", 0.0)
    disk.fails = fails
    made = [make_episode(3 + n, seed=n, number=n) for n in range(5)]
    run.arriving = list(made)
    run.intake.take_in(0, 1)
    disk.let.set()
    run.take_in(5)
    assert sorted(run.acknowledged) == [(n, 3 + n) for n in range(5)]
    assert run.store.env_steps == len(run.replay) == sum(map(len, made)) and "cannot write" in caplog.text
    in_order = sorted((read_episode(path) for path in run.folder.glob("episodes/*")), key=lambda e: e.meta["order"])
    assert [e.meta["number"] for e in in_order] == [number for number, _ in run.acknowledged]
    np.testing.assert_array_equal(
        run.replay.columns["actions"].rows[run.replay.index].numpy(), np.concatenate([e.actions for e in in_order])
    )


def wait_for(condition):
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_after_a_full_disk_episodes_are_written_in_their_order(run, disk, make_episode, monkeypatch):
    """But for one that may be under way by then."""
    monkeypatch.setattr(intake, "RETRY_S", 0.0)
    disk.fails, run.arriving = {1}, [make_episode(2, number=n) for n in range(5)]
    run.intake.take_in(0, 1)
    wait_for(lambda: len(disk.begun) == 2)
    run.intake.take_in(0, 1)
    disk.let.set()
    run.take_in(5)
    assert [number for number, _ in run.acknowledged] in ([0, 1, 2, 3, 4], [1, 0, 2, 3, 4])


def test_a_full_disk_is_left_alone_for_a_while(run, disk, make_episode, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: now[0]))
    disk.fails, run.arriving = {1}, [make_episode(2, number=7)]
    disk.let.set()
    run.intake.take_in(0, 1)
    run.intake.finish(0, 1)
    for _ in range(3):
        run.intake.take_in(0, 1)
        run.intake.finish(0, 1)
        now[0] += 0.3 * intake.RETRY_S
    assert disk.begun == [7] and not run.acknowledged
    now[0] += 0.3 * intake.RETRY_S
    run.take_in(1)
    assert disk.begun == [7, 7]


def test_an_update_is_made_whatever_else_has_been_written(run, disk, make_episode, monkeypatch):
    monkeypatch.setattr(intake, "TAKE_S", 0.0)
    run.arriving = [make_episode(2, number=n) for n in range(3)]
    disk.let.set()
    run.intake.take_in(0, 1)
    wait_for(lambda: all(writing.done for writing in run.intake._writing))
    run.intake.take_in(0, 1)
    assert not run.acknowledged
    monkeypatch.setattr(intake, "TAKE_S", 20.0)
    run.intake.take_in(0, 1)
    assert [number for number, _ in run.acknowledged] == [0, 1, 2]


def test_what_learning_cannot_use_is_acknowledged_and_not_reported(run, disk, make_episode):
    """Nor counted; a longer version of an episode counts once."""
    unfit = make_episode(3, number=2)
    use, mailbox = run.use, run.intake._mailbox

    def choosy(episode):
        if episode.meta["number"] == 2:
            raise ValueError("unfit")
        use(episode)

    run.store._use, mailbox.steps = choosy, 9 + 3
    mailbox.acknowledge = lambda episode: run.acknowledged.append((episode.meta["number"], len(episode)))
    disk.let.set()
    run.arriving = [make_episode(4, seed=1, number=1), unfit, make_episode(9, seed=2, number=1)]
    run.take_in(3)
    assert run.acknowledged == [(1, 4), (2, 3), (1, 9)] and run.store.quarantined == 1
    assert list(zip(run.kinds, run.logged, strict=True)) == [("episode", 1), ("replaced", 1)]
    assert run.intake.seen == run.store.env_steps == 9


def test_a_longer_version_waits_until_the_shorter_one_is_on_the_disk(run, disk, make_episode):
    short, long = make_episode(4, seed=1, number=1), make_episode(9, seed=2, number=1)
    run.arriving = [short, make_episode(2, number=2)]
    run.intake.take_in(0, 1)
    run.arriving = [long, make_episode(3, number=3)]
    run.intake.take_in(0, 1)
    disk.let.set()
    run.take_in(4)
    assert run.acknowledged == [(1, 4), (2, 2), (1, 9), (3, 3)]
    assert run.store.env_steps == 14 and run.store.stored(episode_key(long.meta)) == 9
    assert [len(read_episode(path)) for path in sorted(run.folder.glob("episodes/*"))] == [9, 2, 3]
    sizes = [path.stat().st_size for path in run.folder.glob("episodes/*")]
    assert run.store.bytes["arm"] == sum(sizes)


def test_robots_take_turns(run, disk, make_episode):
    made = [make_episode(2, number=n) for n in range(2 * MAX_WRITING)]
    for episode, robot in zip(made, itertools.chain(["a"] * (2 * MAX_WRITING - 2), ["b"] * 2), strict=True):
        episode.meta["robot"] = robot
    run.arriving = list(made)
    run.intake.take_in(0, 1)
    disk.let.set()
    run.intake.finish(0, 1)
    last = 2 * MAX_WRITING - 1
    assert {last - 1, last} <= {number for number, _ in run.acknowledged}


def of_robot(episode, name):
    return dataclasses.replace(episode, meta={**episode.meta, "robot": name})


def test_a_robot_whose_files_have_its_share_of_the_disk_is_left_with_its_next_ones(spec, disk, make_episode, tmp_path):
    """At the episode that goes beyond the share, for that robot alone, and people are told once."""
    disk.let.set()
    size = Run(tmp_path / "one", spec)
    size.arriving = [of_robot(make_episode(4, seed=1), "arm")]
    size.take_in(1)
    assert not size.over_share and not size.warned
    run = Run(tmp_path / "run", spec, robot_gb=2.5e-9 * size.store.bytes["arm"])
    for number, expected in enumerate([set(), set(), {"arm"}, {"arm"}]):
        run.arriving = [of_robot(make_episode(4, seed=1, number=number), "arm")]
        run.take_in(number + 1)
        assert run.over_share == expected
    run.arriving = [of_robot(make_episode(4, seed=1, number=n), "other") for n in range(2)]
    run.take_in(6)
    assert run.over_share == {"arm"}
    (line,) = run.warned
    assert line.startswith("robot 'arm' has filled its ") and "(learner.robot_gb)" in line
    resumed = Run(tmp_path / "run", spec, robot_gb=2.5e-9 * size.store.bytes["arm"])
    assert resumed.over_share == {"arm"} and resumed.warned == [line]
    assert not Run(tmp_path / "run", spec, robot_gb=1.0).over_share
