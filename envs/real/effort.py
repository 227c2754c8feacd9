"""What an arm's motors report, load, current, temperature and errors: its limits, and what the operator sees of it.

What exceeding a limit does is in envs.real.contact.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from envs.real.arm import ArmError, State

UNITS = {"load": "%", "current": "mA", "temperature": "°C"}
FORCES = ("load", "current")
REPORT_S = 60.0  # between two lines of one axis and figure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EffortLimits:
    """most: figure -> float64 (n,), inf for an axis without a limit. for_s: how long a limit may be exceeded."""

    most: Mapping[str, np.ndarray] = field(default_factory=dict)
    for_s: float = 1.0

    def over(self, state: State) -> dict[str, np.ndarray]:
        """Figure -> bool (n,), which axes are above their limit."""
        nan = np.full(len(state.position), np.nan)
        return {figure: state.effort.get(figure, nan) > most for figure, most in self.most.items()}

    def check(self, state: State, axes: Sequence[str]) -> None:
        """Raises ValueError for a limit of what `state`, an arm's first, does not have."""
        for figure, most in self.most.items():
            given = np.isfinite(state.effort.get(figure, np.full(len(axes), np.nan)))
            for name, limit, has in zip(axes, most, given, strict=True):
                if np.isfinite(limit) and not has:
                    there = ", ".join(f for f, values in state.effort.items() if np.isfinite(values[axes.index(name)]))
                    raise ValueError(
                        f"axes: '{name}': max_{figure}: the arm reports no {figure} of it, but {there or 'none'}"
                    )


def measured(seen: Any, axes: Sequence[str]) -> State:
    """What a driver saw, of whatever class, as a State. Raises ArmError for no place that an arm can be at."""
    given = {each.name: getattr(seen, each.name) for each in fields(State) if hasattr(seen, each.name)}
    state = State(**{**given, "time_s": float(seen.time_s), "position": np.asarray(seen.position, np.float64)})
    if state.position.shape != (len(axes),) or not np.isfinite(state.position).all():
        raise ArmError(f"the arm's driver reports the position {state.position}")
    return replace(state, **checked_effort(state, axes))


def checked_effort(state: State, axes: Sequence[str]) -> dict[str, Any]:
    """What a driver, of whatever class, has reported of its motors. Raises ArmError, one line."""
    effort = {figure: np.asarray(values, np.float64) for figure, values in state.effort.items()}
    for figure, values in effort.items():
        if figure not in UNITS or values.shape != (len(axes),):
            raise ArmError(
                f"the arm's driver reports {figure} {values} of {len(axes)} axes; figures: {', '.join(UNITS)}"
            )
    if other := [name for name in state.errors if name not in axes]:
        raise ArmError(f"the arm's driver reports an error of '{other[0]}', which is no axis: {state.errors[other[0]]}")
    return {"effort": effort, "errors": {name: str(error) for name, error in state.errors.items() if error}}


class EffortReport:
    """What is seen of it: on the operator's page, in the log when a limit is passed, and of `observe`, figures that are
    observed. names: of the axes of each.

    Raises ValueError for one of those that is not in `first`, the arm's first state.
    """

    def __init__(self, limits: EffortLimits, axes: Sequence[str], observe: Sequence[str], first: State) -> None:
        self._limits, self._axes = limits, axes
        self._logged_s: dict[tuple[str, str], float] = {}
        given = {figure: np.isfinite(values) for figure, values in first.effort.items() if np.isfinite(values).any()}
        if absent := [figure for figure in observe if figure not in given]:
            there = ", ".join(given) or "none"
            raise ValueError(f"observe: the arm reports no {absent[0]} of its motors; it reports {there}")
        self._observed = {figure: given[figure] for figure in observe}
        self.names = {f: [axes[int(n)] for n in np.flatnonzero(has)] for f, has in self._observed.items()}

    def states(self, state: State) -> dict[str, np.ndarray]:
        """Observed figure -> float32 (k,), of the axes that had it at first."""
        return {figure: state.effort[figure][has].astype(np.float32) for figure, has in self._observed.items()}

    def update(self, state: State) -> dict[str, dict[str, Any]]:
        """As PacedEnv.motors; {} of an arm that reports nothing."""
        over, rows = self._limits.over(state), {}
        for number, axis in enumerate(self._axes):
            row: dict[str, Any] = {
                figure: round(float(values[number]), 1)
                for figure, values in state.effort.items()
                if np.isfinite(values[number])
            }
            if error := state.errors.get(axis, ""):
                row["error"] = error
            if high := [figure for figure, which in over.items() if which[number]]:
                row["over"] = high
            if axis in state.relaxed:
                row["relaxed"] = True
            if row:
                rows[axis] = row
            for figure in high:
                limit = f"max_{figure} {self._limits.most[figure][number]:g}"
                self._log(axis, figure, f"axis '{axis}': {figure} {row[figure]:.0f} {UNITS[figure]}, above {limit}")
        return rows

    def _log(self, axis: str, figure: str, line: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get((axis, figure), -np.inf) >= REPORT_S:
            log.warning("%s", line)
            self._logged_s[axis, figure] = now_s
