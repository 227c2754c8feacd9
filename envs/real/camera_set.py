"""The cameras of an arm's environment together: those with a reader of their own, and those that its driver reads."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from envs.real.arm import ArmError, State
from envs.real.options import RealOptions
from envs.real.startup import make_camera

SETTLE_S = 0.25  # an arm that has just stopped swings, and a frame is late
FRAMES = 3  # of each camera; their mean has less noise
LONGEST_S = 0.6  # of waiting for them
LOOK_S = 0.02


class CameraSet:
    """Not started. Raises ValueError, one line, for bad options."""

    def __init__(self, options: RealOptions) -> None:
        self._given = dict(options.cameras)
        self.readers = {
            name: make_camera(options, name, given)
            for name, given in options.cameras.items()
            if given.get("source") != "arm"
        }

    @property
    def names(self) -> list[str]:
        return list(self._given)

    def start(self) -> None:
        """Raises ValueError for the first that sends nothing."""
        if self.readers:
            from envs.real.cameras import start_all

            start_all(list(self.readers.values()))

    def start_each(self) -> dict[str, str]:
        """Start those that can be; the others leave the set. Returns camera -> why it cannot."""
        wrong = {}
        for camera in self.readers.values():
            camera.begin()
        for name, camera in self.readers.items():
            try:
                camera.start()
            except ValueError as error:
                wrong[name] = str(error).removeprefix(f"camera '{name}': ")
        for name in wrong:
            self.drop(name)
        return wrong

    def drop(self, name: str) -> None:
        """Close the camera `name` and leave it out from now on."""
        self.readers.pop(name).close()
        del self._given[name]

    def watch(self) -> None:
        """Raises CameraError for one that has gone."""
        for camera in self.readers.values():
            camera.read()

    def read(self, state: State) -> tuple[dict[str, np.ndarray], list[float]]:
        """(camera -> uint8 (size, size, 3) RGB, times of those with a reader). Raises CameraError, ArmError."""
        images, times = {}, []
        for name, given in self._given.items():
            if name in self.readers:
                frame = self.readers[name].read()
                images[name] = frame.image
                times.append(frame.time_s)
            else:
                images[name] = _shrunk(_of_driver(name, state), int(given.get("size", 128)))
        return images, times

    def look(
        self, state: Callable[[], State], wait: Callable[[float], object], frames: int = FRAMES
    ) -> dict[str, np.ndarray]:
        """Camera -> uint8 (H, W, 3) RGB: the mean of its next `frames`, cropped, at the source's own resolution.

        Takes less than a second. `state` returns the newest; `wait` sleeps for so long. Raises CameraError, ArmError.
        """
        begun_s = time.monotonic()
        while (left_s := begun_s + SETTLE_S - time.monotonic()) > 0:  # `wait` may return earlier
            wait(left_s)
        seen: dict[str, list[np.ndarray]] = {name: [] for name in self._given}
        newest: dict[str, float] = {}
        end_s = time.monotonic() + LONGEST_S
        while any(len(images) < frames for images in seen.values()):
            views = {name: camera.view() for name, camera in self.readers.items()}
            if len(views) < len(seen):
                driver = state()
                views |= {name: (driver.time_s, _of_driver(name, driver)) for name in seen if name not in views}
            for name, (number, image) in views.items():
                if number != newest.get(name) and len(seen[name]) < frames:
                    newest[name] = number
                    seen[name].append(image)
            if time.monotonic() > end_s:
                break
            wait(LOOK_S)
        return {name: np.mean(images, axis=0).round().astype(np.uint8) for name, images in seen.items()}

    def close(self) -> None:
        for camera in self.readers.values():
            camera.close()


def _of_driver(name: str, state: State) -> np.ndarray:
    if name not in state.images:
        there = ", ".join(state.images) or "none"
        raise ArmError(f"camera '{name}': the arm's driver has none of that name; it has {there}")
    return state.images[name]


def _shrunk(image: np.ndarray, size: int) -> np.ndarray:
    import cv2

    return image if image.shape[:2] == (size, size) else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
