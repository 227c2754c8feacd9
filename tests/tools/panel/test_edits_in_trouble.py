"""Edits of recorded episodes when something goes wrong: all of it is taken back, and nothing else is touched."""

import errno
import os

import pytest
from recorded_page import asked

from agent.data.episode_file import read_episode
from agent.spec import UserError
from tools import edit
from tools.common import edit_journal
from tools.panel.episode_edits import Edits

THREE = [f"episode_00000{number}" for number in (1, 2, 3)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.hdf5")}


def full(*arguments, **more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_during_an_edit_leaves_no_trace_of_it(folder, monkeypatch):
    before, plain = contents(folder), edit.write_episode

    def write(path, episode):
        return (full if path.stem == THREE[1] else plain)(path, episode)

    monkeypatch.setattr(edit, "write_episode", write)
    with pytest.raises(UserError, match=r"episode_000002\.hdf5: No space left"):
        Edits(folder).do(asked(folder, THREE, "failure"))
    assert contents(folder) == before
    assert not contents(folder / edit.ORIGINALS)  # the list would call them edited


def test_an_edit_whose_journal_cannot_be_ended_is_taken_back(folder, monkeypatch):
    before, plain = contents(folder), edit_journal._write

    def write(place, befores, done):
        (full if done else plain)(place, befores, done)

    monkeypatch.setattr(edit_journal, "_write", write)
    with pytest.raises(OSError, match="No space left"):
        Edits(folder).do(asked(folder, THREE, "failure"))
    assert contents(folder) == before and not contents(folder / edit.ORIGINALS)


def test_what_a_full_disk_does_not_take_back_is_named_and_the_rest_is_taken_back(folder, monkeypatch):
    edits = Edits(folder)
    edits.do(asked(folder, THREE[1:2], "cut", first=0, end=2))  # to take it back, it has to be written
    before, plain = contents(folder), edit.write_episode

    def write(path, episode):
        if path.stem == THREE[2]:
            monkeypatch.setattr(edit_journal, "also_at", full)
            full()
        plain(path, episode)

    monkeypatch.setattr(edit, "write_episode", write)
    with pytest.raises(UserError, match=r"No space left.*1 episode cannot be taken back: episode_000002\.hdf5"):
        edits.do(asked(folder, THREE, "failure"))
    after = contents(folder)
    assert {name for name in before if before[name] != after[name]} == {"episode_000002.hdf5"}
    assert read_episode(folder / "episode_000002.hdf5").meta["cut"] == [0, 2]


def test_a_number_of_an_edit_before_a_restart_takes_back_no_other(folder):
    first, _ = Edits(folder).do(asked(folder, THREE[:1], "failure"))
    edits = Edits(folder)
    edits.do(asked(folder, THREE[1:2], "failure"))
    with pytest.raises(UserError, match="cannot be taken back any more"):
        edits.do({"do": "back", "edit": first})


def test_an_episode_is_found_by_its_name_without_a_look_at_all(folder, monkeypatch):
    found = [edit.find(folder, word) for word in ("episode_000003", "episode_000003.hdf5", "3")]
    assert set(found) == {folder / "episode_000003.hdf5"}
    monkeypatch.setattr("pathlib.Path.glob", lambda *arguments: pytest.fail("looked at all"))
    assert edit.find(folder, "episode_000003") == found[0]


@pytest.mark.parametrize("word", ["../demos/episode_000003", "..", "", ".", "x\0", "\udcff", 5000 * "x", 5000 * "9"])
def test_a_name_leads_nowhere_else(folder, word):
    before = contents(folder)
    with pytest.raises((UserError, ValueError)):
        Edits(folder).do({"names": [word], "versions": [""], "do": "drop"})
    assert contents(folder) == before
