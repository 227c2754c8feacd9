"""From a raw deflection to a motion: dead band, speed, smoothing; the same for every device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from robot_server.command import STILL
from tools.recording.config import CollectConfig


class Shaping:
    """Keeps the motion before, for the smoothing. `speed` may be changed at any time."""

    def __init__(self, config: CollectConfig, now: Callable[[], float] = time.monotonic) -> None:
        self.speed, self._rotation_speed = config.speed, config.rotation_speed
        self._dead_band, self._smoothing_s, self._now = config.dead_band, config.smoothing_s, now
        self._motion, self._time_s = STILL, now()

    def motion(self, raw: np.ndarray) -> np.ndarray:
        """raw: (6,), a deflection in [-1, 1] on each axis. The motion of a Command: float32 (6,) in [-1, 1].

        An axis within the dead band is still and grows from 0 at its edge. The motion follows with the time constant
        collect.smoothing_s; an axis that is let go of is still at once.
        """
        size = np.clip((np.abs(raw) - self._dead_band) / (1 - self._dead_band), 0, 1)
        scale = np.repeat([self.speed, self._rotation_speed], 3)
        wanted = (np.sign(raw) * size * scale).astype(np.float32)
        time_s = self._now()
        share = 1 - math.exp((self._time_s - time_s) / self._smoothing_s) if self._smoothing_s else 1.0
        self._time_s = time_s
        self._motion = np.where(wanted == 0, STILL, self._motion + np.float32(share) * (wanted - self._motion))
        return self._motion
