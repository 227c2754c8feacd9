"""The ways of a reset: from one position to another in even steps, whether the arm arrives, and whether it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.real.options import Axis
from envs.real.standing import STANDS, moving, window

ARRIVED = 0.02  # of an axis's range: so near is there
RELAXED_TOLERANCE = 5  # times as far off is near enough once the arm comes no nearer
SETTLE_TIMEOUT_S = 3.0  # for which it may come no nearer


class Route:
    """From `begin` to `goal`, float64 (n,) each, by at most `stride` (n,) a period.

    near: (n,), so far off is there; infinite for axes that need not arrive. patience: periods for which the arm may
    come no nearer. over: it has not arrived within them.
    """

    def __init__(
        self, begin: np.ndarray, goal: np.ndarray, stride: np.ndarray, near: np.ndarray, patience: int
    ) -> None:
        self.goal, self._stride, self._near, self._patience = goal, stride, near, patience
        self._left, self._off = patience, np.zeros(len(goal))
        self.restart(begin)

    def restart(self, begin: np.ndarray) -> None:
        """From here again; the patience goes on."""
        self._begin, self._done, self._closest = begin.copy(), 0, np.inf
        self._needed = int(np.ceil(np.max(np.abs(self.goal - begin) / self._stride, initial=0))) or 1

    @property
    def over(self) -> bool:
        return self._done >= self._needed and self._left <= 0

    def next(self) -> np.ndarray:
        """The target (n,) of the next period."""
        self._done = min(self._done + 1, self._needed)
        target: np.ndarray = self._begin + (self.goal - self._begin) * self._done / self._needed
        return target

    def arrived(self, position: np.ndarray) -> bool:
        """Whether the arm, measured at `position` (n,) after that target, is there."""
        self._off = np.abs(position - self.goal) / self._near
        if self._done == self._needed and np.all(self._off <= 1):
            return True
        nears = self._off.max() < self._closest - 0.5
        self._left, self._closest = (self._patience, self._off.max()) if nears else (self._left - 1, self._closest)
        return False

    def missed(self) -> int | None:
        """The axis that is farthest from its goal; None where all are near enough: arms sag, and touch things."""
        return int(np.argmax(self._off)) if np.any(self._off > RELAXED_TOLERANCE) else None


class Ways:
    """Of an arm with these `axes`, of which actions move those of `named`; the others stay.

    share: of each axis's speed. Targets and positions are float64 (n,), of all axes. window: positions that `stands`
    looks at.
    """

    def __init__(self, named: Mapping[str, Axis], axes: Sequence[str], share: float, period_s: float) -> None:
        self._axes, self._period_s = axes, period_s
        every = [named.get(name) for name in axes]
        spans = np.array([axis.high - axis.low if axis else np.inf for axis in every])
        grips = np.array([bool(axis and axis.grasps) for axis in every])
        self._near = np.where(grips, np.inf, ARRIVED * spans)  # a gripper may have something between its fingers
        self._stride = np.array([axis.speed if axis else np.inf for axis in every]) * share * period_s
        self._still = STANDS * spans
        self.window = window(period_s)

    def goal(self, target: np.ndarray, place: Mapping[str, float]) -> np.ndarray:
        """`target` with the axes in `place` there."""
        goal: np.ndarray = target.copy()
        for name, value in place.items():
            goal[self._axes.index(name)] = value
        return goal

    def route(self, target: np.ndarray, place: Mapping[str, float]) -> Route:
        """From `target` to `place`."""
        patience = int(SETTLE_TIMEOUT_S / self._period_s)
        return Route(target, self.goal(target, place), self._stride, self._near, patience)

    def stands(self, seen: Sequence[np.ndarray]) -> bool:
        """Whether the arm stands. seen: its positions, one a period, the newest last."""
        return not moving(seen, self._still, self._period_s).any()
