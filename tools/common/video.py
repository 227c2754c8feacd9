"""Pictures for people: cameras side by side, enlarged, with a line of text above; MP4 files of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent.env_record import EnvRecord
from agent.files import appearing
from agent.spec import Observation, Spec, UserError

Colour = tuple[int, int, int]
GREEN, RED, WHITE, GREY = (120, 230, 120), (255, 130, 120), (255, 255, 255), (160, 160, 160)
TEXT_HEIGHT, VIEW_HEIGHT = 20, 256


def enlarge(image: np.ndarray, height: int) -> np.ndarray:
    """`image` (H, W, 3) at `height` rows, its proportions kept; the width is made even, as H.264 wants it."""
    width = max(2, round(image.shape[1] * height / image.shape[0] / 2) * 2)
    grows = height >= image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)


def with_text(image: np.ndarray, text: str, colour: Colour = WHITE, lines: int = 1) -> np.ndarray:
    """`image` under a black strip with `text` (its lines separated by newlines), shrunk where it is too wide."""
    strip = np.zeros((TEXT_HEIGHT * lines, image.shape[1], 3), np.uint8)
    for number, line in enumerate(text.split("\n")[:lines]):
        (width, _), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        scale = 0.45 * min(1.0, (image.shape[1] - 8) / max(width, 1))
        at = (4, TEXT_HEIGHT * number + 14)
        cv2.putText(strip, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return np.concatenate([strip, image])


def picture(observation: Observation, cameras: list[str], text: str, success: bool = False) -> np.ndarray:
    """One frame of a video: every camera under its name, and `text` above them all, green from the success on."""
    views = [with_text(enlarge(observation[name], VIEW_HEIGHT), name, GREY) for name in cameras]
    text, colour = (f"{text}   success", GREEN) if success else (text, WHITE)
    return with_text(np.concatenate(views, axis=1), text, colour)


def jpeg(image: np.ndarray, quality: int = 80) -> bytes:
    """image: uint8 (H, W, 3), RGB."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def require_cameras(spec: Spec, what: str) -> list[str]:
    if not spec.cameras:
        raise UserError(f"{what}: no cameras, so there is nothing to make a video of")
    return list(spec.cameras)


UNKNOWN_FPS = 10  # frames a second of a video, where no control rate is known


def fps_of(meta: Mapping[str, Any]) -> float | None:
    """Steps a second of an episode with this meta: of simulated time, where there is one, else as it was recorded."""
    return EnvRecord.of_episode(meta).options.get("control_hz") or meta.get("fps")


def pixel_format(height: int, width: int) -> str:
    return "yuv444p" if height % 2 or width % 2 else "yuv420p"  # half the colour resolution needs even sides


class Film:
    """An MP4 file of frames, uint8 (H, W, 3), one every 1 / fps seconds. options: of libx264. Errors are OSErrors."""

    def __init__(self, path: Path, fps: float, options: dict[str, str] | None = None) -> None:
        self.path, self.frames, self.bytes = path, 0, 0
        self._rate, self._options = Fraction(fps).limit_denominator(1000), options or {}
        self._file: Any = None
        self._stream: Any = None

    def add(self, image: np.ndarray) -> None:
        if not self._file:
            self._open(*image.shape[:2])
        import av  # not before there is a film: it is in the extra [record]

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        self._write(self._stream.encode(frame))
        self.frames += 1

    def _open(self, height: int, width: int) -> None:
        import av

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = av.open(str(self.path), "w", format="mp4")
        self._stream = self._file.add_stream("libx264", rate=self._rate, options=self._options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = pixel_format(height, width)

    def _write(self, packets: list[Any]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._file.mux(packets)

    def close(self) -> None:
        if self._file:
            with contextlib.closing(self._file):
                self._write(self._stream.encode())


@contextlib.contextmanager
def mp4(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields write(frame). The file appears under its name once it is complete."""
    try:
        with appearing(path) as aside, contextlib.closing(Film(aside, fps)) as film:
            yield film.add
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
