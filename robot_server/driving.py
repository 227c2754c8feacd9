"""What a driver asks of the arm, read from a message; and when a driver has gone silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agent.wire.untrusted import WireError
from robot_server.history import History

SILENT_S = 0.5  # a shorter silence of a driver is no event: a connection that stutters makes many


def read_drive(question: dict[str, Any], gripper: float) -> np.ndarray:
    """float32 (7,) in [-1, 1]: motion and gripper (`gripper`: where it is to stay as it is). Raises WireError."""
    motion: Any = question.get("motion")
    asked = gripper if question.get("gripper") is None else question["gripper"]
    try:
        numbers = np.array([*motion, asked], np.float32)
    except (TypeError, ValueError):
        raise WireError(f"drive: motion of type {type(motion).__name__}, gripper {type(asked).__name__}") from None
    if numbers.shape != (7,) or not np.isfinite(numbers).all():
        raise WireError(f"drive: {numbers.shape} numbers, or some that are not finite")
    return np.clip(numbers, -1, 1)


def read_place(given: object) -> dict[str, float] | None:
    """Of a leader arm. Raises WireError for anything but names and finite numbers."""
    if given is None:
        return None
    if not isinstance(given, dict) or not all(
        isinstance(name, str) and isinstance(value, (int, float)) and math.isfinite(value)
        for name, value in given.items()
    ):
        raise WireError("drive: 'place' does not map names to finite numbers")
    return {name: float(value) for name, value in given.items()}


class Watch:
    """Who drives, as events in `history`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._driven = self._silent = False

    def look(self, driven: bool, silent_s: float) -> None:
        """driven: by a person, whose last command is `silent_s` old."""
        silent = driven and silent_s > SILENT_S
        if driven != self._driven:
            self._history.event("drive", "a person drives" if driven else "the policy acts again")
        elif silent and not self._silent:
            self._history.event("drive", "held: the driver is silent", warning=True)
        elif self._silent and not silent:
            self._history.event("drive", "the driver is back")
        self._driven, self._silent = driven, silent
