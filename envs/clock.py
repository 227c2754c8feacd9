"""A fixed control rate."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gymnasium


def natural_hz(env: gymnasium.Env) -> float:
    """Steps a second at which `env` (a gymnasium.Env) shows real time: its own control rate, 20 where it has none."""
    return float(getattr(getattr(env.unwrapped, "options", None), "control_hz", 20.0))


class Clock:
    """`hz` steps a second by absolute deadlines, so that errors do not add up; hz = 0 does not wait at all.

    misses: steps that ended after their deadline. late_s: how late the newest ones were woken, or ended. A step less
    than one period late is caught up by a shorter one; after a longer stall the rate starts anew, because a burst of
    commands would make an arm jump.
    """

    def __init__(
        self,
        hz: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.hz = hz
        self.misses = self.steps = 0
        self.late_s: deque[float] = deque(maxlen=100_000)
        self._now, self._sleep = now, sleep
        self._deadline_s = 0.0

    def start(self) -> None:
        """The first step begins now."""
        if self.hz:
            self._deadline_s = self._now() + 1 / self.hz

    def wait(self, idle: Callable[[float], object] | None = None) -> None:
        """Sleep until the step's deadline. The time is given to `idle(timeout_s)`, which may return earlier."""
        if not self.hz:
            return
        late_s = self._now() - self._deadline_s
        self.misses += late_s > 0
        if late_s > 1 / self.hz:
            self._deadline_s = self._now()
        while (left_s := self._deadline_s - self._now()) > 0:
            if idle and left_s > 0.003:  # its last milliseconds are slept: a poll is not that exact
                idle(left_s - 0.002)
            else:
                self._sleep(left_s)
        self.steps += 1
        self.late_s.append(max(late_s, self._now() - self._deadline_s))
        self._deadline_s += 1 / self.hz

    def late(self, newest: int | None = None) -> tuple[float, float]:
        """Median and 99th percentile of how late the `newest` steps (all that are kept) ended, in seconds."""
        late_s = sorted(itertools.islice(reversed(self.late_s), newest)) or [0.0]
        return late_s[int(0.5 * (len(late_s) - 1))], late_s[int(0.99 * (len(late_s) - 1))]

    def __str__(self) -> str:
        if not self.steps:
            return "no steps"
        median_s, most_s = self.late()
        return (
            f"{self.misses} of {self.steps} steps took longer than 1/{self.hz:g} s; "
            f"a step ended {1000 * median_s:.2f} ms after its deadline (median; p99 {1000 * most_s:.2f} ms)"
        )
