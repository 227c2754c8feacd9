"""Edits of several episodes at once, each whole or not at all, and what there was before them: on the disk.

ORIGINALS/.edits-<session>/<number>/ is of one edit: journal.json, written before the edit and again after it, and each
file that the edit replaces, where that is not the original itself. A session is one process's, which holds its folder
locked. Of a process that was killed, `take_back_interrupted` takes back the edit that it was at, and the next session
adopts the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.data.episode_file import SUFFIX
from agent.files import make_folder, remove, sync_folder, try_lock, written
from agent.spec import UserError, plural
from tools.common.originals import ORIGINALS, State, also_at, keep_original, named, original_of, state_of, undo

SESSION, JOURNAL = ".edits-", "journal.json"

log = logging.getLogger(__name__)


@dataclass
class Before:
    """What an episode was before an edit. original: whether there was one. kept: whether its file then is in the
    journal; without one it was dropped, or is the original. state: of the file then; after: of what the edit left.
    """

    name: str
    original: bool
    kept: bool
    state: State | None
    after: State | None = None


class Journal:
    """One session in `folder`, a folder of episodes that is claimed while anything here is called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder / ORIGINALS / f"{SESSION}{secrets.token_hex(8)}"
        self._lock = -1
        self._numbers = itertools.count(1 + secrets.randbelow(1 << 50))  # none that a page has of another session
        self.edits: dict[int, list[Before]] = {}  # that can be taken back, the oldest first
        self._adopt()

    @property
    def purged(self) -> bool:
        """Somebody has removed it."""
        return self._lock >= 0 and not self._place.is_dir()

    def begin(self, paths: Sequence[Path]) -> int:
        """Keep what `paths` are now; the number of the edit that follows. Raises UserError, and keeps nothing."""
        number = next(self._numbers)
        place, befores = self._place / str(number), []
        try:
            with named(place):
                self._open()
                make_folder(place)
                for path in paths:
                    original, there = original_of(path).exists(), path.exists()
                    befores.append(Before(path.name, original, original and there, state_at(path)))
                    if original and there:
                        also_at(place / path.name, path)
                _write(place, befores, done=False)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(place)
            raise
        self.edits[number] = befores
        return number

    def finish(self, number: int) -> None:
        """The edit is done."""
        for before in self.edits[number]:
            before.after = state_at(self._folder / before.name)
        _write(self._place / str(number), self.edits[number], done=True)

    def give_up(self, number: int) -> list[str]:
        """Take back an edit that failed, as far as it was made. Returns the names of what cannot be taken back."""
        place, befores = self._place / str(number), self.edits[number]
        left = [before.name for before in reversed(befores) if _take_back(self._folder, place, before)[1]]
        self.forget(number)
        return left

    def restore(self, number: int, before: Before) -> None:
        """Make the episode what it was before the edit. Raises UserError and OSError."""
        _restore(self._folder, self._place / str(number), before)

    def forget(self, number: int) -> None:
        del self.edits[number]
        with contextlib.suppress(OSError):
            _discard(self._place / str(number))

    def state_again(self, befores: Sequence[Before]) -> None:
        """These have been restored: where the same content is in another file now, earlier edits left that."""
        states = {(before.name, before.state): state_at(self._folder / before.name) for before in befores}
        moved = {key: now for key, now in states.items() if key[1] != now}
        for number, edit in self.edits.items():
            if found := [before for before in edit if (before.name, before.after) in moved]:
                for before in found:
                    before.after = moved[before.name, before.after]
                _write(self._place / str(number), edit, done=True)

    def close(self) -> None:
        """Nothing can be taken back any more."""
        self.edits.clear()
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                remove(self._place)
            os.close(self._lock)
            self._lock = -1
        with contextlib.suppress(OSError):  # not empty, or never made
            (self._folder / ORIGINALS).rmdir()

    def _open(self) -> None:
        if self._lock >= 0:
            return
        make_folder(self._place)
        self._lock = os.open(self._place, os.O_RDONLY)
        while not try_lock(self._lock):  # another page's server just looks whether somebody has it
            time.sleep(0.001)

    def _adopt(self) -> None:
        """Take over the edits of sessions whose process has ended."""
        with contextlib.suppress(OSError):
            found = [(place, number) for session in _ended(self._folder) for place, number in _edits(session)]
            for place, number in sorted(found, key=lambda each: (each[0] / JOURNAL).stat().st_mtime_ns):
                befores, _ = _read(place)
                self._open()
                os.rename(place, self._place / str(number))
                self.edits[number] = befores
            for session in _ended(self._folder):
                remove(session)


def take_back_interrupted(folder: Path) -> list[str]:
    """Take back the edits in `folder`, which is claimed, whose process was killed. A line about each.

    Raises UserError where the disk does not let it be; it can be tried again.
    """
    lines = []
    for session in _ended(folder):
        for place, _ in _edits(session):
            befores, done = _read(place)
            if done:
                continue
            outcomes = [(before.name, *_take_back(folder, place, before)) for before in reversed(befores)]
            changed = [name for name, was_changed, _ in outcomes if was_changed]
            refused = [(name, error) for name, _, error in outcomes if error]
            what = f"an edit of {plural(len(befores), 'episode')} was interrupted after {len(changed)} of them"
            for name, error in refused:
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):  # that stays so
                    raise UserError(f"{folder}: {what}; {name} cannot be taken back: {error.strerror or error}")
            for name in {before.name for before in befores}:
                for part in folder.glob(f".{glob.escape(name)}.*.part"):
                    part.unlink(missing_ok=True)  # that the process was writing
            lost = f", but for {', '.join(name for name, _ in refused)}" if refused else ""
            lines.append(f"{what}, and has been taken back{lost}")
            log.warning("%s: %s", folder, lines[-1])
            _discard(place)
    return lines


def forget_all(folder: Path) -> None:
    """What there was before each edit goes, of all sessions. Raises OSError."""
    for session in _sessions(folder):
        remove(session)


def state_at(path: Path) -> State | None:
    """Of the file `path`; None where it is not there."""
    return state_of(path.stat()) if path.exists() else None


def left_over(folder: Path) -> bool:
    """Whether a process that was killed has left something there: edits, or one that it was at."""
    return any(True for _ in _ended(folder))


def _take_back(folder: Path, place: Path, before: Before) -> tuple[bool, OSError | UserError | None]:
    """Whether the edit had changed the episode, and why it cannot be made what it was."""
    path = folder / before.name
    changed = False
    try:
        if path.exists() and not before.original and not original_of(path).exists():
            return False, None  # not reached: its original is kept first; the states differ in a copy of the folder
        changed = state_at(path) != before.state
        if changed or original_of(path).exists() != before.original:
            _restore(folder, place, before)
    except (OSError, UserError) as error:  # of a full disk: the others may be restored all the same
        return changed, error
    return changed, None


def _restore(folder: Path, place: Path, before: Before) -> None:
    path = folder / before.name
    if not before.original:  # the first edit: it was what was recorded
        undo(path)
        return
    if path.exists():
        keep_original(path)
    if not before.kept:
        path.unlink(missing_ok=True)
        sync_folder(folder)
    elif not (path.exists() and path.samefile(place / before.name)):
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            also_at(aside, place / before.name)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(folder)


def _sessions(folder: Path) -> list[Path]:
    found = (folder / ORIGINALS).glob(f"{SESSION}*")
    return sorted(session for session in found if session.is_dir() and not session.is_symlink())


def _ended(folder: Path) -> Iterator[Path]:
    """Sessions whose process has ended, each locked until the next one is asked for."""
    for session in _sessions(folder):
        with contextlib.suppress(OSError):
            handle = os.open(session, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if try_lock(handle):
                    yield session
            finally:
                os.close(handle)


def _edits(session: Path) -> Iterator[tuple[Path, int]]:
    """Place and number of each edit whose journal was written; what has none had not begun."""
    for place in sorted(session.iterdir()):
        if place.name.isdecimal() and not place.is_symlink() and (place / JOURNAL).is_file():
            yield place, int(place.name)


def _discard(place: Path) -> None:
    """The journal goes first, for good: half of an edit's folder, or one from before a power cut, restores nothing."""
    (place / JOURNAL).unlink(missing_ok=True)
    sync_folder(place)
    remove(place)


def _write(place: Path, befores: Sequence[Before], done: bool) -> None:
    told = {"done": done, "episodes": [dataclasses.asdict(before) for before in befores]}
    with named(place / JOURNAL), written(place / JOURNAL) as file:
        file.write(json.dumps(told).encode())


def _read(place: Path) -> tuple[list[Before], bool]:
    """The episodes of an edit, and whether it was done. Raises UserError."""
    try:
        told = json.loads((place / JOURNAL).read_bytes())
        befores = [Before(**each) for each in told["episodes"]]
        for before in befores:
            before.state, before.after = (tuple(each) if each else None for each in (before.state, before.after))
            if not _names_an_episode(before.name):
                raise ValueError
        return befores, bool(told["done"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{place / JOURNAL}: damaged, so nobody knows what was edited; remove {place}") from None


def _names_an_episode(name: object) -> bool:
    """A folder may come from anybody: its journals reach nothing outside of it."""
    return isinstance(name, str) and name.endswith(SUFFIX) and name[0] != "." and not {"/", "\0"} & set(name)
