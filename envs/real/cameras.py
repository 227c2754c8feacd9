"""Cameras of a real robot: a thread per camera keeps its newest frame, and `Camera.read` never waits for one.

A camera whose frames stop, or stay the same to the last byte, is not shown: `read` raises until it is back.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from envs.real.arm import described
from envs.real.camera_options import CameraError, CameraOptions, parse
from envs.real.camera_sources import Source, make

RETRY_S, LONGEST_RETRY_S = 0.25, 4.0  # before a camera is opened again; doubled while that does not help
FAILED_READS = 3  # in a row, and it is opened again
SPARSE = 16  # every so many rows are compared before all are

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """image: uint8 (size, size, 3) RGB, shared by all who read it; change a copy. time_s: time.monotonic() when the
    source handed it over. number: 1 for the first after the start, and one more each.
    """

    image: np.ndarray
    time_s: float
    number: int


class _Newest(NamedTuple):
    frame: Frame
    raw: np.ndarray
    changed_s: float  # when these bytes came first


class Camera:
    """A camera and its reader thread. frames, drops (reads that failed) and reconnects count since the start.

    Raises ValueError for bad options. `source` takes the place of the one that the options name.
    """

    def __init__(self, name: str, options: CameraOptions, source: Source | None = None) -> None:
        self.name, self.options = name, parse(name, vars(options))
        self.source = source or make(name, self.options)
        self.frames = self.drops = self.reconnects = 0
        self._newest: _Newest | None = None  # the reader swaps the whole of it, so `read` needs no lock
        self._fault: Exception | None = None
        self._asked_s = 0.0  # when the reader went into the driver last
        self._opened, self._down = False, False
        self._closing, self._arrived = threading.Event(), threading.Event()
        # A daemon: a driver that never returns must not keep the process from ending.
        self.thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)

    def begin(self) -> None:
        """Start the reader and do not wait for it. Raises ValueError after `close`."""
        if self._closing.is_set():
            raise ValueError(f"camera '{self.name}': is closed; make a new one")
        if not self.thread.ident:
            self._asked_s = time.monotonic()
            self.thread.start()

    def start(self, timeout_s: float = 10.0) -> None:
        """Wait for the first frame after the warm-up. Raises ValueError with the cause when none comes, and closes."""
        self.begin()
        deadline_s = time.monotonic() + timeout_s
        while not self._arrived.wait(0.02):
            final = isinstance(self._fault, ValueError)  # a wrong option or a missing device: no use in waiting
            if final or time.monotonic() > deadline_s:
                cause = self._cause()
                self.close(timeout_s=0.5)
                after = "" if final else f"no frame within {timeout_s:g} s: "
                raise ValueError(f"camera '{self.name}': {after}{cause}") from None

    def read(self) -> Frame:
        """The newest frame, at once. Raises CameraError, one line, when it is older than max_age_s or frozen."""
        newest = self._newest
        if newest is None or self._closing.is_set():
            raise CameraError(f"camera '{self.name}': {self._cause() if self.thread.ident else 'was not started'}")
        age_s = time.monotonic() - newest.frame.time_s
        if age_s > self.options.max_age_s:
            raise CameraError(
                f"camera '{self.name}': newest frame is {age_s:.2f} s old, more than max_age_s "
                f"{self.options.max_age_s:g}: {self._cause()}"
            )
        if self._frozen(newest):
            still_s = newest.frame.time_s - newest.changed_s
            raise CameraError(f"camera '{self.name}': newest frame is {age_s:.2f} s old: {_frozen_line(still_s)}")
        return newest.frame

    def view(self) -> tuple[int, np.ndarray]:
        """(number of the newest frame, its crop uint8 (H, W, 3) RGB as the source sends it). Raises as `read` does."""
        self.read()
        newest = self._newest  # the reader swaps it at any moment
        assert newest
        return newest.frame.number, cv2.cvtColor(self._cropped(newest.raw), cv2.COLOR_BGR2RGB)

    def close(self, timeout_s: float = 2.0) -> None:
        """End the reader; returns within timeout_s. A reader that its driver does not let go of is logged and left."""
        self._closing.set()
        if self.thread.ident and self.thread is not threading.current_thread():
            self.thread.join(timeout_s)
            if self.thread.is_alive():
                log.warning(
                    "camera '%s': its driver does not return; its thread is left and ends with the process", self.name
                )

    def _cause(self) -> str:
        if self._closing.is_set():
            return "is closed"
        if self._fault is not None:
            return described(self._fault)
        return f"its driver has not answered for {time.monotonic() - self._asked_s:.1f} s"

    def _frozen(self, newest: _Newest) -> bool:
        return 0 < self.options.frozen_s < newest.frame.time_s - newest.changed_s

    def _run(self) -> None:
        retry_s = RETRY_S
        while not self._closing.is_set():
            changed_s = self._newest and self._newest.changed_s
            try:
                self._stream()
            except Exception as error:  # whatever a driver comes up with
                self._fail(error)
            with contextlib.suppress(Exception):
                self.source.close()
            helped = (self._newest and self._newest.changed_s) != changed_s
            retry_s = RETRY_S if helped else min(2 * retry_s, LONGEST_RETRY_S)
            self._closing.wait(retry_s)

    def _stream(self) -> None:
        """Open the source and keep its newest frame until it fails or `close`. Raises what the source raises."""
        self._asked_s = time.monotonic()
        self.source.open()
        self.reconnects += self._opened
        self._opened = True
        skip, failed = self.options.warmup_frames, 0
        while not self._closing.is_set():
            self._asked_s = time.monotonic()
            try:
                raw = self.source.read()
                arrived_s = time.monotonic()
                if skip:
                    skip -= 1
                    continue
                image = self._image(raw)
            except Exception as error:
                failed, self.drops = failed + 1, self.drops + 1
                if failed == FAILED_READS:
                    raise
                self._fault = error
                continue
            failed = 0
            self._keep(raw, image, arrived_s)

    def _image(self, raw: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) BGR -> uint8 (size, size, 3) RGB. Raises ValueError for what the options do not announce."""
        options, size = self.options, self.options.size
        if raw.dtype != np.uint8 or raw.ndim != 3 or raw.shape[2] != 3:
            raise ValueError(f"it sends {raw.dtype} {raw.shape}, not uint8 (height, width, 3): choose another fourcc")
        if raw.shape[:2] != (options.height, options.width):
            raise ValueError(
                f"it sends {raw.shape[1]} x {raw.shape[0]} pixels, not {options.width} x {options.height}: "
                "set width and height (and crop) to what it has (v4l2-ctl --list-formats-ext)"
            )
        raw = self._cropped(raw)
        if raw.shape[:2] != (size, size):
            raw = cv2.resize(raw, (size, size), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(raw, cv2.COLOR_BGR2RGB)

    def _cropped(self, raw: np.ndarray) -> np.ndarray:
        if not self.options.crop:
            return raw
        top, left, rows, columns = self.options.crop
        return raw[top : top + rows, left : left + columns]

    def _keep(self, raw: np.ndarray, image: np.ndarray, arrived_s: float) -> None:
        """Raises CameraError for a frozen one, which is then opened again."""
        before = self._newest
        changed_s = before.changed_s if before is not None and _same(raw, before.raw) else arrived_s
        self.frames += 1
        self._newest = _Newest(Frame(image, arrived_s, self.frames), raw, changed_s)
        if self._frozen(self._newest):
            raise CameraError(_frozen_line(arrived_s - changed_s))
        self._fault = None
        if self._down:
            self._down = False
            log.warning("camera '%s': is back", self.name)
        self._arrived.set()

    def _fail(self, error: Exception) -> None:
        """Said once an outage."""
        self._fault = error
        if self._arrived.is_set() and not self._down and not self._closing.is_set():
            self._down = True
            log.warning("camera '%s': %s; it is opened again until it is back", self.name, described(error))


def start_all(cameras: Sequence[Camera], timeout_s: float = 10.0) -> None:
    """Start them side by side. Raises ValueError for the first that sends nothing, and closes all."""
    for camera in cameras:
        camera.begin()
    deadline_s = time.monotonic() + timeout_s
    try:
        for camera in cameras:
            camera.start(max(0.1, deadline_s - time.monotonic()))
    except BaseException:
        for camera in cameras:
            camera.close()
        raise


def _same(new: np.ndarray, old: np.ndarray) -> bool:
    """Byte for byte; a live camera's differ within a few rows."""
    return new.shape == old.shape and bool((new[::SPARSE] == old[::SPARSE]).all() and (new == old).all())


def _frozen_line(still_s: float) -> str:
    return f"frozen, the same to the last byte for {still_s:.1f} s; plug it in again (a synthetic source: frozen_s 0)"
