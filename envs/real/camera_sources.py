"""Where a camera's frames come from: V4L2 (USB cameras), RealSense, or a file played as if it were a camera."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from envs.real.camera_options import CameraError, CameraOptions

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 2
MANUAL, AUTOMATIC = 1, (3, 0)  # V4L2's exposure modes: manual; aperture priority, else fully automatic
IMAGES = (".png", ".jpg", ".jpeg", ".bmp")


class Source(Protocol):
    """One thread calls all of it. `open` may follow `close`, and `close` may follow a failed `open`.

    `open` raises ValueError where waiting won't help (an option, a missing device), another exception where it may.
    """

    def open(self) -> None: ...

    def read(self) -> np.ndarray:
        """The next frame, uint8 (H, W, 3) BGR, which the source leaves alone from then on. Waits for it."""
        ...

    def close(self) -> None: ...


class V4L2:
    """A USB camera by OpenCV. A read waits for READ_TIMEOUT_S at most, if OpenCV was not used for cameras before."""

    def __init__(self, name: str, options: CameraOptions) -> None:
        self._name, self._options = name, options
        device = options.device
        self.path = str(device) if isinstance(device, str) and not device.isdigit() else f"/dev/video{device}"
        self._capture: Any = None

    def open(self) -> None:
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(READ_TIMEOUT_S))  # without it, 10 s
        self._reachable()
        self._capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise CameraError(
                f"{self.path} cannot be opened: another process has it (fuser -v {self.path}), or it is not the "
                "camera's video node (v4l2-ctl --list-devices)"
            )
        self._set_format()
        self._set_exposure()  # after the format: setting that restarts the stream, and some drivers forget

    def read(self) -> np.ndarray:
        frame: np.ndarray
        good, frame = self._capture.read()
        if not good:
            raise CameraError(f"{self.path} sends no frame: check its cable and the USB port's bandwidth")
        return frame

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _reachable(self) -> None:
        if not os.path.exists(self.path):
            there = ", ".join(sorted(glob.glob("/dev/video*"))) or "no /dev/video* at all; is it plugged in?"
            raise ValueError(f"device {self.path} is not there (there is {there})")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise ValueError(
                f"no permission for {self.path}: join the group video (sudo usermod -aG video $USER) and log in again"
            )

    def _set_format(self) -> None:
        """The pixel format first: it decides which sizes and rates there are."""
        options, capture = self._options, self._capture
        if options.fourcc:
            code = cv2.VideoWriter.fourcc(*options.fourcc)
            capture.set(cv2.CAP_PROP_FOURCC, code)
            if int(capture.get(cv2.CAP_PROP_FOURCC)) != code:
                self._say(f"fourcc {options.fourcc} did not take; the driver uses its own, and may be slower")
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.height)
        capture.set(cv2.CAP_PROP_FPS, options.fps)
        if abs((answer := capture.get(cv2.CAP_PROP_FPS)) - options.fps) > 0.05 * options.fps:
            self._say(f"fps {options.fps:g} did not take; the driver answers {answer:g}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def _set_exposure(self) -> None:
        """The mode first: a driver refuses a fixed time while it chooses for itself. It remembers both when closed."""
        capture, wanted = self._capture, self._options.exposure
        if wanted is None:
            any(capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, mode) for mode in AUTOMATIC)
            return
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, MANUAL)
        capture.set(cv2.CAP_PROP_EXPOSURE, wanted)
        mode, answer = capture.get(cv2.CAP_PROP_AUTO_EXPOSURE), capture.get(cv2.CAP_PROP_EXPOSURE)
        if mode != MANUAL or abs(answer - wanted) > 0.05 * wanted:
            self._say(
                f"exposure {wanted:g} did not take; the driver answers {answer:g} in mode {mode:g}, not {MANUAL}; "
                f"v4l2-ctl -d {self.path} -l lists what it takes"
            )

    def _say(self, what: str) -> None:
        log.warning("camera '%s': %s", self._name, what)


class RealSense:
    """The colour stream of an Intel RealSense. device: its serial number, or 0 where only one is plugged in."""

    def __init__(self, name: str, options: CameraOptions) -> None:
        self._name, self._options = name, options
        self._pipeline: Any = None

    def open(self) -> None:
        try:
            import pyrealsense2 as rs
        except ImportError:
            raise ValueError("source realsense needs the extra [realsense]: pip install pyrealsense2") from None
        options, config, pipeline = self._options, rs.config(), rs.pipeline()
        config.enable_device(self._serial(rs))
        config.enable_stream(rs.stream.color, options.width, options.height, rs.format.bgr8, round(options.fps))
        try:
            profile = pipeline.start(config)
        except RuntimeError as error:
            raise CameraError(
                f"{error} (does it have {options.width} x {options.height} at {options.fps:g} fps, is it on USB 3, "
                "does another process have it? rs-enumerate-devices)"
            ) from None
        self._pipeline = pipeline
        self._set_exposure(rs, profile.get_device())

    def read(self) -> np.ndarray:
        frame = self._pipeline.wait_for_frames(1000 * READ_TIMEOUT_S).get_color_frame()
        if not frame:
            raise CameraError("the RealSense sent no colour frame")
        return np.array(frame.get_data())  # a copy: the driver uses its buffer again

    def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def _serial(self, rs: Any) -> str:
        there = [str(device.get_info(rs.camera_info.serial_number)) for device in rs.context().query_devices()]
        wanted = str(self._options.device)
        if wanted in there:
            return wanted
        if wanted == "0" and len(there) == 1:
            return there[0]
        if not there:
            raise ValueError(f"device {wanted}: no RealSense is plugged in (rs-enumerate-devices)")
        asked = "device 0 means the only RealSense" if wanted == "0" else f"no RealSense has the serial number {wanted}"
        raise ValueError(f"{asked}; set device to one of {', '.join(there)}")

    def _set_exposure(self, rs: Any, device: Any) -> None:
        """On the sensor that has the colour stream: a module of its own (D435), or the stereo module (D405)."""
        wanted = self._options.exposure
        for sensor in device.query_sensors():
            if not any(profile.stream_type() == rs.stream.color for profile in sensor.get_stream_profiles()):
                continue
            try:
                sensor.set_option(rs.option.enable_auto_exposure, float(wanted is None))
                if wanted is not None:
                    sensor.set_option(rs.option.exposure, wanted)
            except RuntimeError as error:
                log.warning("camera '%s': exposure %s did not take: %s", self._name, wanted or "automatic", error)


class File:
    """A video at its own rate, or a folder's images (by name) at `fps`, over and over: rehearsal without a camera."""

    def __init__(self, name: str, options: CameraOptions) -> None:
        self.path, self._fps = Path(str(options.device)), options.fps
        self._images: list[Path] = []
        self._capture: Any = None
        self._next, self._due_s = 0, 0.0

    def open(self) -> None:
        self._due_s = time.monotonic()
        if self.path.is_dir():
            self._images = sorted(path for path in self.path.iterdir() if path.suffix.lower() in IMAGES)
            if not self._images:
                raise ValueError(f"device {self.path} holds no image ({', '.join(IMAGES)})")
            return
        if not self.path.is_file():
            raise ValueError(f"device {self.path} is not there; source file needs a video or a folder of images")
        self._capture = cv2.VideoCapture(str(self.path))
        if not self._capture.isOpened():
            raise ValueError(f"device {self.path} is not a video that OpenCV can read")
        self._fps = self._capture.get(cv2.CAP_PROP_FPS) or self._fps

    def read(self) -> np.ndarray:
        now_s = time.monotonic()
        self._due_s = max(self._due_s + 1 / self._fps, now_s)  # after a stall at the old rate, without catching up
        time.sleep(self._due_s - now_s)
        return self._image() if self._images else self._frame()

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _image(self) -> np.ndarray:
        path = self._images[self._next % len(self._images)]
        self._next += 1
        image = cv2.imread(str(path))
        if image is None:
            raise CameraError(f"{path} is not an image that OpenCV can read")
        return image

    def _frame(self) -> np.ndarray:
        frame: np.ndarray
        good, frame = self._capture.read()
        if not good:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            good, frame = self._capture.read()
        if not good:
            raise CameraError(f"{self.path} has no frame that OpenCV can read")
        return frame


def make(name: str, options: CameraOptions) -> Source:
    """The source that the options of the camera `name` ask for; opens nothing."""
    kinds: dict[str, Callable[[str, CameraOptions], Source]] = {"v4l2": V4L2, "realsense": RealSense, "file": File}
    return kinds[options.source](name, options)
