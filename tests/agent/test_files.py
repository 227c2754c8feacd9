"""What a power cut may take: nothing that was written, nor a folder that it lies in."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from agent import files
from agent.calql.algorithm import CalQL
from agent.config import CalQLConfig
from agent.data.episode_file import write_episode
from agent.data.episode_store import Store
from agent.env_record import EnvRecord
from agent.run import checkpoint
from agent.run.checkpoint import Checkpoint
from agent.run.log import RunLog
from tools import collect, edit


class Disk:
    """What has been synced: after a power cut a name is there only if its folder was synced after it appeared."""

    def __init__(self, monkeypatch):
        self.synced: list[Path] = []
        self.lost: set[Path] = set()  # files and folders that a power cut now would take away
        self.torn: set[Path] = set()  # files of which it would take the content
        self._names: dict[int, Path] = {}
        for name in ("open", "fsync", "replace", "link", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name, real):
        def call(*given, **options):
            result = real(*given, **options)
            getattr(self, f"_{name}")(result, *given)
            return result

        return call

    def _open(self, handle, path, *rest):
        self._names[handle] = Path(path).resolve()

    def _mkdir(self, _, path, *rest):
        self.lost.add(Path(path).resolve())

    def _link(self, _, path, target):
        self.lost.add(Path(target).resolve())

    def _replace(self, _, path, target):
        source, target = Path(path).absolute(), Path(target).resolve()
        self.lost.add(target)
        if source not in self.synced:
            self.torn.add(target)

    def _fsync(self, _, file):
        path = Path(os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"))
        self.synced.append(path)
        self.lost = {name for name in self.lost if name.parent != path}

    @property
    def whole(self):
        return not self.lost and not self.torn


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture
def state(spec, network):
    agent = CalQL(spec, network, CalQLConfig(), torch.device("cpu"), 0)
    return Checkpoint(spec, EnvRecord(), {}, agent.state_dict())


def test_item_20_an_episode_and_every_folder_above_it_are_synced(tmp_path, make_episode, disk):
    write_episode(tmp_path / "runs/lift/episodes/a.hdf5", make_episode(3))
    assert disk.whole
    assert {tmp_path, tmp_path / "runs", tmp_path / "runs/lift", tmp_path / "runs/lift/episodes"} <= set(disk.synced)


def test_item_20_latest_pt_and_the_checkpoints_are_synced(tmp_path, state, disk):
    state.save(tmp_path / "runs/lift/latest.pt")
    assert disk.whole and {tmp_path, tmp_path / "runs", tmp_path / "runs/lift"} <= set(disk.synced)
    disk.synced.clear()
    checkpoint.keep(tmp_path / "runs/lift", "00000010", 3)
    assert disk.whole and {tmp_path / "runs/lift", tmp_path / "runs/lift/checkpoints"} <= set(disk.synced)
    assert checkpoint.load(tmp_path / "runs/lift/checkpoints/00000010.pt").spec == state.spec


def test_item_20_a_run_s_folders_are_synced(tmp_path, disk):
    RunLog(tmp_path / "runs/lift").close()
    assert disk.whole and {tmp_path, tmp_path / "runs"} <= set(disk.synced)
    with collect.recording_folder(tmp_path / "demos/lift"):
        pass
    assert disk.whole and {tmp_path, tmp_path / "demos"} <= set(disk.synced)


def test_item_20_what_is_moved_is_synced_on_both_sides(tmp_path, make_episode, disk):
    (tmp_path / "episodes").mkdir()
    for name in ("a~b~000001.hdf5", "a~b~000002.hdf5"):
        (tmp_path / "episodes" / name).write_bytes(b"damaged")
    Store(tmp_path, lambda episode: None, lambda key: None).read_back()
    assert len(list((tmp_path / "damaged").iterdir())) == 2
    assert disk.whole and {tmp_path, tmp_path / "episodes", tmp_path / "damaged"} <= set(disk.synced)


def test_item_20_an_edit_s_original_is_synced_before_the_episode_is_replaced(tmp_path, make_episode, disk, monkeypatch):
    write_episode(tmp_path / "a.hdf5", make_episode(6))
    order = []
    monkeypatch.setattr(edit, "write_episode", lambda path, episode: order.append(disk.whole))
    edit.cut(tmp_path / "a.hdf5", 0, 3)
    assert order == [True] and (tmp_path / "originals/a.hdf5").exists()


def test_item_20_a_folder_that_is_moved_is_synced_with_all_in_it(tmp_path, disk):
    (tmp_path / "new/deep").mkdir(parents=True)
    (tmp_path / "new/deep/file").write_text("x")
    files.move(tmp_path / "new", tmp_path / "there")
    assert {tmp_path / "new/deep/file", tmp_path / "new/deep", tmp_path / "new", tmp_path} <= set(disk.synced)


def test_a_write_that_fails_changes_nothing(tmp_path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(ZeroDivisionError), files.written(tmp_path / "a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "before" and os.listdir(tmp_path) == ["a"]


def test_a_lock_is_held_until_its_file_is_closed_and_shared_among_those_who_only_look(tmp_path):
    def at_it(shared):
        with (tmp_path / "file").open("rb") as other:
            return not files.try_lock(other, shared)

    with (tmp_path / "file").open("wb") as file:
        assert files.try_lock(file) and at_it(shared=True) and at_it(shared=False)
    with (tmp_path / "file").open("rb") as file:
        assert files.try_lock(file, shared=True) and not at_it(shared=True) and at_it(shared=False)
    assert not at_it(shared=False)


def test_little_space_is_a_line(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage._replace(free=int(6e9)))
    assert files.low_space(tmp_path / "not" / "there") == "" and asked == [tmp_path]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(1.5e9)))
    assert files.low_space(tmp_path) == f"1.5 GB free for {tmp_path}: make room"
