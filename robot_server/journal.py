"""The running episode on the robot's disk: each step as it was packed, so that a killed robot server loses none.

A file of records, written as the steps are made and never synced: it outlives its process at any moment, not a power
cut (ended episodes do). Whoever writes one holds a lock on it, so that a robot server leaves those of others alone.

The file of an episode that needs no journal any more is written again from its beginning for a later one: that takes a
fifth of the time that it takes to grow a file. What is left in it of the earlier episode lies behind the newest record,
and has another life in its heads. After a power cut the new name may be there and nothing of the new content: the
spool then finds steps of another episode than the file's name says (robot_server.spool).
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
SPARE_BYTES = 64 << 20  # of the files that wait for their next episode
# Of a record: start, length of the body, its checksum, frames in it. Each frame's length and the body follow.
RECORD = struct.Struct("<12sIQI")
MARK = b"steq"  # the first bytes of a start; then eight random ones, the life: the same in all records of one episode
OLD_MARK = b"step"  # earlier releases: the whole start
OLD_RECORD = struct.Struct("<4sIQI")


class Journal:
    """Creates `path`. Raises OSError, also from `append`; what was appended before that can still be read."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        self._start = MARK + os.urandom(8)
        if not try_lock(self._file):
            os.close(self._file)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))

    def append(self, frames: Sequence[bytes]) -> None:
        lengths = struct.pack(f"<{len(frames)}I", *map(len, frames))
        size = sum(map(len, frames))
        head = RECORD.pack(self._start, size, _checksum(lengths, *frames), len(frames))
        written = os.writev(self._file, [head, lengths, *frames])
        if written < RECORD.size + len(lengths) + size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self, remove: bool) -> None:
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        os.close(self._file)

    def empty(self, path: Path, most_bytes: int) -> int:
        """Make it one without records, named `path`; returns the bytes of its file, cut down to `most_bytes`."""
        os.pwrite(self._file, bytes(RECORD.size), 0)  # first: no reader may take it for the next episode's
        os.lseek(self._file, 0, os.SEEK_SET)
        self._start = MARK + os.urandom(8)
        if (size := os.fstat(self._file).st_size) > most_bytes:
            os.ftruncate(self._file, most_bytes)
        self.rename(path)
        return min(size, most_bytes)

    def rename(self, path: Path) -> None:
        self.path.rename(path)
        self.path = path


class Journals:
    """Makes journals in `folder`, and keeps files for the next ones there, hidden, as .<stem>.<number>.part.

    spare_bytes: of those files.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem, self._number = folder, stem, 0
        self._spares: list[tuple[Journal, int]] = []  # with the bytes of each

    @property
    def spare_bytes(self) -> int:
        return sum(size for _, size in self._spares)

    def open(self, name: str) -> Journal:
        """A journal without records in <name>.journal. Raises OSError."""
        path = self._folder / f"{name}{SUFFIX}"
        while self._spares:
            journal, _ = self._spares.pop()
            try:
                journal.rename(path)
            except OSError:  # somebody has tidied up
                journal.close(remove=True)
            else:
                return journal
        return Journal(path)

    def retire(self, journal: Journal) -> None:
        """The episode of `journal` is safe without it."""
        if (room := SPARE_BYTES - self.spare_bytes) > 0:
            self._number += 1
            with contextlib.suppress(OSError):
                spare = self._folder / f".{self._stem}.{self._number}.part"
                self._spares.append((journal, journal.empty(spare, room)))
                return
        journal.close(remove=True)

    def close(self) -> None:
        """Remove the spare files."""
        while self._spares:
            self._spares.pop()[0].close(remove=True)


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
    """The records of a journal, up to the first that is torn, damaged or of an earlier episode."""
    data, place, records = path.read_bytes(), 0, []
    head = OLD_RECORD if data.startswith(OLD_MARK) else RECORD
    first = data[: head.size - 16]
    while data.startswith((MARK, OLD_MARK)) and len(data) - place >= head.size:
        start, size, checksum, count = head.unpack_from(data, place)
        begin = place + head.size + 4 * count
        if start != first or count > 10_000 or begin + size > len(data):
            break
        lengths = struct.unpack_from(f"<{count}I", data, place + head.size)
        if sum(lengths) != size:
            break
        frames = []
        for length in lengths:
            frames.append(data[begin : begin + length])
            begin += length
        if _checksum(data[place + head.size : place + head.size + 4 * count], *frames) != checksum:
            break
        records.append(frames)
        place = begin
    return records
