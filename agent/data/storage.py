"""Where a replay's rows live: in host memory, a mapped file, or on the learner's GPU; nothing is taken in advance."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agent.files import check_writable, existing
from agent.spec import UserError

# Without it Linux refuses to map more than the machine has, however little of that will ever be written.
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
GROWTH = 1.25  # on the GPU, where growing is copying: at most a quarter more is taken than is needed


class NoSpace(UserError):
    """The place where the frames live is full. The data is all right, so it must not be blamed."""


@dataclass(frozen=True)
class Storage:
    """'host': this machine's memory. 'file': one in `folder` that vanishes with the process. 'device': `device`'s."""

    kind: str = "host"
    folder: Path = Path()
    device: torch.device = torch.device("cpu")

    @property
    def place(self) -> torch.device:
        """The device that the rows' tensors are on."""
        return self.device if self.kind == "device" else torch.device("cpu")

    def column(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype) -> Mapped | Grown:
        if self.kind == "device":
            return Grown(capacity, shape, dtype, self.device)
        return Mapped(capacity, shape, dtype, self.folder if self.kind == "file" else None)


HOST = Storage()


class Mapped:
    """(capacity, *shape) rows in memory, or in a file in `folder`, that take space only where they have been written.

    rows: all of them. bytes: what those taken so far amount to.
    """

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype, folder: Path | None) -> None:
        self.bytes = 0
        self._row_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._file = -1
        self._where = f"in {folder}" if folder else "of memory"
        size = max(1, capacity * self._row_bytes)
        try:
            if folder is None:
                memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
            else:
                check_writable(folder)
                # It has no name: nothing is left, even after a crash. The folder itself is made by what goes on in it.
                with tempfile.TemporaryFile(dir=existing(folder)) as file:
                    self._file = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._file)
                os.truncate(self._file, size)  # sparse
                memory = mmap.mmap(self._file, size)
        except OSError as error:
            raise NoSpace(f"learner.storage: no {size:,} bytes {self._where}: {error.strerror}") from None
        self.rows = torch.from_numpy(np.frombuffer(memory, dtype, size // dtype.itemsize).reshape(capacity, *shape))

    def grow(self, rows: int) -> None:
        """Rows up to `rows` will be written. Raises NoSpace."""
        more = rows * self._row_bytes - self.bytes
        if more <= 0:
            return
        if self._file >= 0 and hasattr(os, "posix_fallocate"):  # a full disk is an error here, and SIGBUS later
            try:
                os.posix_fallocate(self._file, self.bytes, more)
            except OSError as error:
                raise NoSpace(f"learner.storage: no {more:,} bytes more {self._where}: {error.strerror}") from None
        self.bytes += more


class Grown:
    """Rows on a device, in one tensor that grows by a quarter at a time. rows: those taken so far. bytes: of them.

    While a column grows the old tensor and the new are both there, 1.8 times what it takes afterwards; one that is told
    its rows at the start never grows again.
    """

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype, device: torch.device) -> None:
        self.capacity = capacity
        self.rows: Tensor = torch.from_numpy(np.empty((0, *shape), dtype)).to(device)

    @property
    def bytes(self) -> int:
        return self.rows.nbytes

    def grow(self, rows: int) -> None:
        """Rows up to `rows` will be written. Raises NoSpace."""
        held = len(self.rows)
        if rows <= held:
            return
        count = min(self.capacity, max(rows, int(held * GROWTH)))
        try:
            larger = self.rows.new_empty(count, *self.rows.shape[1:])
        except torch.OutOfMemoryError:
            rest = f"no room for {count:,} rows on {self.rows.device}; 'host' keeps them in this machine's memory"
            raise NoSpace(f"learner.storage: {rest}") from None
        larger[:held] = self.rows
        self.rows = larger
