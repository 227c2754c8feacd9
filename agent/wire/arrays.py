"""Arrays in one piece of memory, and what says where they lie in it: a robot's steps are all alike, so it is read once.

They lie one after the other, each from the next multiple of 8 bytes on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np

from agent.wire.untrusted import WireError, kind_of, unpack_untrusted

MAX_FRAME_BYTES = 1 << 30
MAX_ARRAYS = 4096
REMEMBERED = 128  # layouts
REMEMBERED_BYTES = 1 << 12  # a longer one is read anew each time
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")
}


class Place(NamedTuple):
    """Where an array lies: at `offset`, after the bytes `gap`."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    gap: bytes


class Layout(NamedTuple):
    """declared: as a header has it. size: in bytes, of all arrays with their gaps."""

    declared: bytes
    places: list[Place]
    size: int

    def join(self, arrays: Mapping[str, np.ndarray]) -> bytes:
        """A copy of the arrays that were declared."""
        pieces: list[Any] = []
        for place, array in zip(self.places, arrays.values(), strict=True):
            pieces += place.gap, np.asarray(array, place.dtype, order="C")
        return b"".join(pieces)

    def split(self, frame: bytes | memoryview) -> dict[str, np.ndarray]:
        """Read-only views of `frame`. Raises WireError if it is not of the size declared."""
        if len(frame) != self.size:
            raise WireError(f"the arrays need {self.size} bytes, their frame has {len(frame)}")
        body = memoryview(frame).toreadonly()
        return {p.name: np.ndarray(p.shape, p.dtype, buffer=body, offset=p.offset) for p in self.places}


def declare(arrays: Mapping[str, np.ndarray]) -> Layout:
    """The layout of `arrays`. Raises WireError for what `read_layout` would not take."""
    return _declare(tuple((name, array.dtype, array.shape) for name, array in arrays.items()))


@functools.lru_cache(REMEMBERED)
def _declare(arrays: tuple[tuple[str, np.dtype, tuple[int, ...]], ...]) -> Layout:
    for name, dtype, _ in arrays:
        if dtype.name not in DTYPES:
            raise WireError(f"array '{name}' has dtype {dtype}")
    return _read(msgpack.packb([[name, dtype.name, shape] for name, dtype, shape in arrays]))


def read_layout(declared: object) -> Layout:
    """The layout that somebody declared. Raises WireError unless it is one, of a size that may be."""
    if not isinstance(declared, bytes):
        raise WireError(f"arrays declared as {kind_of(declared)}")
    return _remember(declared) if len(declared) <= REMEMBERED_BYTES else _read(declared)


def _read(declared: bytes) -> Layout:
    entries = unpack_untrusted(declared)
    if not isinstance(entries, list) or len(entries) > MAX_ARRAYS:
        raise WireError(f"a layout is a list of at most {MAX_ARRAYS} arrays")
    places: list[Place] = []
    size = 0
    for entry in entries:
        match entry:
            case [str(name), str(dtype), [*shape]] if dtype in DTYPES and 0 < len(name) <= 256 and len(shape) <= 8:
                pass
            case _:
                raise WireError(f"array declared as {kind_of(entry)}, expected [name, dtype, shape]")
        if not all(type(length) is int and 0 <= length <= MAX_FRAME_BYTES for length in shape):
            raise WireError(f"array '{name}' has a length in its shape that is none, or too large")
        gap = -size % 8
        places.append(Place(name, DTYPES[dtype], tuple(shape), size + gap, bytes(gap)))
        size += gap + math.prod(shape) * DTYPES[dtype].itemsize
        if size > MAX_FRAME_BYTES:
            raise WireError(f"{size} bytes in one message with array '{name}' {dtype}{shape}")
    if len({place.name for place in places}) < len(places):
        raise WireError("two arrays of one name")
    return Layout(declared, places, size)


_remember = functools.lru_cache(REMEMBERED)(_read)
