"""The running episode on the robot's disk: each step as it was packed, so that a killed robot server loses none.

A file of records, appended as the steps are made and never synced: it outlives its process at any moment, not a power
cut (ended episodes do). Whoever writes one holds a lock on it, so that a robot server leaves those of others alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.files import try_lock

SUFFIX = ".journal"
RECORD = struct.Struct("<4sIQI")  # mark, length of the body, its checksum, frames in it; then each frame's length; body
MARK = b"step"


class Journal:
    """Creates `path`. Raises OSError, also from `append`; what was appended before that can still be read."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if not try_lock(self._file):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))

    def append(self, frames: Sequence[bytes]) -> None:
        lengths = struct.pack(f"<{len(frames)}I", *map(len, frames))
        size = sum(map(len, frames))
        head = RECORD.pack(MARK, size, _checksum(lengths, *frames), len(frames))
        written = os.writev(self._file, [head, lengths, *frames])
        if written < RECORD.size + len(lengths) + size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self, remove: bool) -> None:
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        os.close(self._file)


def _checksum(*pieces: bytes) -> int:
    """The sum of 64-bit words, and a CRC of what is left over: four times as fast as a CRC of everything."""
    total = 0
    for piece in pieces:
        words = len(piece) // 8
        total += int(np.frombuffer(piece, "<u8", words).sum()) + zlib.crc32(piece[8 * words :])
    return total % 2**64


def abandoned(folder: Path) -> list[Path]:
    """The journals in `folder` whose writers are no more."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if try_lock(file):
                found.append(path)
    return found


def read(path: Path) -> list[list[bytes]]:
    """The records of a journal, up to the first that is torn or damaged."""
    data, place, records = path.read_bytes(), 0, []
    while len(data) - place >= RECORD.size:
        mark, size, checksum, count = RECORD.unpack_from(data, place)
        begin = place + RECORD.size + 4 * count
        if mark != MARK or count > 10_000 or begin + size > len(data):
            break
        lengths = struct.unpack_from(f"<{count}I", data, place + RECORD.size)
        if sum(lengths) != size:
            break
        frames = []
        for length in lengths:
            frames.append(data[begin : begin + length])
            begin += length
        if _checksum(data[place + RECORD.size : place + RECORD.size + 4 * count], *frames) != checksum:
            break
        records.append(frames)
        place = begin
    return records
