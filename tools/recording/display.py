"""What a person sees while recording: a status line in the terminal, by option the cameras, there or in a window."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from agent.spec import Observation, UserError

AXES = "xyzabc"  # a, b, c: about x, y, z
CAMERA_COLUMNS = 48  # of the terminal, at most, for each camera
PICTURE_S = 0.2  # between two pictures in the terminal: some 50 kB each, and over ssh they must not hold up the arm


def status_line(observation: Observation, status: dict[str, Any]) -> str:
    """'12 kept of 30 | recording | step 41 | return 0 | closed | x+0.50 z-1.00 | proprio 0.470 0.010 0.130'."""
    motion = " ".join(f"{axis}{value:+.2f}" for axis, value in zip(AXES, status["motion"]) if value)
    parts = [
        f"{status['kept']} kept of {status['asked']}",
        status["state"] + (" (success)" if status["success"] else ""),
        f"step {status['step']}",
        f"return {status['return']:g}",
        "closed" if status["gripper"] > 0 else "open",
        (motion or "still") if status["enabled"] else "not enabled",
    ]
    for key, value in observation.items():
        if value.ndim == 1:
            parts.append(f"{key} " + " ".join(f"{number:.3f}" for number in value[:3]))
    return " | ".join(parts)


def side_by_side(observation: Observation, height: int) -> np.ndarray | None:
    """The cameras in one picture (height, W, 3); None without cameras."""
    import cv2

    images = [value for value in observation.values() if value.ndim == 3]
    if not images:
        return None
    widths = [max(1, round(image.shape[1] * height / image.shape[0])) for image in images]
    return np.concatenate(
        [cv2.resize(i, (w, height), interpolation=cv2.INTER_AREA) for i, w in zip(images, widths)], axis=1
    )


def in_characters(picture: np.ndarray) -> list[str]:
    """(2 H, W, 3) -> H lines of W half blocks, the upper half in the letter's colour, the lower in the ground's."""
    lines = []
    for upper, lower in zip(picture[::2].tolist(), picture[1::2].tolist()):
        cells = (f"\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀" for (a, b, c), (d, e, f) in zip(upper, lower))
        lines.append("".join(cells) + "\x1b[0m")
    return lines


class Display:
    """view: "line", "terminal" or "window". Raises UserError when a window is wanted where none can be."""

    def __init__(self, view: str) -> None:
        self._line, self._view = sys.stderr.isatty(), view
        self._above, self._drawn_s = 0, 0.0  # lines of the terminal that the picture takes
        if view == "window" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(
                "collect.view window: there is no display here ($DISPLAY is empty); --view terminal needs none"
            )

    def show(self, observation: Observation, status: dict[str, Any]) -> None:
        if self._view == "window":
            self._draw(observation)
        if not self._line:
            return
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
        text = "\r"
        if self._view == "terminal" and time.monotonic() - self._drawn_s > PICTURE_S:
            self._drawn_s = time.monotonic()
            lines = self._lines(observation, columns or 80, (rows or 24) - 2)
            text = self._top() + "".join(f"{line}\x1b[K\n" for line in lines)
            self._above = len(lines)
        sys.stderr.write(text + status_line(observation, status)[: (columns or 80) - 1] + "\x1b[K")
        sys.stderr.flush()

    def say(self, line: str) -> None:
        """A line that stays."""
        sys.stderr.write(f"{self._top()}\x1b[J{line}\n" if self._line else f"{line}\n")
        sys.stderr.flush()
        self._above = 0

    def close(self) -> None:
        if self._line:
            sys.stderr.write(f"{self._top()}\x1b[J")
            sys.stderr.flush()

    def _top(self) -> str:
        return "\r" + (f"\x1b[{self._above}A" if self._above else "")

    @staticmethod
    def _lines(observation: Observation, columns: int, rows: int) -> list[str]:
        picture = side_by_side(observation, 2)
        cameras = sum(value.ndim == 3 for value in observation.values())
        if picture is None or rows < 2:
            return []
        shape = picture.shape[1] / 2  # width / height
        width = min(columns - 1, cameras * CAMERA_COLUMNS)
        height = min(rows, int(width / shape / 2))
        picture = side_by_side(observation, 2 * max(1, height))
        return in_characters(picture[:, : columns - 1]) if picture is not None else []

    def _draw(self, observation: Observation) -> None:
        import cv2

        picture = side_by_side(observation, 360)
        if picture is not None:
            cv2.imshow("tools.collect", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            cv2.waitKey(1)
