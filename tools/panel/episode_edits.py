"""Edits of recorded episodes from the page: tools.edit, of one or many, and each can be taken back, one after another.

The originals are in originals/ as after `python -m tools.edit`. What lies between them and now is in the journal of the
edits (tools.common.edit_journal), and gone when the page's server ends; after one that was killed it is still there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.spec import UserError, plural
from tools import edit
from tools.common.edit_journal import Journal, state_at
from tools.common.originals import named, undo
from tools.panel.episode_version import check_seen, version_now

DEEDS = ("success", "failure", "cut", "drop", "undo")
MOST = 100  # edits that can be taken back
MOST_EPISODES = 300  # of all of these together: each may keep a file

Versions = dict[str, tuple[str, str]]  # file's name -> its version before and after an edit


class Edits:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal: Journal | None = None

    def recover(self) -> list[str]:
        """Take back what was interrupted. A line about each. Raises UserError."""
        with self._claimed() as (lines, _):
            return lines

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[tuple[list[str], Journal]]:
        with edit.claimed(self._folder) as lines:
            if self._journal and self._journal.purged:
                self._journal.close()
                self._journal = None
            self._journal = self._journal or Journal(self._folder)
            yield lines, self._journal

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
        with self._claimed() as (_, journal):
            paths = [edit.find(self._folder, name) for name in names]
            check_seen(paths, versions)
            return self._all(journal, [(path, partial(_edit, path, asked)) for path in dict.fromkeys(paths)])

    def _back(self, number: Any) -> tuple[int, Versions]:
        with self._claimed() as (_, journal):
            befores = journal.edits.get(number) if type(number) is int else None
            if befores is None:
                raise UserError("this edit cannot be taken back any more; Original restores what was recorded")
            paths = [self._folder / before.name for before in befores]
            for path, before in zip(paths, befores, strict=True):
                with named(path):
                    if state_at(path) != before.after:
                        raise UserError(f"{path.name}: has been changed since by somebody else; it stays as it is")
            acts = [partial(journal.restore, number, before) for before in befores]
            done = self._all(journal, list(zip(paths, acts, strict=True)))
            journal.state_again(befores)
            if number in journal.edits:
                journal.forget(number)
        return done

    def _all(self, journal: Journal, work: Sequence[tuple[Path, Callable[[], None]]]) -> tuple[int, Versions]:
        """Do `work`, each on its file, as one edit. When a part of it fails, the parts before it are taken back."""
        seen = {path: version_now(path) for path, _ in work}
        number = journal.begin(list(seen))
        try:
            for path, act in work:
                with named(path):
                    act()
            journal.finish(number)
        except BaseException as error:
            left = journal.give_up(number)
            if left and isinstance(error, UserError):
                listed = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
                raise UserError(f"{error}; {plural(len(left), 'episode')} cannot be taken back: {listed}") from None
            raise
        while len(journal.edits) > MOST or sum(map(len, journal.edits.values())) > MOST_EPISODES:
            journal.forget(next(iter(journal.edits)))
        return number, {path.name: (before, version_now(path)) for path, before in seen.items()}

    def close(self) -> None:
        """The page's server ends: nothing can be taken back any more."""
        if self._journal:
            self._journal.close()


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
        undo(path)
    else:
        edit.mark(path, deed)
