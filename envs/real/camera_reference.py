"""Reference pictures of an arm's cameras, taken with the arm at home, and what is wrong with a newer picture.

One .npz file for an arm, made by `tools.doctor --save-reference`: camera_reference, or in the user's data folder by the
arm's kind and options.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from envs.real.options import RealOptions

SHIFT = 0.005  # of the shorter side, and at least SHIFT_PX: a picture that has moved by more has moved
SHIFT_PX = 1.0
ROTATION_DEG = 0.5
GAIN = 1.3  # brightness as a share of the reference's, either way
HIDDEN = 0.3  # share of the picture that may show other things than the reference
SAVE = "tools.doctor --save-reference"
BACK = f"put it back as it was; or {SAVE}, and demonstrations recorded anew"


@dataclass(frozen=True)
class Reference:
    """image: uint8 (H, W, 3) RGB. corners: float32 (n, 2), x and y, px: what stands still when the arm moves."""

    image: np.ndarray
    corners: np.ndarray


@dataclass(frozen=True)
class References:
    """cameras: by name. lag: commanded minus measured of each axis at home, in its units. saved: when, local time."""

    cameras: dict[str, Reference]
    lag: dict[str, float] = field(default_factory=dict)
    saved: str = ""


@dataclass(frozen=True)
class Finding:
    """says: what was measured, or what is wrong. remedy: what to do about that; empty when nothing is wrong."""

    says: str
    remedy: str = ""

    @property
    def good(self) -> bool:
        return not self.remedy


def reference_file(options: RealOptions) -> Path:
    """Where the references of this arm are, or would be."""
    if options.camera_reference:
        return Path(options.camera_reference).expanduser()
    folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    which = zlib.crc32(json.dumps([options.arm, options.arm_options], sort_keys=True, default=str).encode())
    return folder / "calql" / f"{re.sub(r'[^A-Za-z0-9]+', '-', options.arm)}-{which:08x}.npz"


def load(path: Path) -> References | None:
    """None when there are none. Raises ValueError, one line, for a file that is none of ours."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about: dict[str, Any] = json.loads(str(file["about"]))
            cameras = {
                name: _checked(file[f"{number}.image"], file[f"{number}.corners"])
                for number, name in enumerate(about["cameras"])
            }
        return References(cameras, {name: float(value) for name, value in about["lag"].items()}, str(about["saved"]))
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged or foreign file fails in many ways
        raise ValueError(f"{path}: not a file of reference pictures ({_short(error)}); make it anew: {SAVE}") from None


def save(file: IO[bytes], references: References) -> None:
    arrays: dict[str, Any] = {}
    for number, reference in enumerate(references.cameras.values()):
        arrays |= {f"{number}.image": reference.image, f"{number}.corners": reference.corners}
    about = {"cameras": list(references.cameras), "lag": references.lag, "saved": references.saved}
    np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


def judge(references: Mapping[str, Reference], name: str, image: np.ndarray) -> Finding:
    """What the camera `name` shows now, uint8 (H, W, 3) RGB, against its reference."""
    from envs.real import view_change as view

    if name not in references:
        return Finding("has no reference picture", SAVE)
    mine = references[name]
    before, after = (f"{each.shape[1]} x {each.shape[0]}" for each in (mine.image, image))
    if mine.image.shape != image.shape:
        return Finding(f"sends {after} pixels, its reference has {before}", f"set size and crop as before, or {SAVE}")
    if view.covered(mine.image, image):
        return Finding(f"is black or covered: mean {image.mean():.0f} of 255", "uncover the lens, switch the light on")
    checked = len(mine.corners) >= view.LEAST_CORNERS
    change = view.change(mine.image, mine.corners, image)
    if checked and change is None:
        return _another(references, name, image)
    share, hidden = view.light(mine.image, image, change)
    brightness = f"brightness {100 * share:.0f} %"
    if change is not None and (moved := _moved(change, image.shape)):
        return Finding(f"has moved: its picture is {moved}", BACK)
    if not 1 / GAIN <= share <= GAIN:
        return Finding(f"{brightness} of the reference's", "set light and exposure as they were (exposure: fixed)")
    if change is None:
        return Finding(f"{brightness}; shift not checked: too little stands still in its picture")
    if hidden > HIDDEN:
        return Finding(f"{100 * hidden:.0f} % of its picture shows something else", f"clear its view; or {SAVE}")
    distance = np.hypot(change.right, change.down)
    return Finding(f"shift {distance:.1f} px, rotation {abs(change.rotation_deg):.2f} deg, {brightness}")


def _moved(change: Any, shape: tuple[int, ...]) -> str:
    """How, in words; empty when it has not."""
    most = max(SHIFT_PX, SHIFT * min(shape[:2]))
    grown = (change.scale - 1) * min(shape[:2]) / 2  # px at the border
    if max(np.hypot(change.right, change.down), abs(grown)) <= most and abs(change.rotation_deg) <= ROTATION_DEG:
        return ""
    across, along = "right" if change.right > 0 else "left", "down" if change.down > 0 else "up"
    words = [f"{abs(change.right):.1f} px to the {across} and {abs(change.down):.1f} px {along}"]
    if abs(change.rotation_deg) > ROTATION_DEG:
        sense = "clockwise" if change.rotation_deg > 0 else "anticlockwise"
        words.append(f"turned by {abs(change.rotation_deg):.1f} deg {sense}")
    if abs(grown) > most:
        words.append(f"{100 * abs(change.scale - 1):.1f} % {'larger' if grown > 0 else 'smaller'}")
    return ", ".join(words)


def _another(references: Mapping[str, Reference], name: str, image: np.ndarray) -> Finding:
    """Whose view it is, when it is not that of `name`."""
    from envs.real import view_change as view

    for other, reference in references.items():
        if other != name and view.change(reference.image, reference.corners, image):
            return Finding(
                f"shows what camera '{other}' showed: they are swapped",
                "exchange their `device` in the config, and use paths that stay (/dev/v4l/by-id/...)",
            )
    return Finding("shows another view than its reference", BACK)


def _checked(image: np.ndarray, corners: np.ndarray) -> Reference:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or corners.ndim != 2 or corners.shape[1] != 2:
        raise ValueError("a picture is malformed")
    return Reference(image, corners.astype(np.float32))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
