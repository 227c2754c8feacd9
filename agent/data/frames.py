"""Images that are read block by block: an array's interface without an array's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

BLOCK_BYTES = 8 << 20
CHUNK_FRAMES = 8  # of an episode file: those that are compressed together, see image_chunks
CHUNK_BYTES = 6 << 10  # of each of these frames


class Frames:
    """Images (N, H, W, 3), uint8. A slice is read when it is asked for; slices in ascending order are the cheap ones.

    read(first, end) returns images `first` to `end` (exclusive) as an array; 0 <= first < end <= N.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, shape: tuple[int, ...], read: Callable[[int, int], np.ndarray]) -> None:
        self.shape, self._read = tuple(shape), read

    @classmethod
    def of_dataset(cls, path: Path, dataset: h5py.Dataset) -> Frames:
        """Those of a dataset in the HDF5 file `path`, which is open only while images are read."""
        name = dataset.name

        def read(first: int, end: int) -> np.ndarray:
            with h5py.File(path, "r") as file:
                rows: np.ndarray = file[name][first:end]
            return rows

        return cls(dataset.shape, read)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> np.ndarray:
        if not isinstance(key, slice):
            number = int(key) + len(self) if key < 0 else int(key)
            if not 0 <= number < len(self):
                raise IndexError(f"image {key} of {len(self)}")
            image: np.ndarray = self._read(number, number + 1)[0]
            return image
        first, end, step = key.indices(len(self))
        if step != 1:
            raise ValueError("images are read in order, without gaps")
        return self._read(first, end) if end > first else np.empty((0, *self.shape[1:]), np.uint8)

    def span(self, first: int, end: int) -> Frames:
        """Images `first` to `end` (exclusive)."""
        count = max(0, min(end, len(self)) - first)
        return Frames((count, *self.shape[1:]), lambda start, stop: self._read(first + start, first + stop))

    def followed_by(self, image: np.ndarray | None = None) -> Frames:
        """With one more image at the end: `image` (H, W, 3), or the last one again."""
        count = len(self)

        def read(first: int, end: int) -> np.ndarray:
            rows = self._read(first, min(end, count)) if first < count else np.empty((0, *self.shape[1:]), np.uint8)
            if end <= count:
                return rows
            last = (rows[-1] if len(rows) else self[-1]) if image is None else image
            return np.concatenate([rows, last[None]])

        return Frames((count + 1, *self.shape[1:]), read)

    def mapped(self, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> Frames:
        """Each block (n, H, W, 3) as `change` makes it; shape: (H, W, 3) of what comes out."""
        return Frames((len(self), *shape), lambda first, end: change(self._read(first, end)))


def span(rows: Any, first: int, end: int) -> Any:
    """Rows `first` to `end` (exclusive) of an array or of Frames, none of which is read."""
    return rows.span(first, end) if isinstance(rows, Frames) else rows[first:end]


def blocks(rows: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of an array, an HDF5 dataset or Frames, in order, each block at most some megabytes.

    Of images in an episode file each block is whole chunks, so that none is unpacked twice.
    """
    row_bytes = int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.dtype.itemsize
    count = max(1, BLOCK_BYTES // max(1, row_bytes))
    if count > CHUNK_FRAMES:
        count -= count % CHUNK_FRAMES
    for first in range(0, len(rows), count):
        yield first, rows[first : first + count]


def image_chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How images (N, H, W, 3), uint8, are best cut to be compressed: a band of rows of some frames in a row.

    gzip finds again what it has seen in the last 32 kB: with bands of 6 kB, the same place in the frame before.
    Measured in docs/measurements.md, "Episode files". Frames so large that a block of them has few are not cut.
    """
    count, height, width, channels = shape
    if height * width * channels * CHUNK_FRAMES > BLOCK_BYTES:
        return (1, height, width, channels)
    bands = -(-height // max(1, CHUNK_BYTES // (width * channels)))
    return (min(CHUNK_FRAMES, max(1, count)), -(-height // bands), width, channels)
