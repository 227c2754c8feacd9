"""What people and lights do to the mock arm's cameras: faults of envs.real.mock_world."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

MOVED_PX, TURNED_DEG, DIMMED = 5.0, 1.0, 0.5
DARK = 4  # of 255: what a covered lens lets through


def spoil(images: Mapping[str, np.ndarray], broken: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """camera -> uint8 (H, W, 3), with the faults that `broken` names: move:CAMERA, rotate:CAMERA, dim:CAMERA,
    cover:CAMERA, swap.
    """
    shown = dict(images)
    if broken("swap"):
        shown = dict(zip(images, [*images.values()][::-1], strict=True))
    for name in shown:
        if broken(f"move:{name}"):
            shown[name] = moved(shown[name], right=MOVED_PX)
        if broken(f"rotate:{name}"):
            shown[name] = moved(shown[name], turned_deg=TURNED_DEG)
        if broken(f"dim:{name}"):
            shown[name] = (DIMMED * shown[name]).astype(np.uint8)
        if broken(f"cover:{name}"):
            shown[name] = np.full_like(shown[name], DARK)
    return shown


def moved(image: np.ndarray, right: float = 0.0, down: float = 0.0, turned_deg: float = 0.0) -> np.ndarray:
    """`image` (H, W, 3) moved by pixels and turned clockwise about its centre; its border is repeated."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -turned_deg, 1.0)
    matrix[:, 2] += np.array([right, down])
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
