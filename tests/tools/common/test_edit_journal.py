"""The journal of edits: damaged, of another folder, from anybody, and whose process was killed at any line."""

import errno
import json
import os
import shutil

import pytest

from agent.spec import UserError
from tools import edit
from tools.common import edit_journal
from tools.common.edit_journal import JOURNAL, Journal, left_over, take_back_interrupted
from tools.common.originals import keep_original

NAMES = ["episode_000000.hdf5", "episode_000001.hdf5"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "demos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"recorded {name}")
    return folder


def change(path, text):
    keep_original(path)
    aside = path.with_suffix(".new")
    aside.write_text(text)
    os.replace(aside, path)


def interrupted(folder, done=()):
    """An edit of both episodes, whose process ends when it has made those of `done`."""
    journal = Journal(folder)
    journal.begin([folder / name for name in NAMES])
    for name in done:
        change(folder / name, "edited")
    os.close(journal._lock)
    return next(journal._place.iterdir())


def everything(place):
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


NOT_THERE = ["../mine.hdf5", "ABSOLUTE", "", ".", "..", ".x.hdf5", "x\0.hdf5", "a/b.hdf5", 5, None]


@pytest.mark.parametrize("name", NOT_THERE)
@pytest.mark.parametrize("kept", [False, True])
def test_a_journal_from_anybody_reaches_nothing_outside_of_its_folder(folder, tmp_path, name, kept):
    mine = tmp_path / "mine.hdf5"
    mine.write_text("mine")
    place = interrupted(folder)
    told = json.loads((place / JOURNAL).read_text())
    told["episodes"][0] |= {"name": str(mine) if name == "ABSOLUTE" else name, "original": True, "kept": kept}
    (place / JOURNAL).write_text(json.dumps(told))
    (place.parent / mine.name).write_text("theirs")
    before = everything(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=f"{JOURNAL}: damaged.*; remove "), edit.claimed(folder):
            pass
    assert everything(tmp_path) == before
    shutil.rmtree(place)  # as it says
    with edit.claimed(folder) as lines:
        assert lines == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"done": false, "episodes": [{}]}', 100_000 * "["])
def test_a_damaged_journal_is_named_with_what_to_do(folder, text):
    (interrupted(folder) / JOURNAL).write_text(text)
    with pytest.raises(UserError, match=f"{JOURNAL}: damaged.*; remove "):
        take_back_interrupted(folder)


@pytest.mark.parametrize("linked", ["session", "edit"])
def test_a_link_among_the_journals_leads_nowhere_else(folder, tmp_path, linked):
    place = interrupted(folder)
    what = place.parent if linked == "session" else place
    there = shutil.move(what, tmp_path / what.name)
    what.symlink_to(there)
    before = everything(tmp_path)
    assert take_back_interrupted(folder) == [] and everything(tmp_path) == before
    edit.purge(folder)
    assert os.path.isdir(there)


def test_what_a_full_disk_stopped_is_taken_back_later_where_there_are_no_links(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    change(folder / NAMES[0], "an edit before")
    before = {name: (folder / name).read_bytes() for name in NAMES}
    interrupted(folder, NAMES)
    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"{NAMES[0]} cannot be taken back: No space"):
        patch.setattr(edit_journal, "also_at", full)
        take_back_interrupted(folder)
    assert (folder / NAMES[0]).read_text() == "edited"
    assert take_back_interrupted(folder)[0].endswith("and has been taken back")
    assert {name: (folder / name).read_bytes() for name in NAMES} == before


def test_in_a_copy_of_the_folder_an_interrupted_edit_is_taken_back_all_the_same(folder, tmp_path):
    before = {name: (folder / name).read_bytes() for name in NAMES}
    interrupted(folder, NAMES[:1])
    copy = shutil.copytree(folder, tmp_path / "copy")  # other inodes
    said = "an edit of 2 episodes was interrupted after 1 of them, and has been taken back"
    assert take_back_interrupted(copy) == [said]
    assert {name: (copy / name).read_bytes() for name in NAMES} == before
    assert take_back_interrupted(copy) == []


def test_what_is_kept_no_more_does_not_keep_the_others_from_being_edited(folder):
    change(folder / NAMES[0], "an edit before")
    place = interrupted(folder, NAMES)
    (place / NAMES[0]).unlink()
    said = f"interrupted after 2 of them, and has been taken back, but for {NAMES[0]}"
    assert take_back_interrupted(folder)[0].endswith(said)
    assert [(folder / name).read_text() for name in NAMES] == ["edited", f"recorded {NAMES[1]}"]


def test_of_an_edit_that_goes_the_journal_goes_first(folder, monkeypatch):
    """Else a process that is killed meanwhile leaves a journal that takes back what was edited since."""
    change(folder / NAMES[0], "an edit before")
    seen, synced, sync = [], [], edit_journal.sync_folder
    monkeypatch.setattr(edit_journal, "sync_folder", lambda place: (synced.append(place), sync(place)))
    monkeypatch.setattr(edit_journal, "remove", lambda place: seen.append((place, sorted(os.listdir(place)))))
    journal = Journal(folder)
    number = journal.begin([folder / name for name in NAMES])
    change(folder / NAMES[1], "edited")
    assert journal.give_up(number) == []
    ((place, left),) = seen
    assert left == NAMES[:1] and synced[-1] == place
    change(folder / NAMES[1], "edited since")
    os.close(journal._lock)
    assert take_back_interrupted(folder) == [] and (folder / NAMES[1]).read_text() == "edited since"


def test_a_session_is_locked_though_another_process_looks_at_it(folder, monkeypatch):
    handles, plain = [], edit_journal.try_lock

    def held_once(handle):
        if not handles:
            handles.append(handle)
            return False
        return plain(handle)

    monkeypatch.setattr(edit_journal, "try_lock", held_once)
    journal = Journal(folder)
    journal.begin([folder / NAMES[0]])
    assert handles and not left_over(folder) and take_back_interrupted(folder) == []
    journal.close()


@pytest.mark.parametrize("later_first", [False, True])
def test_of_edits_that_are_adopted_the_oldest_is_the_first(folder, later_first):
    """The first ones are forgotten first."""
    sessions = sorted((Journal(folder), Journal(folder)), key=lambda journal: journal._place.name, reverse=later_first)
    numbers = []
    for second, journal in enumerate(sessions):
        numbers.append(journal.begin([folder / NAMES[second]]))
        change(folder / NAMES[second], "edited")
        journal.finish(numbers[-1])
        os.utime(journal._place / str(numbers[-1]) / JOURNAL, (second, second))
    for journal in sessions:
        os.close(journal._lock)
    journal = Journal(folder)
    assert list(journal.edits) == numbers
    journal.close()
