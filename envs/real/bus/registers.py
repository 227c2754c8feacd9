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
    """One of `names` is read each READ_S, all of them at first, after a pause and once expired.

    read: the values of one, (n,). lost: replies that were. The last values stand then.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], np.ndarray]) -> None:
        self._names, self._read, self.lost = names, read, 0
        self._values: dict[str, np.ndarray] = {}
        self._due = list(names)  # now
        self._turn, self._next_s, self._updated_s = 0, 0.0, 0.0

    def expire(self) -> None:
        """The motors do something else now: the next update reads all."""
        self._due = list(self._names)

    def update(self) -> dict[str, np.ndarray]:
        """Name -> the newest values. Raises what `read` raises: one of LOST only where none are known yet, and the next
        update goes on from there.
        """
        now_s = time.monotonic()
        if now_s - self._updated_s > PAUSE_S:
            self.expire()
        elif not self._due and self._names and now_s >= self._next_s:
            self._due, self._turn = [self._names[self._turn % len(self._names)]], self._turn + 1
        self._updated_s = now_s
        while self._due:
            name, self._next_s = self._due[0], now_s + READ_S
            try:
                self._values[name] = self._read(name)
            except LOST:
                if name not in self._values:
                    raise
                self.lost, self._next_s = self.lost + 1, now_s + RETRY_S
                self._due.clear()
                break
            self._due.pop(0)
        return self._values
