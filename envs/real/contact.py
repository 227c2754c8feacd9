"""What happens when an arm meets something, or works too hard.

The target of an axis is no farther than `lag` ahead of it. One that stands there for `stuck_s`, whose motor exceeds a
limit for so long as is allowed, or reports an error, is a fault.

An axis with a `press` is relaxed instead when it stands, or exceeds its load or current: its target then stays no
farther than `press` ahead of it, until it is asked to go the other way, or has moved on. A gripper (an axis with a
`squeeze`) presses on things as its work: it stays relaxed until it is asked to go the other way, and overload that its
motor reports is no fault.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.real.arm import ArmError, State
from envs.real.effort import FORCES, UNITS, EffortLimits

OVERLOAD = "overload"  # the one error that relaxes a gripper
REMEDIES = {
    "load": "take off what loads it, then release",
    "current": "take off what loads it, then release",
    "temperature": "let it cool, then release",
}


class MotorError(ArmError):
    """A motor reports an error, which lasts until its torque goes off and on."""


class Contact:
    """Of the arm with these `axes`. lag, squeeze, press: float64 (n,), in their units.

    squeeze is NaN for all but grippers, press for axes that are not relaxed; None: for all. stuck_s: 0 for no limit.
    """

    def __init__(
        self,
        axes: Sequence[str],
        lag: np.ndarray,
        stuck_s: float,
        squeeze: np.ndarray | None,
        press: np.ndarray | None,
        limits: EffortLimits,
    ) -> None:
        self._axes, self._lag, self._stuck_s, self._limits = axes, lag, stuck_s, limits
        none = np.full(len(axes), np.nan)
        squeeze, press = none if squeeze is None else squeeze, none if press is None else press
        self._grips = np.isfinite(squeeze)
        self._presses_at_most = np.where(self._grips, squeeze, press)
        self._relaxes = np.isfinite(self._presses_at_most)
        # Of each axis whose requests were too far ahead of it: since when, where it was then, and on which side.
        self._behind_s, self._behind_at, self._side = np.full(len(axes), np.nan), *np.zeros((2, len(axes)))
        self._over_s = {figure: np.full(len(axes), np.nan) for figure in UNITS}  # since when
        self._presses = np.zeros(len(axes), bool)  # for too long
        self._way = np.zeros(len(axes))  # the direction in which each relaxed axis presses; 0: it is not relaxed
        self._relaxed_at = np.zeros(len(axes))

    @property
    def relaxed(self) -> tuple[str, ...]:
        return tuple(name for name, way in zip(self._axes, self._way, strict=True) if way)

    def rest(self) -> None:
        """The arm was held: how long it stood before does not count."""
        self._behind_s[:] = np.nan

    def reset(self) -> None:
        """A person has inspected it: it gets all times anew, to move away from what loads it."""
        self.rest()
        for over_s in self._over_s.values():
            over_s[:] = np.nan
        self._presses[:] = False
        self._way[:] = 0

    def check(self, state: State, now_s: float) -> None:
        """Raises ArmError, with the remedy, for what exceeds a limit; MotorError for what a motor reports."""
        for name, error in state.errors.items():
            if error != OVERLOAD or not self._grips[self._axes.index(name)]:
                raise MotorError(
                    f"axis '{name}': its motor reports {error}; support the arm, see what loads it, then release; if "
                    "it is reported again, switch the arm's power off and on"
                )
        over = self._limits.over(state)
        over["load"] = over.get("load", False) | np.array([name in state.errors for name in self._axes])
        self._presses[:] = False
        for figure, high in over.items():
            since_s = self._over_s[figure]
            since_s[:] = np.where(high, np.where(np.isnan(since_s), now_s, since_s), np.nan)
            long = now_s - since_s >= self._limits.for_s
            relaxes = self._relaxes & (figure in FORCES)
            self._presses |= long & relaxes
            if (faulty := long & ~relaxes).any():
                axis = int(faulty.argmax())
                value, most = state.effort[figure][axis], self._limits.most[figure][axis]
                what = f"{figure} {value:.0f} {UNITS[figure]} for {now_s - since_s[axis]:.1f} s"
                raise ArmError(f"axis '{self._axes[axis]}': {what}, above max_{figure} {most:g}; {REMEDIES[figure]}")

    def near(self, requested: np.ndarray, state: State, now_s: float) -> np.ndarray:
        """`requested` (n,), no farther ahead of the arm than each axis may be. Raises ArmError for a stuck one."""
        at = state.position
        if requested.shape != at.shape:
            return requested  # for the filter to refuse
        ahead = np.where(np.isfinite(requested), requested - at, 0.0)  # NaN is for the filter, too
        stood_s = self._stood_s(ahead, at, now_s)
        stuck = (stood_s >= self._stuck_s) & (self._stuck_s > 0) & (not state.coasted)
        if (faulty := stuck & ~self._relaxes).any():
            axis = int(np.where(faulty, stood_s, 0.0).argmax())
            name, where = self._axes[axis], f"{at[axis]:.3g} on its way to {requested[axis]:.3g}"
            raise ArmError(f"axis '{name}' has stood still at {where} for {stood_s[axis]:.1f} s: stuck, or pushed")
        leash = self._leash(ahead, at, stuck)
        return np.where(np.abs(ahead) > leash, at + np.clip(ahead, -leash, leash), requested)

    def _stood_s(self, ahead: np.ndarray, at: np.ndarray, now_s: float) -> np.ndarray:
        """(n,): for how long each axis has stood with its target too far ahead, on the same side."""
        behind = np.abs(ahead) > 0.9 * self._lag  # measured places are noisy
        moves = np.abs(at - self._behind_at) > self._lag / 2
        begins = behind & (np.isnan(self._behind_s) | moves | (ahead * self._side < 0))
        self._behind_s = np.where(begins, now_s, np.where(behind, self._behind_s, np.nan))
        self._behind_at, self._side = np.where(begins, (at, np.sign(ahead)), (self._behind_at, self._side))
        return np.nan_to_num(now_s - self._behind_s)

    def _leash(self, ahead: np.ndarray, at: np.ndarray, stuck: np.ndarray) -> np.ndarray:
        free = ~self._grips & (self._way * (at - self._relaxed_at) > self._lag / 2)
        back = (self._way * ahead < 0) | free
        self._way[back] = 0
        for over_s in self._over_s.values():
            over_s[back] = np.nan
        begins = self._relaxes & (self._presses | stuck) & (self._way == 0) & ~back
        self._way = np.where(begins, np.sign(ahead), self._way)
        self._relaxed_at = np.where(begins, at, self._relaxed_at)
        leash: np.ndarray = np.where(self._way != 0, np.minimum(self._lag, self._presses_at_most), self._lag)
        return leash
