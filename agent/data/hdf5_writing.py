"""Writing HDF5 files so that a full disk is an error: HDF5 itself may end the process with a segmentation fault."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from agent.data.frames import blocks

HEADER_BYTES = 60_000  # of a text in an object's header


class Output(io.RawIOBase):
    """The file below HDF5. The first error of the system is kept, and HDF5 never hears of it."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the OSError that a write met, if one did."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        left = memoryview(data)
        try:
            while self._error is None and len(left):
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        if self._error is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self._error = error
        return size or 0

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextlib.contextmanager
def hdf5_into(raw: io.RawIOBase, **options: Any) -> Iterator[tuple[h5py.File, Output]]:
    """A new HDF5 file in `raw`, an unbuffered file, and the output between them, whose `check` finds a full disk early.

    Raises OSError, whatever HDF5 makes of it, when it could not be written.
    """
    output = Output(raw)
    try:
        with h5py.File(output, "w", **options) as file:
            yield file, output
    except Exception:
        output.check()  # what HDF5 says of a disk that kept nothing is beside the point
        raise
    output.check()


@contextlib.contextmanager
def create_hdf5(path: Path, **options: Any) -> Iterator[tuple[h5py.File, Output]]:
    """`hdf5_into` a new file at `path`."""
    with path.open("w+b", buffering=0) as raw, hdf5_into(raw, **options) as both:
        yield both


def write_text(item: h5py.HLObject, name: str, text: str) -> None:
    """An attribute of fixed length, which h5py reads as bytes: json.loads takes both.

    One of variable length lies in a global heap, in which one damaged byte makes HDF5 loop without end. Only a text
    that is too long for an object's header (64 kB) is written so.
    """
    data = text.encode()
    if 0 < len(data) <= HEADER_BYTES:
        item.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", len(data)))
    else:
        item.attrs[name] = text


def write_rows(group: h5py.Group, name: str, rows: Any, **options: Any) -> None:
    """A dataset from an array or Frames, block by block."""
    dataset = group.create_dataset(name, rows.shape, rows.dtype, **options)
    for first, block in blocks(rows):
        dataset[first : first + len(block)] = block
