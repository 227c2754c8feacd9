"""Camera images of MP4 files, through PyAV: the part of LeRobot's format that is not a table."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from agent.data.frames import Frames
from tools.formats.common.foreign import FormatError, check_pointer
from tools.formats.common.pictures import MAX_PIXELS

CODEC = "h264"
OPTIONS = {"crf": "18", "g": "2", "bf": "0"}  # a key frame every second frame: single frames are what training asks for


@dataclass(frozen=True)
class Index:
    """What is in a video: its size, and the seconds at which its frames are shown, in order."""

    width: int
    height: int
    pixels: str  # FFmpeg's name of the pixel format
    seconds: np.ndarray  # (N,) float64

    @property
    def deep(self) -> bool:
        """One channel of more than 8 bits: depth."""
        return self.pixels.startswith("gray") and self.pixels != "gray"


def index(path: Path) -> Index:
    """The index of the video `path`; nothing is decoded. Raises FormatError naming it when it is none, or damaged."""
    check_pointer(path)
    stat = path.stat()
    return _index(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _index(path: Path, *_: int) -> Index:
    with _opened(path) as (file, stream):
        found = [packet.pts for packet in file.demux(stream) if packet.pts is not None and not packet.is_discard]
        pixels = stream.codec_context.pix_fmt or "unknown"
        seconds = np.sort(np.array(found, np.float64)) * float(stream.time_base)
        return Index(stream.width, stream.height, pixels, seconds)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise FormatError(f"{path}: {stream.width} x {stream.height} pixels; {MAX_PIXELS:,} are the most")
            yield file, stream
    except (OSError, av.FFmpegError, IndexError) as error:
        raise FormatError(f"{path}: not a video, or damaged: {' '.join(str(error).split())}") from None


def clip(path: Path, seconds: np.ndarray, fps: float) -> Frames:
    """The frames of `path` that are shown at `seconds` (T,), in ascending order, as Frames (T, H, W, 3).

    A frame within half a period of 1 / fps is the one; reading raises FormatError where there is none.
    """
    found = index(path)
    return Frames((len(seconds), found.height, found.width, 3), _Reader(path, seconds, fps, found).read)


class _Reader:
    """Decodes a video's frames at given seconds; blocks that follow each other are decoded without seeking."""

    def __init__(self, path: Path, seconds: np.ndarray, fps: float, found: Index) -> None:
        self._path, self._seconds, self._half = path, seconds, 0.5 / fps
        self._shape = (found.height, found.width, 3)
        self._next = -1
        self._decoded: Iterator[Any] = iter(())

    def read(self, first: int, end: int) -> np.ndarray:
        if first != self._next:
            self._decoded = self._from(float(self._seconds[first]))
        rows = np.empty((end - first, *self._shape), np.uint8)
        for number in range(first, end):
            rows[number - first] = self._at(number)
        self._next = end
        if end == len(self._seconds):
            self._next, self._decoded = -1, iter(())  # closes the file
        return rows

    def _at(self, number: int) -> np.ndarray:
        wanted = float(self._seconds[number])
        for frame in self._decoded:
            if frame.time is None or frame.time < wanted - self._half:
                continue
            image: np.ndarray = frame.to_ndarray(format="rgb24")
            if frame.time > wanted + self._half or image.shape != self._shape:
                break
            return image
        self._next = -1
        raise FormatError(f"{self._path}: no frame at {wanted:g} s (number {number + 1} of {len(self._seconds)})")

    def _from(self, second: float) -> Iterator[Any]:
        with _opened(self._path) as (file, stream):
            file.seek(max(0, int((second - self._half) / stream.time_base)), stream=stream, backward=True)
            yield from file.decode(stream)


def frames(path: Path, first_s: float, count: int, fps: float) -> np.ndarray:
    """`count` consecutive frames from `first_s` seconds on, (count, H, W, 3). Raises FormatError naming the file."""
    return clip(path, first_s + np.arange(count) / fps, fps)[:]


def paired(path: Path, seconds: np.ndarray, end_s: float | None, fps: float) -> None:
    """Raise FormatError unless each of a table's rows at `seconds` (T,) of a video has a frame, and the last the last.

    end_s: where the episode ends in the video; None: where the video does. A video that goes on after the table's last
    row may be shifted against it.
    """
    there, half = index(path).seconds, 0.5 / fps
    if not len(there):
        raise FormatError(f"{path}: no frames in it")
    after = np.clip(np.searchsorted(there, seconds), 1, max(1, len(there) - 1))
    nearest = np.where(
        seconds - there[after - 1] < there[np.minimum(after, len(there) - 1)] - seconds, after - 1, after
    )
    nearest = np.minimum(nearest, len(there) - 1)
    missing = np.flatnonzero(np.abs(there[nearest] - seconds) > half)
    if len(missing):
        first = missing[0]
        raise FormatError(
            f"{path}: no frame within half a period of {seconds[first]:.3f} s, where its table has row {first}; "
            f"{len(missing)} of {len(seconds)} rows have none"
        )
    if (np.diff(nearest) < 1).any():
        raise FormatError(f"{path}: several rows of the table share a frame: timestamps are not k / fps")
    last = there[-1] + half if end_s is None else end_s - half
    more = np.count_nonzero((there > seconds[-1] + half) & (there < last))
    if more:
        raise FormatError(
            f"{path}: the video continues for {more} frames after the table's last row; rows may be missing"
        )


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    error = np.mean((image.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
