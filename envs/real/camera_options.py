"""What one camera is asked for, and whether any camera could do it. Loads no OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.options import build, option
from envs.base import MAX_IMAGE_SIZE


class CameraError(RuntimeError):
    """A camera shows nothing that may be acted on; one line that says which and why."""


@dataclass
class CameraOptions:
    source: Literal["v4l2", "realsense", "file"] = option("v4l2", "v4l2, realsense, file")
    device: int | str = option(
        0, "v4l2: number or path (/dev/v4l/by-id/... stays the same); realsense: serial; file: path"
    )
    width: int = option(640, "pixels, as the source sends them", low=8, high=16384)
    height: int = option(480, "pixels, as the source sends them", low=8, high=16384)
    fps: float = option(30.0, "frames a second; a video keeps its own", low=1, high=1000)
    crop: list[int] = option([], "top, left, height, width; empty: all of it", low=0)
    size: int = option(128, "pixels a side of the image; what is not square is squeezed", low=8, high=MAX_IMAGE_SIZE)
    exposure: float | None = option(None, "fixed, in the driver's unit (v4l2: 0.1 ms); empty: automatic", above=0)
    max_age_s: float = option(0.5, "older frames are refused", low=0.01, high=60)
    warmup_frames: int = option(15, "thrown away after opening: dark, or wrongly coloured", low=0, high=1000)
    frozen_s: float = option(1.0, "a frame that stays the same longer is refused; 0: never", low=0, high=3600)
    fourcc: str = option("MJPG", "v4l2: pixel format; empty: the driver's choice")


def parse(name: str, given: Mapping[str, Any]) -> CameraOptions:
    """The options of the camera `name`, checked. Raises ValueError, one line, for an unknown key or a bad value."""
    options = build(CameraOptions, given, f"camera '{name}': ")

    def refuse(key: str, wanted: str) -> None:
        raise ValueError(f"camera '{name}': {key} is {getattr(options, key)!r}; it must be {wanted}")

    if options.device == "":
        refuse("device", "a number, a path or a serial number")
    if options.max_age_s <= 1 / options.fps:
        refuse("max_age_s", f"more than the {1 / options.fps:.3f} s between two frames at fps {options.fps:g}")
    if len(options.fourcc) not in (0, 4):
        refuse("fourcc", "four characters such as MJPG or YUYV, or empty")
    if options.crop and not _inside(options.crop, options.height, options.width):
        refuse("crop", f"empty or top, left, height, width within {options.height} rows and {options.width} columns")
    return options


def _inside(crop: list[int], height: int, width: int) -> bool:
    """Whether that lies in an image of (height, width)."""
    if len(crop) != 4:
        return False
    top, left, rows, columns = crop
    return rows > 0 and columns > 0 and top + rows <= height and left + columns <= width
