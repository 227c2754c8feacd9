"""Edits of recorded episodes from the page: tools.edit, of one or many, and each can be taken back, one after another.

The originals are in originals/ as after `python -m tools.edit`. For what lies between them and now, the file that an
edit replaced is kept open: it takes no name, and is gone when the page's server ends.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from agent.files import sync_folder, written
from agent.spec import UserError, plural
from tools import edit
from tools.panel.episode_version import check_seen, version_now

DEEDS = ("success", "failure", "cut", "drop", "undo")
MOST = 100  # edits that can be taken back
MOST_EPISODES = 300  # of all of these together: each may hold a file open

Versions = dict[str, tuple[str, str]]  # file's name -> its version before and after an edit
State = tuple[int, int] | None


@dataclass
class Before:
    """What an episode was before an edit. file: its content, None where it was dropped, or its original has it then.
    original: whether there was one. state: of its file then (see _state); after: what the edit left.
    """

    path: Path
    file: IO[bytes] | None
    original: bool
    state: State
    after: State = None


class Edits:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1 + secrets.randbelow(1 << 50))  # none that a page has of a server before
        self._before: dict[int, list[Before]] = {}

    def do(self, asked: object) -> tuple[int, Versions]:
        """{"names", "versions": that were seen of them, "do": of DEEDS, "first", "end": of a cut}, or {"do": "back",
        "edit": number}: takes that edit back.

        Returns the edit's number and the versions of each file. All of the episodes are edited or, with a UserError,
        none: also where one of them is not as it was seen any more.
        """
        if isinstance(asked, dict) and asked.get("do") == "back":
            return self._back(asked.get("edit"))
        names, versions = _texts(asked, "names"), _texts(asked, "versions")
        if not isinstance(asked, dict) or asked.get("do") not in DEEDS or not names:
            raise UserError("a list of names, and one of " + ", ".join(DEEDS))
        if len(versions) != len(names):
            raise UserError("an edit says which versions of the episodes it is for: reload the page")
        ends = [asked.get(end) for end in ("first", "end")]
        if asked["do"] == "cut" and not (len(names) == 1 and all(type(end) is int for end in ends)):
            raise UserError("a cut has one episode and two numbers")
        if len(names) > MOST_EPISODES:
            raise UserError(f"{plural(len(names), 'episode')} in one edit: {MOST_EPISODES} at most")
        with edit.claimed(self._folder):
            paths = [edit.find(self._folder, name) for name in names]
            check_seen(paths, versions)
            return self._all([(path, partial(_edit, path, asked)) for path in dict.fromkeys(paths)])

    def _back(self, number: Any) -> tuple[int, Versions]:
        befores = self._before.get(number) if type(number) is int else None
        if befores is None:
            raise UserError("this edit cannot be taken back any more; Original restores what was recorded")
        with edit.claimed(self._folder):
            for before in befores:
                with edit.named(before.path):
                    if _state(before.path) != before.after:
                        name = before.path.name
                        raise UserError(f"{name}: has been changed since by somebody else; it stays as it is")
            done = self._all([(before.path, partial(_restore, before)) for before in befores])
        self._before.pop(number, None)
        _close(befores)
        for each in itertools.chain.from_iterable(self._before.values()):
            for before in befores:  # the same content is in another file now
                if each.path == before.path and each.after == before.state:
                    each.after = _state(each.path)
        return done

    def _all(self, work: Sequence[tuple[Path, Callable[[], None]]]) -> tuple[int, Versions]:
        """Do `work`, each on its file, as one edit. When a part of it fails, the parts before it are taken back."""
        done: list[Before] = []
        seen = {path: version_now(path) for path, _ in work}
        try:
            for path, act in work:
                done.append(_now(path))
                act()
        except BaseException as error:
            changed = [before.path.name for before in reversed(done) if not _taken_back(before)]
            _close(done)
            if changed and isinstance(error, UserError):
                listed = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
                raise UserError(f"{error}; {plural(len(changed), 'episode')} cannot be taken back: {listed}") from None
            raise
        for before in done:
            before.after = _state(before.path)
        self._before[number := next(self._numbers)] = done
        while len(self._before) > MOST or sum(map(len, self._before.values())) > MOST_EPISODES:
            _close(self._before.pop(next(iter(self._before))))
        return number, {path.name: (before, version_now(path)) for path, before in seen.items()}

    def close(self) -> None:
        for befores in self._before.values():
            _close(befores)
        self._before.clear()


def _texts(asked: object, key: str) -> list[str]:
    """Those that it has there; [] where it has no such list."""
    texts = asked.get(key) if isinstance(asked, dict) else None
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else []


def _edit(path: Path, asked: dict[str, Any]) -> None:
    deed = asked["do"]
    if deed == "cut":
        edit.cut(path, asked["first"], asked["end"])
    elif deed == "drop":
        edit.drop(path)
    elif deed == "undo":
        edit.undo(path)
    else:
        edit.mark(path, deed)


def _now(path: Path) -> Before:
    with edit.named(path):
        original = (path.parent / edit.ORIGINALS / path.name).exists()
        file = path.open("rb") if original and path.exists() else None
        return Before(path, file, original, _state(path))


def _taken_back(before: Before) -> bool:
    """Whether it is now what it was before an edit that failed."""
    original = before.path.parent / edit.ORIGINALS / before.path.name
    try:
        if _state(before.path) != before.state or original.exists() != before.original:
            _restore(before)
    except (OSError, UserError):  # of a full disk: the others may be restored all the same
        return False
    return True


def _restore(before: Before) -> None:
    path = before.path
    if not before.original:  # the first edit: it was what was recorded
        edit.undo(path)
        return
    if path.exists():
        edit.keep_original(path)
    if before.file is None:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    else:
        before.file.seek(0)
        with written(path) as file:
            shutil.copyfileobj(before.file, file)


def _close(befores: Sequence[Before]) -> None:
    for before in befores:
        if before.file:
            before.file.close()


def _state(path: Path) -> State:
    """What tells one state of the file from another."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None
