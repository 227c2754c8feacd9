"""What one camera is asked for, and whether any camera could do it. Loads no OpenCV."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.base import MAX_IMAGE_SIZE, nearest

SOURCES = ("v4l2", "realsense", "file")


class CameraError(RuntimeError):
    """A camera shows nothing that may be acted on; one line that says which and why."""


@dataclass
class Options:
    source: str = field(default="v4l2", metadata={"help": ", ".join(SOURCES)})
    device: int | str = field(
        default=0,
        metadata={"help": "v4l2: number or path (/dev/v4l/by-id/... stays the same); realsense: serial; file: path"},
    )
    width: int = field(default=640, metadata={"help": "pixels, as the source sends them"})
    height: int = field(default=480, metadata={"help": "pixels, as the source sends them"})
    fps: float = field(default=30.0, metadata={"help": "frames a second; a video keeps its own"})
    crop: list[int] = field(default_factory=list, metadata={"help": "top, left, height, width; empty: all of it"})
    size: int = field(default=128, metadata={"help": "pixels a side of the image; what is not square is squeezed"})
    exposure: float | None = field(
        default=None, metadata={"help": "fixed, in the driver's unit (v4l2: 0.1 ms); empty: automatic"}
    )
    max_age_s: float = field(default=0.5, metadata={"help": "older frames are refused"})
    warmup_frames: int = field(default=15, metadata={"help": "thrown away after opening: dark, or wrongly coloured"})
    frozen_s: float = field(default=1.0, metadata={"help": "a frame that stays the same longer is refused; 0: never"})
    fourcc: str = field(default="MJPG", metadata={"help": "v4l2: pixel format; empty: the driver's choice"})


RANGES = {
    "width": (8, 16384),
    "height": (8, 16384),
    "fps": (1, 1000),
    "size": (8, MAX_IMAGE_SIZE),
    "max_age_s": (0.01, 60),
    "warmup_frames": (0, 1000),
    "frozen_s": (0, 3600),
}
WHOLE = ("width", "height", "size", "warmup_frames")


def parse(name: str, given: Mapping[str, Any]) -> Options:
    """The options of the camera `name`, checked. Raises ValueError, one line, for an unknown key or a bad value."""
    known = [entry.name for entry in dataclasses.fields(Options)]
    for key in given:
        if key not in known:
            raise ValueError(
                f"camera '{name}' has no option '{key}'{nearest(key, known)}; there are {', '.join(known)}"
            )
    options = Options(**given)
    check(name, options)
    return options


def check(name: str, options: Options) -> None:
    """Raises ValueError, one line with the camera and the key, for a value that no camera can have."""

    def refuse(key: str, wanted: str) -> None:
        raise ValueError(f"camera '{name}': {key} is {getattr(options, key)!r}; it must be {wanted}")

    for key, (low, high) in RANGES.items():
        value = getattr(options, key)
        if not _number(value) or not low <= value <= high or (key in WHOLE and value != int(value)):
            refuse(key, f"{'a whole number, ' if key in WHOLE else ''}{low} to {high}")
    if options.source not in SOURCES:
        refuse("source", f"one of {', '.join(SOURCES)}{nearest(options.source, SOURCES)}")
    if not isinstance(options.device, (int, str)) or isinstance(options.device, bool) or options.device == "":
        refuse("device", "a number, a path or a serial number")
    if options.max_age_s <= 1 / options.fps:
        refuse("max_age_s", f"more than the {1 / options.fps:.3f} s between two frames at fps {options.fps:g}")
    if options.exposure is not None and not (_number(options.exposure) and options.exposure > 0):
        refuse("exposure", "more than 0, or empty for automatic")
    if not isinstance(options.fourcc, str) or len(options.fourcc) not in (0, 4):
        refuse("fourcc", "four characters such as MJPG or YUYV, or empty")
    if not _crops(options.crop, options.height, options.width):
        refuse("crop", f"empty or top, left, height, width within {options.height} rows and {options.width} columns")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _crops(crop: Any, height: int, width: int) -> bool:
    """Whether that lies in an image of (height, width)."""
    if not isinstance(crop, Sequence) or not all(isinstance(value, int) for value in crop):
        return False
    if not crop:
        return True
    if len(crop) != 4 or min(crop) < 0:
        return False
    top, left, rows, columns = crop
    return rows > 0 and columns > 0 and top + rows <= height and left + columns <= width
