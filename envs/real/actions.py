"""From an action to where the arm's axes are asked to go, and back: each axis by itself. Of a hand: envs.real.hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from envs.real.options import Axis

GRIP = 0.2  # an action beyond it closes the gripper, below its negative opens it: in between, the gripper stays


class Actions(Protocol):
    """What the m numbers of an action in [-1, 1] move. Targets are float64 (n,), of all axes of the arm.

    meaning: names, low and high for envs.base.action_meaning, and what else of it is known.
    """

    meaning: dict[str, Any]

    def rest(self, target: np.ndarray, anew: bool) -> None:
        """The arm stands at `target`; anew: an episode begins."""

    def requested(self, action: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Where `action` (m,) asks an arm to go that was last sent to `target`. NaN: where the filter refuses it."""

    def executed(self, begun: np.ndarray, target: np.ndarray) -> np.ndarray:
        """float32 (m,): the action that would have led from `begun` to `target`."""

    def towards(self, position: Mapping[str, float], target: np.ndarray) -> np.ndarray:
        """float64 (m,): the action that leads from `target` towards `position`, by name."""

    def states(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """What is observed beside the axes, of an arm measured at `position` (n,): float32 each."""


class AxisActions:
    """A number for each axis of `named`: a share of its speed; of a gripper: open or closed."""

    def __init__(self, named: Mapping[str, Axis], axes: Sequence[str], period_s: float) -> None:
        self._named = dict(named)
        self.places = [axes.index(name) for name in named]
        self._scale = np.array([axis.speed for axis in named.values()]) * period_s
        self._grips = np.array([axis.gripper for axis in named.values()], bool)
        self._grip = np.zeros(len(named))
        reach = [1.0 if axis.gripper else axis.speed * period_s for axis in named.values()]
        self.meaning: dict[str, Any] = {"names": list(named), "low": [-value for value in reach], "high": reach}

    def rest(self, target: np.ndarray, anew: bool) -> None:
        if anew:
            self._grip = target[self.places].copy()

    def requested(self, action: np.ndarray, target: np.ndarray) -> np.ndarray:
        requested: np.ndarray = target.copy()
        for number, (place, axis) in enumerate(zip(self.places, self._named.values(), strict=True)):
            if not axis.gripper:
                requested[place] += np.clip(action[number], -1, 1) * self._scale[number]
            elif abs(action[number]) > GRIP:
                requested[place] = axis.closed if action[number] > 0 else axis.opened
            else:  # as it was asked for last; NaN reaches the filter, which refuses it
                requested[place] = self._grip[number] + 0 * action[number]
        self._grip = np.where(np.isfinite(requested[self.places]), requested[self.places], self._grip)
        return requested

    def executed(self, begun: np.ndarray, target: np.ndarray) -> np.ndarray:
        moved = (target - begun)[self.places] / self._scale
        gripped = [1.0 if axis.grips(at) else -1.0 for at, axis in zip(self._grip, self._named.values(), strict=True)]
        return np.clip(np.where(self._grips, gripped, moved), -1, 1).astype(np.float32)

    def towards(self, position: Mapping[str, float], target: np.ndarray) -> np.ndarray:
        action = np.zeros(len(self._named))
        for number, (name, axis) in enumerate(self._named.items()):
            if name in position and axis.gripper:
                action[number] = 1.0 if axis.grips(position[name]) else -1.0
            elif name in position:
                action[number] = (position[name] - target[self.places[number]]) / self._scale[number]
        return np.clip(action, -1, 1)

    def states(self, position: np.ndarray) -> dict[str, np.ndarray]:
        return {}
