"""How each number of the recorded states varies: what networks divide it by, and which hardly vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agent.spec import plural

# A recorded value lies at most this many standard deviations from the mean: one wrong reading among thousands of equal
# ones would lie at sqrt(steps). A normal distribution, 8 deviations wide, and a uniform one, 3.5, stay as they are.
MOST_DEVIATIONS = 20
# Shares of a number's magnitude. What varies less than STILL is reported: half a millimetre in a metre; the height of a
# cube that most demonstrations of Lift raise varies by 3 mm. What varies less than CONSTANT does so by rounding.
STILL, LEAST_DIVISOR, CONSTANT = 5e-4, 1e-3, 1e-6
SHOWN = 8  # entries in a report


@dataclass(frozen=True)
class StillState:
    """A number of the states that hardly varies: element `index` of the vector `key`."""

    key: str
    index: int
    mean: float
    std: float

    @property
    def text(self) -> str:
        return f"{self.mean:.4g}" + (f" +- {self.std:.1g}" if self.std > 1e-7 * abs(self.mean) else "")


class StateStatistics:
    """Mean, deviation and range of every number of the states (key -> length), over all rows that were added.

    Arrays are float64, one after another in the order of the keys: (sum of lengths,).
    """

    def __init__(self, states: Mapping[str, int]) -> None:
        self._states = dict(states)
        width = sum(states.values())
        self.rows, self.mean, self._squares = 0, np.zeros(width), np.zeros(width)
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)

    def add(self, observations: Mapping[str, np.ndarray]) -> None:
        """Take in observations whose states are (N, length) each; other keys are ignored."""
        if not self._states:
            return
        rows = np.concatenate([observations[key] for key in self._states], -1).astype(np.float64)
        mean, count = rows.mean(0), len(rows)
        apart, total = mean - self.mean, self.rows + count
        self._squares += ((rows - mean) ** 2).sum(0) + apart**2 * self.rows * count / total
        self.mean += apart * count / total
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        self.rows = total

    @property
    def std(self) -> np.ndarray:
        return np.asarray(np.sqrt(self._squares / max(1, self.rows)))

    @property
    def _spread(self) -> np.ndarray:
        return np.asarray(np.maximum(self.std, (self.high - self.low) / MOST_DEVIATIONS))

    @property
    def _magnitude(self) -> np.ndarray:
        """The largest absolute value, at least 1: near zero nothing else tells noise from a measurement."""
        return np.asarray(np.maximum(1, np.maximum(abs(self.low), abs(self.high))))

    @property
    def _still(self) -> np.ndarray:
        return np.asarray(self._spread < STILL * self._magnitude)

    def standardisation(self) -> tuple[np.ndarray, np.ndarray]:
        """What to subtract and what to divide by, float32: the mean, and the deviation with a floor.

        The floor is the larger of a twentieth of the range and a thousandth of the magnitude: noise about one value
        stays small. What is constant is divided as if it had ranged over its magnitude: when it does move online, the
        input does not explode.
        """
        divisor = np.maximum(self._spread, LEAST_DIVISOR * self._magnitude)
        constant = self._spread < CONSTANT * self._magnitude
        divisor = np.where(constant, self._magnitude / MOST_DEVIATIONS, divisor)
        return self.mean.astype(np.float32), divisor.astype(np.float32)

    def still(self) -> list[StillState]:
        """The numbers that hardly vary, in order."""
        places = [(key, index) for key, length in self._states.items() for index in range(length)]
        numbers = zip(places, self.mean.tolist(), self.std.tolist(), self._still, strict=True)
        return [StillState(*place, mean, std) for place, mean, std, still in numbers if still]

    def report(self) -> str:
        """One line for people about what hardly varies, such as "... object[7..9] = 0; ..."; "" if everything does."""
        groups: list[list[StillState]] = []
        for state in self.still() if self.rows else []:
            last = groups[-1][-1] if groups else None
            if last and (last.key, last.index + 1, last.text) == (state.key, state.index, state.text):
                groups[-1].append(state)
            else:
                groups.append([state])
        if not groups:
            return ""
        text = ", ".join(map(_named, groups[:SHOWN]))
        if more := sum(map(len, groups[SHOWN:])):
            text += f" and {more} more"
        rows = plural(self.rows, "row")
        return f"states that hardly vary in {rows}: {text}; check their sensors unless the task fixes them"


def _named(group: list[StillState]) -> str:
    first, last = group[0], group[-1]
    return f"{first.key}[{first.index}" + (f"..{last.index}" if group[1:] else "") + f"] = {first.text}"
