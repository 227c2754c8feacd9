"""Observations of any Gymnasium environment as cameras (uint8 (H, W, 3)) and state vectors (float32)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

Convert = Callable[[Any], np.ndarray]
CHANNELS = (1, 3, 4)  # gray, RGB, RGB with alpha
IMAGE_SIDE = 16  # a 2-D array with both sides at least this long is an image, a smaller one a table of numbers
ACCEPTED = "uint8 [0, 255] images of (H, W, 3), (3, H, W), (H, W), (H, W, 1), (1, H, W) or (H, W, 4)"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One entry of our observation: where it is in the environment's, its box here, and how it gets there."""

    path: tuple[str, ...]
    box: gymnasium.spaces.Box
    convert: Convert


def parts(space: gymnasium.Space[Any], name: str) -> dict[str, Part]:
    """Our key -> its Part, for every box in `space`.

    A lone camera is "image", a lone vector "proprio"; nested keys are joined by ".", a space in one is "_".
    Raises ValueError, naming the observation, for what is no box, and for an array that looks like an image of a dtype
    or layout that is not accepted.
    """
    found = {}
    for path, box in _leaves(space, (), name):
        camera = _camera(box, f"gym:{name}: observation{_where(path)}")
        key = ".".join(path).replace(" ", "_") or ("image" if camera else "proprio")
        found[key] = Part(path, *(camera or _vector(box)))
    return found


def observe(parts: dict[str, Part], observation: Any) -> dict[str, np.ndarray]:
    """The environment's `observation` in our terms."""
    rows = {}
    for key, part in parts.items():
        value = observation
        for step in part.path:
            value = value[step]
        rows[key] = part.convert(value)
    return rows


def _leaves(
    space: gymnasium.Space[Any], path: tuple[str, ...], name: str
) -> Iterator[tuple[tuple[str, ...], gymnasium.spaces.Box]]:
    if isinstance(space, gymnasium.spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key), name)
    elif isinstance(space, gymnasium.spaces.Box):
        yield path, space
    else:
        raise ValueError(
            f"gym:{name}: observation{_where(path)} is {first_line(space)}; only boxes and dicts of them can be used"
        )


def _where(path: tuple[str, ...]) -> str:
    return f" '{'.'.join(map(str, path))}'" if path else ""


def _vector(box: gymnasium.spaces.Box) -> tuple[gymnasium.spaces.Box, Convert]:
    size = int(np.prod(box.shape))
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32), lambda value: np.asarray(
        value, np.float32
    ).ravel()


def _camera(box: gymnasium.spaces.Box, what: str) -> tuple[gymnasium.spaces.Box, Convert] | None:
    """The box and the conversion of a camera, None for a state. Raises ValueError for an image that is not accepted."""
    shape = box.shape
    if sum(side > 1 for side in shape) < 2 or (len(shape) == 2 and min(shape) < IMAGE_SIDE):
        return None
    kind = f"{what} is a {box.dtype} array of {list(shape)}"
    if box.dtype != np.uint8:
        advice = f"cameras must be {ACCEPTED}; convert it in the environment, or flatten it if it is a state"
        raise ValueError(f"{kind}, which looks like an image; {advice} (gymnasium.wrappers.TransformObservation)")
    if np.all(box.high <= 1):
        raise ValueError(f"{kind} with values up to {box.high.max()}; cameras must be {ACCEPTED}: scale it by 255")
    convert = _layout(shape)
    if len(shape) == 3 and shape[2] == 4 and convert:
        log.warning("%s: it is taken as RGBA, and the fourth channel is dropped", kind)
    if convert is None:
        advice = "give one frame, or flatten it if it is a state (gymnasium.wrappers.TransformObservation)"
        raise ValueError(f"{kind}; cameras must be {ACCEPTED}, and stacked frames are not supported: {advice}")
    seen = convert(np.zeros(shape, np.uint8)).shape
    return gymnasium.spaces.Box(0, 255, seen, np.uint8), convert


def _layout(shape: tuple[int, ...]) -> Convert | None:
    """How an image of `shape` becomes (H, W, 3); None if that is not clear.

    (4, H, W) is not: four stacked gray frames are more common than RGBA with channels first.
    """
    if len(shape) == 2:
        return lambda value: _rgb(np.asarray(value)[..., None])
    if len(shape) != 3 or (shape[2] in CHANNELS) == (shape[0] in CHANNELS[:2]):
        return None
    if shape[2] in CHANNELS:
        return lambda value: _rgb(np.asarray(value))
    return lambda value: _rgb(np.moveaxis(np.asarray(value), 0, -1))


def _rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) from 1, 3 or 4 channels."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def first_line(value: object) -> str:
    return (str(value).splitlines() or [type(value).__name__])[0]
