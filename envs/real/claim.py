"""One process drives an arm: which one is in a locked file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any

from envs.real.guard import Setup
from envs.runtime import runtime_folder

NOTICE_S = 1.0  # within which a process notices that its robot server has gone
LET_GO_S = 10.0  # within which it lets the arm go when it is told to


class Claim:
    """That this process, and no other of this user, drives the arm of `setup`: a locked file, let go when it ends.

    The file is in the runtime folder, which nobody else can enter. Takes the arm over from a process that was left
    alone with it. Raises ValueError when another one drives it, or when the file cannot be opened.
    """

    def __init__(self, setup: Setup) -> None:
        which = zlib.crc32(json.dumps([setup.kind, setup.options], sort_keys=True, default=str).encode())
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(runtime_folder() / f"arm-{which:08x}.lock", flags, 0o600)
        except OSError as error:
            raise ValueError(f"arm '{setup.kind}': no lock: {error}") from None
        self._file = os.fdopen(handle, "r+")
        begun_s = time.monotonic()
        while not self._locked():
            holder = self._read()
            if holder.get("alone"):
                _end(holder)
            if time.monotonic() - begun_s > (LET_GO_S if holder.get("alone") else NOTICE_S):
                raise ValueError(f"arm '{setup.kind}': another process ({holder.get('pid', 'unknown')}) drives it")
            time.sleep(0.05)
        self.say({"pid": os.getpid(), "alone": False})

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self) -> dict[str, Any]:
        self._file.seek(0)
        try:
            return dict(json.loads(self._file.read()))
        except (ValueError, TypeError):
            return {}  # it is being written

    def say(self, holder: dict[str, Any]) -> None:
        """Write who holds the arm; with when its process began, since another may get its number."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps({**holder, "started": _started(os.getpid())}))
        self._file.flush()


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _end(holder: dict[str, Any]) -> None:
    """SIGTERM to the process that wrote `holder`, and to no other that has its number now."""
    pid, started = holder.get("pid"), holder.get("started")
    if isinstance(pid, int) and pid > 1 and started and _started(pid) == started:
        with contextlib.suppress(OSError):  # it has just ended
            os.kill(pid, signal.SIGTERM)
