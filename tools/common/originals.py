"""What was recorded of episodes that have been edited: in originals/ of their folder, where nothing else looks."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.files import make_folder, move, sync_folder, written
from agent.spec import UserError

ORIGINALS = "originals"
State = tuple[int, ...]  # of a file; another one after each change


def original_of(path: Path) -> Path:
    """Where the original of the episode `path` is, if it has one."""
    return path.parent / ORIGINALS / path.name


def state_of(found: os.stat_result) -> State:
    """What tells one state of a file from another: also within one tick of the file system's clock."""
    return (found.st_mtime_ns, found.st_size, found.st_ino)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """What the file system refuses becomes a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def also_at(place: Path, path: Path) -> None:
    """Let the file `path` be at `place`, too, whatever takes its own place. The folder of `place` is not synced."""
    try:
        os.link(path, place)
    except OSError:  # a file system without links
        with written(place) as file, path.open("rb") as whole:
            shutil.copyfileobj(whole, file)


def keep_original(path: Path) -> None:
    """The first one stays."""
    original = original_of(path)
    make_folder(original.parent)
    if not original.exists():
        also_at(original, path)
        sync_folder(original.parent)


def undo(path: Path) -> None:
    """Back to what was recorded. Raises UserError."""
    original = original_of(path)
    if not original.exists():
        raise UserError(f"{path}: has not been edited, or was purged")
    with named(path):
        if path.exists() and path.samefile(original):  # an edit that was interrupted
            original.unlink()
        else:
            move(original, path)
