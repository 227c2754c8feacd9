"""One process drives an arm: which one is in locked files."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import stat
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from envs.real.setup import Setup
from envs.runtime import runtime_folder

NOTICE_S = 1.0  # within which a process notices that its robot server has gone
LET_GO_S = 10.0  # within which it lets the arm go when it is told to


class Claim:
    """That this process, and no other of this user, drives the arm of `setup`: locked files, let go when it ends.

    One for each device or host among its options, by whatever name: two descriptions of one arm are one arm. The files
    are in the runtime folder, which nobody else can enter. Takes the arm over from a process that was left alone with
    it. Raises ValueError when another one drives it, or when a file cannot be opened.
    """

    def __init__(self, setup: Setup) -> None:
        self._kind, self._begun_s = setup.kind, time.monotonic()
        self._files: list[TextIO] = []
        known_as = sorted(_names(setup.options))
        for name in known_as or [json.dumps([setup.kind, setup.options], sort_keys=True, default=str)]:
            self._take(name)
        self.say({"pid": os.getpid(), "alone": False})

    def _take(self, name: str) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(runtime_folder() / f"arm-{zlib.crc32(name.encode()):08x}.lock", flags, 0o600)
        except OSError as error:
            raise ValueError(f"arm '{self._kind}': no lock: {error}") from None
        file = os.fdopen(handle, "r+")
        while not _locked(file):
            holder = _read(file)
            if holder.get("alone"):
                _end(holder)
            if time.monotonic() - self._begun_s > (LET_GO_S if holder.get("alone") else NOTICE_S):
                raise ValueError(f"arm '{self._kind}': another process ({holder.get('pid', 'unknown')}) drives it")
            time.sleep(0.05)
        self._files.append(file)

    def say(self, holder: dict[str, Any]) -> None:
        """Write who holds the arm; with when its process began, since another may get its number."""
        for file in self._files:
            file.seek(0)
            file.truncate()
            file.write(json.dumps({**holder, "started": _started(os.getpid())}))
            file.flush()


def _names(options: Any) -> set[str]:
    """Of the devices and hosts in an arm's options: whatever else these say, it is the same arm."""
    if isinstance(options, Mapping):
        hosts = {f"host {options['host']}"} if isinstance(options.get("host"), str) else set()
        return hosts.union(*map(_names, options.values()))
    if isinstance(options, (list, tuple)):
        return set().union(*map(_names, options))
    return {f"device {os.path.realpath(options)}"} if isinstance(options, str) and _is_device(options) else set()


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: TextIO) -> dict[str, Any]:
    file.seek(0)
    try:
        return dict(json.loads(file.read()))
    except (ValueError, TypeError):
        return {}  # it is being written


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
