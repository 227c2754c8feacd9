"""How a camera's picture differs from an earlier one of the same view: moved, rotated, dimmed, covered.

Corners of the reference are followed into the new picture (pyramidal Lucas-Kanade; Bouguet, 2001), where that fails by
SIFT (Lowe, 2004), and RANSAC finds the similarity that most of them agree on. So things that have moved in the scene
are outliers. Both pictures are first normalised by their local mean and deviation: brightness does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

CORNERS = 400
LEAST_CORNERS = 12  # in fewer, a wrong match may be the best one
LEAST_MATCHED = 0.4  # share of the corners that have to agree; less is another view
LEAST_SAME, SAME = 8, 0.6  # corners, as a number and as a share of those that agree on a motion, that have none
SAME_PX = 0.35  # by which they may be off
STILL_PX = 0.6  # what moves by less when the arm does stands still
ROUND_TRIP_PX = 0.7  # a corner that is followed there and back has to come back within it
COARSEST = 50  # px a side: in smaller pictures what moves drags along what stands beside it
FAINT = 0.08  # of the mean brightness: contrast below it is noise, or the grain of a surface
FINEST = 480  # px a side; larger pictures are compared in this size
LARGEST = 2.0  # by which a picture of the same view may be larger or smaller
RATIO = 0.75  # Lowe's: a match has to be so much nearer than the second best
DARK = 12  # of 255: mean of a picture that is black
OTHER = 40  # of 255: another thing is seen there
BRIGHT_ENOUGH = 16  # of 255: darker pixels are noise and no measure of brightness


@dataclass(frozen=True)
class Change:
    """From the reference to the new picture.

    right, down: px of the centre. rotation_deg: clockwise. scale: of the size. matched: share of the corners that
    agree.
    """

    right: float
    down: float
    rotation_deg: float
    scale: float
    matched: float


def corners(image: np.ndarray) -> np.ndarray:
    """float32 (n, 2), x and y: what can be followed in `image`, uint8 (H, W, 3), the most distinct first."""
    image, scale = _reduced(image)
    grey = _grey(image).astype(np.float32)
    strong = (_deviation(grey)[1] > FAINT * grey.mean()).astype(np.uint8)
    apart = max(3, min(grey.shape) / 60)
    found = cv2.goodFeaturesToTrack(_normal(image), CORNERS, 0.02, apart, mask=strong)
    return np.zeros((0, 2), np.float32) if found is None else _at(found.reshape(-1, 2), 1 / scale)


def still(image: np.ndarray, points: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """Those of `points` (n, 2) that are at the same place in all `others`, pictures taken while the arm stood
    elsewhere: neither the arm nor, for a camera on the arm, its surroundings.
    """
    image, scale = _reduced(image)
    begun, keep = _at(points, scale), np.ones(len(points), bool)
    for other in others:
        there, found = _followed(_normal(image), _normal(_reduced(other)[0]), begun)
        keep &= found & (np.linalg.norm(there - begun, axis=1) < STILL_PX)
    return points[keep]


def change(reference: np.ndarray, points: np.ndarray, image: np.ndarray) -> Change | None:
    """From `reference`, uint8 (H, W, 3), with the corners `points`, to `image`; None when they show different views."""
    if image.shape != reference.shape or len(points) < LEAST_CORNERS:
        return None
    image, scale = _reduced(image)
    before, after, points = _normal(_reduced(reference)[0]), _normal(image), _at(points, scale)
    moved = None
    for more_levels in (0, 2):
        there, found = _followed(before, after, points, more_levels)
        moved = moved or _similarity(points[found], there[found], len(points), image.shape)
        same = found & (np.linalg.norm(there - points, axis=1) < max(SAME_PX, min(image.shape[:2]) / 1200))
        if same.sum() >= LEAST_SAME and (moved is None or same.sum() >= SAME * moved.matched * len(points)):
            # Where so many are at the same place to a fraction of a pixel, the rest has moved, and not the camera.
            return _similarity(points[same], there[same], len(points), image.shape, LEAST_SAME)
    moved = moved or _far(before, after, image.shape)
    return replace(moved, right=moved.right / scale, down=moved.down / scale) if moved else None


def light(reference: np.ndarray, image: np.ndarray, moved: Change | None = None) -> tuple[float, float]:
    """(brightness of `image` as a share of the reference's, the median over the pixels that both show; the share of
    those that differ by more than OTHER when that is made up for)
    """
    before, after = _grey(reference).astype(np.float32), _grey(image).astype(np.float32)
    if moved:
        height, width = before.shape
        back = cv2.invertAffineTransform(_matrix(moved, image.shape))
        after = np.asarray(cv2.warpAffine(after, back, (width, height), borderValue=-1.0), np.float32)
    seen = (before > BRIGHT_ENOUGH) & (after >= 0)
    gain = float(np.median(after[seen] / before[seen])) if seen.any() else float(after.mean() / max(before.mean(), 1))
    other = np.abs(after / max(gain, 0.1) - before)[after >= 0] > OTHER
    return gain, float(other.mean())


def covered(reference: np.ndarray, image: np.ndarray) -> bool:
    """Whether `image` is black, or as good as featureless where the reference is not."""
    before, after = _grey(reference), _grey(image)
    return bool(after.mean() < min(DARK, before.mean() / 2) or _detail(after) < 0.2 * _detail(before))


def _reduced(image: np.ndarray) -> tuple[np.ndarray, float]:
    """(`image` with at most FINEST px on its shorter side, its new scale)"""
    scale = min(1.0, FINEST / min(image.shape[:2]))
    if scale == 1:
        return image, scale
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


def _at(points: np.ndarray, scale: float) -> np.ndarray:
    """float32 (n, 2): where pixels (n, 2) are in a picture of another scale; their centres are at whole numbers."""
    return np.asarray((points + 0.5) * scale - 0.5, np.float32)


def _detail(grey: np.ndarray) -> float:
    """Contrast of what is larger than noise."""
    return float(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).std())


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _normal(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W): `image` less its local mean, by its local deviation."""
    grey = _grey(image).astype(np.float32)
    centred, deviation = _deviation(grey)
    normal: np.ndarray = np.clip(128 + 48 * centred / (deviation + FAINT * grey.mean() + 1), 0, 255).astype(np.uint8)
    return normal


def _deviation(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float32 (H, W) `grey` less its local mean, its local standard deviation)"""
    sigma = max(2.0, min(grey.shape) / 30)
    centred = np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), sigma))
    return centred, np.sqrt(cv2.GaussianBlur(centred**2, (0, 0), sigma))


def _followed(
    before: np.ndarray, after: np.ndarray, points: np.ndarray, more_levels: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(where they are in `after` (n, 2), which of them were found)"""
    if not len(points):
        return points, np.zeros(0, bool)
    window = max(11, min(before.shape) // 20) | 1
    levels = max(0, int(np.log2(min(before.shape) / COARSEST))) + more_levels
    follow: Any = cv2.calcOpticalFlowPyrLK  # its stubs know no None for an output
    there, forth, _ = follow(before, after, points[:, None], None, winSize=(window, window), maxLevel=levels)
    back, again, _ = follow(after, before, there, None, winSize=(window, window), maxLevel=levels)
    returned = np.linalg.norm(back[:, 0] - points, axis=1) < ROUND_TRIP_PX
    return there[:, 0], (forth[:, 0] == 1) & (again[:, 0] == 1) & returned


def _far(before: np.ndarray, after: np.ndarray, shape: tuple[int, ...]) -> Change | None:
    """What has moved too far to be followed."""
    sift: Any = cv2.SIFT.create(CORNERS)
    (here, mine), (there, theirs) = sift.detectAndCompute(before, None), sift.detectAndCompute(after, None)
    if mine is None or theirs is None or min(len(mine), len(theirs)) < LEAST_CORNERS:
        return None
    pairs = [pair for pair in cv2.BFMatcher().knnMatch(mine, theirs, k=2) if len(pair) == 2]
    good = [first for first, second in pairs if first.distance < RATIO * second.distance]
    begun = np.array([here[match.queryIdx].pt for match in good], np.float32).reshape(-1, 2)
    ended = np.array([there[match.trainIdx].pt for match in good], np.float32).reshape(-1, 2)
    return _similarity(begun, ended, len(good), shape)


def _similarity(
    begun: np.ndarray, ended: np.ndarray, of: int, shape: tuple[int, ...], least: float = 0.0
) -> Change | None:
    """What most of the pairs agree on; None when too few of `of` do: `least`, or what can hardly be chance."""
    least = least or max(LEAST_CORNERS, LEAST_MATCHED * of)
    if len(begun) < least:
        return None
    near = max(0.75, min(shape[:2]) / 400)
    matrix, inliers = cv2.estimateAffinePartial2D(begun, ended, None, cv2.RANSAC, near, 5000, 0.999, 20)
    agree = 0 if matrix is None else int(inliers.sum())
    if matrix is None or agree < least:
        return None
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 1 / LARGEST <= scale <= LARGEST:  # many corners that all match one
        return None
    height, width = shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    right, down = matrix[:, :2] @ centre + matrix[:, 2] - centre
    angle = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    return Change(float(right), float(down), angle, scale, agree / of)


def _matrix(moved: Change, shape: tuple[int, ...]) -> np.ndarray:
    """float64 (2, 3), reference to new picture."""
    height, width = shape[:2]
    matrix: np.ndarray = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -moved.rotation_deg, moved.scale)
    matrix[:, 2] += moved.right, moved.down
    return matrix
