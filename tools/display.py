"""What a person sees while recording: a status line in the terminal, and by option the cameras in a window."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from agent.spec import Observation, UserError

AXES = "xyzabc"  # a, b, c: about x, y, z


def status_line(observation: Observation, status: dict[str, Any]) -> str:
    """'12 kept of 30 | recording | step 41 | return 0 | closed | x+0.50 z-1.00 | proprio 0.47 0.01 0.13'."""
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


class Display:
    """Raises UserError when a window is wanted where none can be."""

    def __init__(self, window: bool) -> None:
        self._line, self._window = sys.stderr.isatty(), window
        if window and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("collect.window: there is no display here ($DISPLAY is empty); --device browser needs none")

    def show(self, observation: Observation, status: dict[str, Any]) -> None:
        if self._line:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            text = status_line(observation, status)[: columns - 1]
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()
        if self._window:
            self._draw(observation)

    def say(self, line: str) -> None:
        """A line that stays."""
        sys.stderr.write(f"\r\x1b[K{line}\n" if self._line else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._line:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _draw(self, observation: Observation) -> None:
        import cv2

        images = [value for value in observation.values() if value.ndim == 3]
        height = max((image.shape[0] for image in images), default=0)
        if not height:
            return
        scale = max(1, round(360 / height))
        row = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) for image in images]
        row = [cv2.copyMakeBorder(image, 0, scale * height - len(image), 0, 4, cv2.BORDER_CONSTANT) for image in row]
        cv2.imshow("tools.collect", cv2.cvtColor(np.concatenate(row, 1), cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)
