"""The safety filter: the last thing before the arm, for policy, person and reset alike.

Every axis has a range, and limits on what a command may change: its step, velocity and acceleration. Whatever is asked
for, the target that comes out stays inside all of them, and the arm could always still brake before the end of its
range: `Filter` keeps  p + v^2 / 2a <= high  (and the same below) after each command, so that braking with a is possible
from everywhere. Braking reduces v before it moves, which needs less room than v^2 / 2a; so the way out never closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LATEST = 1.5  # periods that a command covers at most, however late it comes


@dataclass(frozen=True)
class Limits:
    """float64 (n,) each, in the arm's units (m, rad, degrees, ...) and seconds; n axes.

    low, high: the workspace, or the joints' range. step: of one command. velocity, acceleration: of the target.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError naming the axis and the limit."""
        for key in ("low", "high", "step", "velocity", "acceleration"):
            for name, value in zip(names, getattr(self, key), strict=True):
                if not np.isfinite(value) or (key not in ("low", "high") and value <= 0):
                    raise ValueError(
                        f"axis '{name}': {key} is {value:g}; it must be finite"
                        + " and above 0" * (key not in ("low", "high"))
                    )
        for name, low, high in zip(names, self.low, self.high, strict=True):
            if low > high:
                raise ValueError(f"axis '{name}': low {low:g} is above high {high:g}")

    def reach(self, position: np.ndarray, period_s: float) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), float64 (n,) each: the farthest that `Filter` sends an arm at `position` within a period.

        It is taken to move at full speed already. From outside of the range it only comes back.
        """
        low, high = np.minimum(self.low, position), np.maximum(self.high, position)
        farthest = np.minimum(self.velocity * period_s, self.step / LATEST)
        up = np.minimum(farthest, _into(high - position, self.acceleration, period_s) * period_s)
        down = np.minimum(farthest, _into(position - low, self.acceleration, period_s) * period_s)
        return position - down, position + up


class Filter:
    """Turns requested positions into targets within `limits`, for an arm that gets a command every `period_s`.

    position, velocity: float64 (n,), of the target that was given last, at time_s. elapsed_s: what was counted for
    it, since the one before. refused: requests that were NaN or infinite.
    """

    def __init__(self, limits: Limits, period_s: float) -> None:
        self.limits, self.period_s = limits, period_s
        self._longest_s = LATEST * period_s
        self._velocity = np.minimum(limits.velocity, limits.step / self._longest_s)
        self.position: np.ndarray = np.clip(np.zeros(len(limits.low)), limits.low, limits.high)
        self.velocity: np.ndarray = np.zeros_like(self.position)
        self.time_s = -np.inf
        self.refused, self.elapsed_s = 0, 0.0

    def rest(self, position: np.ndarray, time_s: float) -> None:
        """The arm stands at `position` (n,), measured; it may lie outside of the limits, and then only comes back."""
        self.position, self.velocity = np.array(position, np.float64), np.zeros(len(position))
        self.time_s = time_s

    def target(self, requested: np.ndarray, time_s: float) -> np.ndarray:
        """The target (n,) nearest to `requested` that may be commanded at `time_s`. NaN stands still.

        Raises ValueError for another shape: a program's mistake.
        """
        requested = np.asarray(requested, np.float64)
        if requested.shape != self.position.shape:
            raise ValueError(f"the request has the shape {requested.shape}, the arm {self.position.shape}")
        if not np.isfinite(requested).all():
            self.refused += 1
            requested = self.position
        self.elapsed_s = elapsed_s = min(max(time_s - self.time_s, 0.0), self._longest_s)
        if elapsed_s <= 0:
            return np.copy(self.position)
        limits, now, before = self.limits, self.position, self.velocity
        low, high = np.minimum(limits.low, now), np.maximum(limits.high, now)
        # The least and the most velocity that leaves room to brake, |v| t + v^2 / 2a = room:
        fastest = np.minimum(self._velocity, _into(high - now, limits.acceleration, elapsed_s))
        slowest = -np.minimum(self._velocity, _into(now - low, limits.acceleration, elapsed_s))
        change = limits.acceleration * elapsed_s
        lowest, highest = np.maximum(slowest, before - change), np.minimum(fastest, before + change)
        velocity = np.clip(
            (np.clip(requested, limits.low, limits.high) - now) / elapsed_s, lowest, np.maximum(lowest, highest)
        )
        self.position = np.clip(now + velocity * elapsed_s, low, high)
        self.velocity, self.time_s = velocity, time_s
        return np.copy(self.position)


def _into(room: np.ndarray, acceleration: np.ndarray, time_s: float) -> np.ndarray:
    """v >= 0 of v t + v^2 / 2a = room."""
    velocity: np.ndarray = acceleration * (np.sqrt(time_s**2 + 2 * np.maximum(room, 0) / acceleration) - time_s)
    return velocity
