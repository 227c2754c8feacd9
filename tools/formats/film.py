"""Camera images as MP4 and back, through PyAV: the part of LeRobot's format that is not a table."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tools.formats.foreign import MAX_PIXELS, FormatError, resized

CODEC = "h264"
OPTIONS = {"crf": "18", "g": "2", "bf": "0"}  # a key frame every second frame: single frames are what training asks for


def rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1000)


def pixel_format(height: int, width: int) -> str:
    return "yuv444p" if height % 2 or width % 2 else "yuv420p"  # half the colour resolution needs even sides


class Film:
    """An MP4 that takes frames (H, W, 3), one every 1 / fps seconds."""

    def __init__(self, path: Path, fps: float, height: int, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames, self.bytes, self._rate = path, 0, 0, rate(fps)
        self._file = av.open(str(path), "w")
        self._stream: Any = self._file.add_stream("libx264", rate=self._rate, options=OPTIONS)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = pixel_format(height, width)

    def add(self, image: np.ndarray) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        self._write(self._stream.encode(frame))
        self.frames += 1

    def _write(self, packets: list[Any]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._file.mux(packets)

    def close(self) -> None:
        self._write(self._stream.encode())
        self._file.close()


def frames(path: Path, first_s: float, count: int, fps: float, side: int | None = None) -> np.ndarray:
    """`count` consecutive frames from `first_s` seconds on, (count, H, W, 3), optionally at `side` x `side` pixels.

    Raises FormatError naming the file when they are not all there.
    """
    found: list[np.ndarray] = []
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise FormatError(f"{path}: {stream.width} x {stream.height} pixels; {MAX_PIXELS:,} are the most")
            file.seek(max(0, int((first_s - 0.5 / fps) / stream.time_base)), stream=stream, backward=True)
            for frame in file.decode(stream):
                if frame.time is None or frame.time < first_s - 0.5 / fps:
                    continue
                if abs(frame.time - first_s - len(found) / fps) > 0.5 / fps:
                    break  # one is missing: what follows would belong to other steps
                found.append(resized(frame.to_ndarray(format="rgb24")[None], side)[0])
                if len(found) == count:
                    return np.stack(found)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise FormatError(f"{path}: not a video, or damaged: {' '.join(str(error).split())}") from None
    raise FormatError(f"{path}: {len(found)} of {count} frames from {first_s:g} s on")


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    error = np.mean((image.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
