"""Device `keyboard`: keys in the terminal.

A terminal says that a key was pressed, and that it repeats, never that it was let go of. So a press moves the hand for
one step, and a key that repeats moves it until it has not repeated for HOLD_S: several times the interval of any usual
setting (25 to 40 ms; a repeat may be late over ssh), and the longest that the hand goes on once the key is released.
Between the first press and the first repeat lies the keyboard's own delay (some 250 to 600 ms), in which the hand
stands. Only the key pressed last repeats. A key that switches something over (gripper, pause, enable) does so once
however long it is held, and anew when it was let go for ONCE_S.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from robot_server.command import Command, Device
from tools.devices.shaping import Shaping
from tools.devices.terminal import Marks, Terminal
from tools.recording.config import CollectConfig

HOLD_S = 0.15
FASTER = 1.25
# key -> axis of the motion, sign
MOTIONS = {
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
    "up": (0, 1), "down": (0, -1), "left": (1, 1), "right": (1, -1),
    "j": (3, -1), "l": (3, 1), "i": (4, 1), "k": (4, -1), "u": (5, 1), "o": (5, -1),
}  # fmt: skip


class Keyboard(Device):
    """Raises UserError without a terminal."""

    keys = f"""\
keyboard: tap a key for one step, hold it to go on
  w / s       away from the robot's base / back
  a / d       left / right, seen from the base   (arrow keys: the same)
  r / f       up / down                        Space       close / open gripper
  u / o       turn left / right                i / k       pitch forward / back
  j / l       roll left / right                - / +       slower / faster
{Marks.keys}"""
    ENABLE = "\n  e           the arm follows the keys / does not"

    def __init__(self, config: CollectConfig, now: Callable[[], float] = time.monotonic) -> None:
        self._shaping, self._now = Shaping(config, now), now
        self._terminal, self._marks = Terminal("device 'keyboard'", now), Marks()
        self._last: dict[str, float] = {}  # key -> when it was seen last
        self._until: dict[str, float] = {}  # key that repeats -> when its motion ends
        self._gripper, self._enabled, self._enable_key = -1.0, not config.enable_key, config.enable_key
        if config.enable_key:
            self.keys += self.ENABLE

    def read(self) -> Command:
        time_s, keys = self._now(), self._terminal.keys()
        for key in keys:
            if key in MOTIONS:
                if time_s - self._last.get(key, -HOLD_S) < HOLD_S:
                    self._until[key] = time_s + HOLD_S
                self._last[key] = time_s
            elif key == "space":
                self._gripper = -self._gripper
            elif key == "e" and self._enable_key:
                self._enabled = not self._enabled
            elif key in ("+", "="):
                self._shaping.speed = min(1.0, self._shaping.speed * FASTER)
            elif key in ("-", "_"):
                self._shaping.speed /= FASTER
        raw = np.zeros(6)
        for key in {key for key in keys if key in MOTIONS} | {k for k, end in self._until.items() if time_s < end}:
            axis, sign = MOTIONS[key]
            raw[axis] += sign
        return Command(self._shaping.motion(raw), self._gripper, self._enabled, self._marks.events(keys))

    def reset(self, gripper: float = -1.0) -> None:
        self._gripper = gripper
        self._marks.reset()

    def close(self) -> None:
        self._terminal.close()
