"""Single images: decoded, and at another size."""

from __future__ import annotations

import cv2
import numpy as np

from agent.frames import Frames
from tools.formats.foreign import FormatError


def resized(images: np.ndarray, side: int | None) -> np.ndarray:
    """(T, H, W, 3) at `side` x `side` pixels; unchanged for None."""
    if side is None or images.shape[1:3] == (side, side):
        return images
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def picture(data: bytes) -> np.ndarray:
    """(H, W, 3) from PNG or JPEG. Raises FormatError, also for one of more than MAX_PIXELS."""
    try:
        with Image.open(io.BytesIO(data or b""), formats=["PNG", "JPEG"]) as head:  # reads no more than its size
            width, height = head.size
    except Image.DecompressionBombError:
        raise FormatError(f"an image in the table has more than {MAX_PIXELS:,} pixels") from None
    except (OSError, ValueError, SyntaxError):
        raise FormatError("an image in the table is missing or damaged") from None
    if width * height > MAX_PIXELS:
        raise FormatError(f"an image in the table has more than {MAX_PIXELS:,} pixels: {width} x {height}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise FormatError("an image in the table is missing or damaged")
    return image[..., ::-1]


def pictures(cells: Iterable[bytes], count: int) -> np.ndarray:
    """(count, H, W, 3) from as many PNGs or JPEGs. Raises FormatError, before the memory is taken."""
    rows: np.ndarray | None = None
    for number, cell in enumerate(cells):
        image = picture(cell)
        if rows is None:
            check_fits(count * image.nbytes)
            rows = np.empty((count, *image.shape), np.uint8)
        if image.shape != rows.shape[1:]:
            raise FormatError(f"image {number} has another size than the first")
        rows[number] = image
    return np.empty((0, 0, 0, 3), np.uint8) if rows is None else rows


def check_fits(count_bytes: int) -> None:
    """Raise FormatError unless so many bytes are free twice."""
    if 2 * count_bytes > (free := available_bytes()):
        raise FormatError(f"{count_bytes / 1e9:.1f} GB of frames, too many for {free / 1e9:.1f} GB of memory")
