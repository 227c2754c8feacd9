"""Images as they come: PNG and JPEG decoded, other sizes, and memory looked at before it is taken."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np

from agent.data.frames import Frames
from agent.memory import available_bytes
from tools.formats.common.foreign import FormatError

MAX_PIXELS = 1 << 24  # of an image or a video's frame, 4096 x 4096


class DeepImage(FormatError):
    """An image of 16 bits a pixel (a depth image): 8 bits would hold next to nothing of it."""


def resized(images: Any, side: int | None) -> Any:
    """(T, H, W, 3) at `side` x `side` pixels, an array or Frames as given; unchanged for None."""
    if side is None or images.shape[1:3] == (side, side):
        return images
    if isinstance(images, Frames):
        return images.mapped((side, side, 3), lambda block: resized(block, side))
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def picture(data: bytes) -> np.ndarray:
    """(H, W, 3) from PNG or JPEG. Raises FormatError, also for one of more than MAX_PIXELS; DeepImage for 16 bits."""
    from PIL import Image  # of the extra [record], which reading other formats does without

    try:
        with Image.open(io.BytesIO(data or b""), formats=["PNG", "JPEG"]) as head:  # reads no more than its size
            width, height = head.size
    except Image.DecompressionBombError:
        raise FormatError(f"an image in the table has more than {MAX_PIXELS:,} pixels") from None
    except (OSError, ValueError, SyntaxError, TypeError):
        raise FormatError("an image in the table is missing or damaged") from None
    if width * height > MAX_PIXELS:
        raise FormatError(f"an image in the table has more than {MAX_PIXELS:,} pixels: {width} x {height}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise FormatError("an image in the table is missing or damaged")
    if image.dtype != np.uint8:
        raise DeepImage("an image in the table has 16 bits a pixel, as depth has; --drop leaves it out")
    return image[..., ::-1]


def check_fits(count_bytes: int) -> None:
    """Raise FormatError unless so many bytes are free twice."""
    if 2 * count_bytes > (free := available_bytes()):
        raise FormatError(f"{count_bytes / 1e9:.1f} GB of frames, too many for {free / 1e9:.1f} GB of memory")
