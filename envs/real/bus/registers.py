"""What servos report besides where they are, read in turn, so that the control loop keeps its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from envs.real.lost_replies import LOST

READ_S = 0.1  # between two registers
PAUSE_S = 2.0  # without an update for so long, all are read: what is known is old
RETRY_S = 1.0  # after a lost reply, which has cost time


class Registers:
    """One of `names` is read each READ_S, all of them at first and after a pause. read: the values of one, (n,).

    lost: replies that were. The last values stand then.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], np.ndarray]) -> None:
        self._names, self._read, self.lost = names, read, 0
        self._values: dict[str, np.ndarray] = {}
        self._turn, self._next_s, self._updated_s = 0, 0.0, -np.inf

    def update(self) -> dict[str, np.ndarray]:
        """Name -> the newest values. Raises what `read` raises: one of LOST only where none are known yet."""
        now_s = time.monotonic()
        paused, self._updated_s = now_s - self._updated_s > PAUSE_S, now_s
        if self._names and (paused or now_s >= self._next_s):
            due = self._names if paused else [self._names[self._turn % len(self._names)]]
            self._next_s, self._turn = now_s + READ_S, self._turn + 1
            for name in due:
                try:
                    self._values[name] = self._read(name)
                except LOST:
                    if name not in self._values:
                        self._updated_s = -np.inf
                        raise
                    self.lost, self._next_s = self.lost + 1, now_s + RETRY_S
                    break
        return self._values
