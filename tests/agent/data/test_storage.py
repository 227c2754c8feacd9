"""Where frames live: the same batches from everywhere, space taken as it fills, and nothing left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.config import RewardConfig
from agent.data.episode_file import episode_paths
from agent.data.episode_store import Store
from agent.data.replay_buffer import Batch, Replay
from agent.data.storage import Grown, Mapped, NoSpace, Storage
from agent.spec import Spec

CPU = torch.device("cpu")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(one.tensors(), two.tensors(), strict=True))


@pytest.mark.parametrize(
    "kind, device", [("file", "cpu"), ("device", "cpu"), pytest.param("device", "cuda", marks=gpu)]
)
@pytest.mark.parametrize("capacity", [400, 40], ids=["roomy", "ring wraps"])
def test_every_storage_gives_the_same_batches(tmp_path, spec, make_episode, kind, device, capacity):
    where = Storage(kind, tmp_path, torch.device(device))
    plain, other = (Replay(spec, capacity, RewardConfig(), 0.9, 3, place) for place in (Storage(), where))
    for number in range(20):
        for replay in (plain, other):
            replay.add(make_episode(4 + number % 5, seed=number, success=number % 3 == 0))
        assert same(plain.sample(30), other.sample(30))
    assert other.sample(2).observations["cam"].device.type == device
    assert plain.mean_return() == pytest.approx(other.mean_return())
    np.testing.assert_array_equal(*(each.state_statistics().standardisation() for each in (plain, other)))
    assert len(plain) == len(other) and plain.episodes == other.episodes


def test_a_files_bytes_are_on_the_disk_and_gone_with_the_replay(tmp_path):
    folder = tmp_path / "run"  # is not made
    column = Mapped(1000, (64, 64), np.dtype(np.uint8), folder)
    descriptor = column._file
    assert list(tmp_path.iterdir()) == []  # no name, so no crash leaves it behind
    assert os.fstat(descriptor).st_size == 1000 * 4096 and os.fstat(descriptor).st_blocks * 512 < 100_000
    column.grow(100)
    column.rows[:100] = 7
    assert 100 * 4096 <= os.fstat(descriptor).st_blocks * 512 < 200 * 4096
    assert os.pread(descriptor, 4097, 99 * 4096) == b"\7" * 4096 + b"\0"
    column.grow(50)
    assert column.bytes == 100 * 4096
    del column
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_on_a_device_rows_grow_as_they_fill_by_a_quarter_and_keep_what_they_hold():
    column, sizes = Grown(1000, (3,), np.dtype(np.float32), CPU), set()
    assert column.bytes == 0
    for row in range(1000):
        column.grow(row + 1)
        column.rows[row] = row
        assert row < len(column.rows) <= max(1, 1.25 * row + 1)
        sizes.add(len(column.rows))
    assert len(column.rows) == 1000 and len(sizes) < 40
    assert torch.equal(column.rows, torch.arange(1000.0)[:, None].expand(-1, 3))
    assert column.rows.dtype == torch.float32 and column.bytes == 12_000


@pytest.mark.parametrize("kind", ["host", "file", "device"])
def test_a_replay_takes_little_more_than_its_frames(tmp_path, make_episode, kind):
    """The columns of two 128 x 128 cameras: at most 1.05 times the frames, at any fill, of any capacity."""
    spec = Spec({"front": (128, 128, 3), "wrist": (128, 128, 3)}, {"joints": 7, "gripper": 2}, 7)
    replay = Replay(spec, 220, RewardConfig(), 0.95, 0, Storage(kind, tmp_path))
    assert replay.bytes == 0
    frames = 0
    for number in range(10):
        replay.add(make_episode(21, seed=number, spec=spec))
        frames += 22 * 2 * 128 * 128 * 3
        slack = 1.25 if kind == "device" and number < 9 else 1  # which has room for the next episodes
        assert frames < replay.bytes <= 1.05 * frames * slack
    replay.add(make_episode(21, spec=spec))  # full: one goes, one comes
    assert replay.bytes <= 1.05 * frames


@pytest.mark.skipif(not Path("/proc/sys/vm/overcommit_memory").exists(), reason="Linux only")
def test_a_capacity_beyond_the_machines_memory_costs_nothing_until_it_is_used(make_episode, spec):
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this machine refuses what it has not got")
    replay = Replay(spec, 10_000_000_000, RewardConfig(), 0.9)  # 4.3 TB of frames
    replay.add(make_episode(5))
    assert len(replay) == 5 and replay.sample(4).actions.shape == (4, 2)


def test_a_full_disk_is_an_error_that_changes_nothing_and_blames_no_episode(tmp_path, spec, make_episode, monkeypatch):
    replay = Replay(spec, 100, RewardConfig(), 0.9, 0, Storage("file", tmp_path / "run"))
    store = Store(tmp_path, replay.add, lambda key: None)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = (make_episode(5, seed=number, number=number) for number in range(2))
    assert store.take(first)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpace, match=r"learner.storage: .* in .*run: No space left on device"):
        store.take(second)
    assert len(replay) == 5 and replay.episodes == 1 and store.quarantined == 0
    assert len(episode_paths([tmp_path / "episodes"])) == 2  # resuming takes both in


def test_a_full_device_is_an_error_in_one_line(monkeypatch, spec, make_episode):
    replay = Replay(spec, 100, RewardConfig(), 0.9, 0, Storage("device"))

    def full(*_, **__):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(torch.Tensor, "new_empty", full)
    with pytest.raises(NoSpace, match="no room for 6 rows on cpu; 'host'"):
        replay.add(make_episode(5))
    assert len(replay) == 0


def test_a_folder_that_cannot_be_used_is_named(tmp_path, spec):
    (tmp_path / "file").write_text("")
    with pytest.raises(NoSpace, match=f"learner.storage: .* in {tmp_path}/file/run: "):
        Replay(spec, 10, RewardConfig(), 0.9, 0, Storage("file", tmp_path / "file" / "run"))
