"""The setpoints on the way from one target to the next.

The way to a target takes as long as the safety filter has counted for it, after what is left of the way before. So no
setpoint is faster than the filter allowed, whenever its command came: one that is late makes the way end later, and so
much does the arm lag behind the commands until it stands.
"""

from __future__ import annotations

import numpy as np


class Setpoints:
    """hz: of the setpoints; 0: each target is sent at once.

    goal, float64 (n,): where the way ends. sent_s: when the last setpoint was sent.

    Of two setpoints the second is no farther than what the filter's velocity covers in the time between them. Each is
    due 1 / hz after it was sent.
    """

    def __init__(self, hz: float, position: np.ndarray) -> None:
        self._ahead_s = 1 / hz if hz else 0.0
        self.rest(position, -np.inf)

    def rest(self, position: np.ndarray, since_s: float) -> None:
        """The arm stands at `position` (n,), and has done so since `since_s`."""
        self.goal = self._begin = self._setpoint = self._sent = np.array(position, np.float64)
        self._begin_s = self._end_s = self.sent_s = since_s

    def lead(self, goal: np.ndarray, counted_s: float, now_s: float) -> None:
        """From now on to `goal` (n,), of which the filter has counted `counted_s` for the part after the last goal."""
        begin_s = max(now_s, self.sent_s + self._ahead_s)
        begin = self._at(begin_s)
        left_s = max(self._end_s - begin_s, 0.0)
        if (begin == self.goal).all():
            left_s = 0.0
        elif (goal == self.goal).all():  # nothing is added to the way: it ends when it was to end
            counted_s = 0.0
        self.goal, self._begin, self._begin_s = goal, begin, begin_s
        self._end_s = begin_s + (left_s + counted_s if self._ahead_s else 0.0)

    def next(self, now_s: float) -> np.ndarray:
        """The setpoint (n,) that is sent now."""
        self.sent_s, self._setpoint = now_s, self._at(now_s + self._ahead_s)
        return np.copy(self._setpoint)

    def over(self, now_s: float) -> bool:
        """Whether no setpoint is to come."""
        return now_s >= self._end_s or bool((self._begin == self.goal).all())

    @property
    def sent(self) -> np.ndarray:
        """(n,), the last that was confirmed."""
        return np.copy(self._sent)

    def confirm(self, sent: np.ndarray) -> None:
        """In the place of the last setpoint the motors got `sent` (n,): the way goes on from there."""
        if (short := sent - self._setpoint).any():
            self.goal, self._begin = self.goal + short, self._begin + short
        self._sent = np.array(sent, np.float64)

    def _at(self, time_s: float) -> np.ndarray:
        if time_s >= self._end_s:
            return self.goal
        share = max(time_s - self._begin_s, 0.0) / (self._end_s - self._begin_s)
        at: np.ndarray = self._begin + share * (self.goal - self._begin)
        return at
