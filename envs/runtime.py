"""The folder for what running processes share on this computer: sockets, locks, and secrets of one start."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def runtime_folder() -> Path:
    """`<temporary folder>/calql-<uid>`: a folder of this user alone (mode 0700), created if it is missing.

    Not below $XDG_RUNTIME_DIR: that goes away with the last login, while a robot server goes on running.
    Raises PermissionError, with a message for people, when something else has the name: a link, another user's folder,
    or one that others may enter. Raises other OSErrors when it cannot be created.
    """
    folder = Path(tempfile.gettempdir(), f"calql-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder}: not a folder of this user alone; remove it, or set TMPDIR to another folder")
    return folder
