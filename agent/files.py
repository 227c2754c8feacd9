"""Files that appear whole or not at all, that are still there after a power cut, and that one process holds alone.

Promised: what `appearing`, `written`, `make_folder` and `move` have returned from is on the disk, with every folder
that it lies in. Episodes, checkpoints, classifiers, videos and conversions are made with them; a run's log.jsonl and
the journal of a running episode outlive their process at any moment, but a power cut may cost their last lines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

LEAST_FREE = 5e9  # bytes: hours of two cameras at 10 Hz
UNSYNCABLE = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP}  # a folder of others, or of a strange file system


@contextlib.contextmanager
def appearing(path: str | Path) -> Iterator[Path]:
    """Yields a name beside `path` for a file or folder that takes its place, synced, at the end.

    After an exception nothing has changed. Missing folders are made. An existing file is replaced. A full disk is an
    OSError.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    make_folder(path.parent)
    try:
        yield aside
        move(aside, path)
    finally:
        with contextlib.suppress(OSError):
            remove(aside)


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[io.BufferedRandom]:
    """Yields a file that takes the place of `path` at the end; see appearing."""
    with appearing(path) as aside, open(aside, "w+b") as file:
        yield file


def remove(path: Path) -> None:
    """Delete a file, or a folder with everything in it; neither need be there. Raises OSError."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(folder: str | Path) -> list[Path]:
    """Create `folder` and its missing parents, and sync the folder that each of them is in. Raises OSError.

    Returns those that were missing, the innermost first.
    """
    folder = Path(folder)
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        sync_folder(made.parent)
    return missing


def existing(folder: str | Path) -> Path:
    """`folder`, or the nearest one above it that is there: where it would be created."""
    folder = Path(folder).absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def low_space(folder: str | Path) -> str:
    """How little space is left where `folder` is, or would be; empty when there is enough. Raises OSError."""
    free = shutil.disk_usage(existing(folder)).free
    return f"{free / 1e9:.1f} GB free for {folder}: make room" if free < LEAST_FREE else ""


def check_writable(folder: str | Path) -> None:
    """Raise OSError unless files can be written to `folder`, or to where it would be created. Creates nothing."""
    folder = Path(folder).absolute()
    if any(place.exists() and not place.is_dir() for place in (folder, *folder.parents)):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    with tempfile.TemporaryFile(dir=existing(folder)):
        pass


def move(path: str | Path, target: str | Path) -> None:
    """Rename a file or folder, which need not have been synced; a file that is there is replaced. Raises OSError."""
    path, target = Path(path), Path(target)
    make_folder(target.parent)
    sync(path)
    os.replace(path, target)
    for folder in {path.parent, target.parent}:
        sync_folder(folder)


def sync(path: str | Path) -> None:
    """A file, or a folder with everything in it."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return
    for inner in path.iterdir():
        if not inner.is_symlink():
            sync(inner)
    sync_folder(path)


def sync_folder(folder: str | Path) -> None:
    """What is in it by name: after this a new, renamed or removed file stays so."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            raise
    finally:
        os.close(handle)


def try_lock(file: int | IO[Any], shared: bool = False) -> bool:
    """Lock an open file or folder; False when another process has it. The lock ends with the file's closing, or death.

    The log, the journal, the folder or the key itself is locked: no lock file lies beside it, and others can look
    (shared) whether it is in use. The filelock package can do neither.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may ask for; returns how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
