"""Edits of recorded episodes from the page: tools.edit, and each of them can be taken back, one after another.

The originals are in originals/ as after `python -m tools.edit`. For what lies between them and now, the file that an
edit replaced is kept open: it takes no name, and is gone when the page's server ends.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent.files import sync_folder, written
from agent.spec import UserError
from tools import edit

DEEDS = ("success", "failure", "cut", "drop", "undo")
MOST = 100  # edits that can be taken back; each holds a file open


State = tuple[int, int] | None


@dataclass
class Before:
    """What an episode was before an edit. file: its content, None where it was dropped. original: whether there was
    one. state: of its file then (see _state); after: what the edit left.
    """

    path: Path
    file: IO[bytes] | None
    original: bool
    state: State
    after: State = None


class Edits:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._before: dict[int, Before] = {}

    def do(self, asked: object) -> tuple[int, str]:
        """{"name", "do": of DEEDS, "first", "end": of a cut}, or {"do": "back", "edit": number}: takes that edit back.

        Returns the edit's number and the file's name. Raises UserError, and has changed nothing then.
        """
        if isinstance(asked, dict) and asked.get("do") == "back":
            return self._back(asked.get("edit"))
        if not isinstance(asked, dict) or asked.get("do") not in DEEDS or not isinstance(asked.get("name"), str):
            raise UserError("a name, and one of " + ", ".join(DEEDS))
        with edit.claimed(self._folder):
            path, deed = edit.find(self._folder, asked["name"]), asked["do"]
            before = self._now(path)
            try:
                if deed == "cut":
                    if not all(type(asked.get(end)) is int for end in ("first", "end")):
                        raise UserError("a cut has two numbers")
                    edit.cut(path, asked["first"], asked["end"])
                elif deed == "drop":
                    edit.drop(path)
                elif deed == "undo":
                    edit.undo(path)
                else:
                    edit.mark(path, deed)
            except BaseException:
                _close(before)
                raise
            return self._keep(before), path.name

    def _back(self, number: Any) -> tuple[int, str]:
        before = self._before.get(number) if type(number) is int else None
        if before is None:
            raise UserError("this edit cannot be taken back any more; Original restores what was recorded")
        path = before.path
        with edit.claimed(self._folder), edit.named(path):
            if _state(path) != before.after:
                raise UserError(f"{path.name}: has been changed since by somebody else; it stays as it is")
            now = self._now(path)
            try:
                self._restore(before)
            except BaseException:
                _close(now)
                raise
        _close(self._before.pop(number))
        for each in self._before.values():  # the same content is in another file now
            if each.path == path and each.after == before.state:
                each.after = _state(path)
        return self._keep(now), path.name

    def _restore(self, before: Before) -> None:
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

    def _now(self, path: Path) -> Before:
        with edit.named(path):
            file = path.open("rb") if path.exists() else None
            return Before(path, file, (path.parent / edit.ORIGINALS / path.name).exists(), _state(path))

    def _keep(self, before: Before) -> int:
        before.after, number = _state(before.path), next(self._numbers)
        self._before[number] = before
        while len(self._before) > MOST:
            _close(self._before.pop(next(iter(self._before))))
        return number

    def close(self) -> None:
        for before in self._before.values():
            _close(before)
        self._before.clear()


def _close(before: Before) -> None:
    if before.file:
        before.file.close()


def _state(path: Path) -> State:
    """What tells one state of the file from another."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None
