"""What the numbers of an action stand for: it travels with episodes, checkpoints and robots, and is compared.

Whatever is not known is left out, and is compared with nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.spec import SpecError

KINDS = ("absolute", "delta", "velocity", "normalized")
ALIKE = 1e-3  # of a range: what differs by less is rounding
MAX_TEXT, MAX_DIMENSIONS = 200, 1000
ELSEWHERE = ("range", "control_hz", "robot", "names")  # what may differ where another environment is allowed


@dataclass(frozen=True)
class ActionMeaning:
    """An action's numbers -1 and 1 stand for `low` and `high`, and those for a `kind` of command.

    kind: "absolute" (a target), "delta" (a step from the target before it), "velocity", or "normalized" (numbers that
    only this environment understands). quantity: what is commanded, such as "joint position". frame, units: of `low`
    and `high`. names, low, high: of each of the A dimensions. control_hz: actions a second. repeat: steps of the
    environment for each. Empty or 0: not known.
    """

    kind: str = ""
    quantity: str = ""
    frame: str = ""
    units: str = ""
    names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    control_hz: float = 0.0
    robot: str = ""
    repeat: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without what is not known."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_dict(cls, data: object) -> ActionMeaning:
        """The inverse of to_dict; unknown keys are passed over. Raises SpecError (it may come from outside)."""
        if not isinstance(data, Mapping):
            raise SpecError("the meaning of actions is not a mapping")
        given = {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data}
        for name, value in given.items():
            default = getattr(cls, name)
            if isinstance(default, tuple):
                kind = str if name == "names" else float
                fits = isinstance(value, (list, tuple)) and len(value) <= MAX_DIMENSIONS
                fits = fits and all(_fits(entry, kind) for entry in value)
                given[name] = tuple(map(kind, value)) if fits else ()
            else:
                fits = _fits(value, type(default))
            if not fits:
                raise SpecError(f"the meaning of actions: '{name}' is malformed")
        made = cls(**given)
        if made.kind not in ("", *KINDS) or len(made.low) != len(made.high) or made.control_hz < 0:
            raise SpecError("the meaning of actions: 'kind', 'low', 'high' or 'control_hz' is invalid")
        return made

    def differences(self, other: ActionMeaning) -> dict[str, str]:
        """Field, or "range" -> "mine against theirs"; of what both know."""
        found = {}
        for name in ("kind", "quantity", "frame", "units", "robot", "repeat"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs and mine != theirs:
                found[name] = f"{mine} against {theirs}"
        if self.names and other.names and self.names != other.names:
            found["names"] = f"{', '.join(self.names[:10])} against {', '.join(other.names[:10])}"
        if self.control_hz and other.control_hz and not math.isclose(self.control_hz, other.control_hz, rel_tol=0.01):
            found["control_hz"] = f"{self.control_hz:g} Hz against {other.control_hz:g} Hz"
        if self.low and other.low and "kind" not in found and (text := self._other_range(other)):
            found["range"] = text
        return found

    def _other_range(self, other: ActionMeaning) -> str:
        if len(self.low) != len(other.low):
            return f"{len(self.low)} numbers against {len(other.low)}"
        for number, ends in enumerate(zip(self.low, self.high, other.low, other.high, strict=True)):
            low, high, their_low, their_high = ends
            span = max(high - low, their_high - their_low)
            if max(abs(low - their_low), abs(high - their_high)) > ALIKE * span:
                name = self.names[number] if number < len(self.names) else f"number {number}"
                return f"{name} {low:.4g} to {high:.4g} against {their_low:.4g} to {their_high:.4g}"
        return ""

    def __str__(self) -> str:
        """Such as "absolute joint position, -89 to 89 degrees, 30 Hz, so101"."""
        what = " ".join(filter(None, [self.kind or "of unknown kind", self.quantity]))
        what += f" in the frame of {self.frame}" if self.frame else ""
        ranges = [f"{low:.4g} to {high:.4g}" for low, high in zip(self.low, self.high, strict=True)]
        if len(set(ranges)) > 1 and len(self.names) == len(ranges):
            ranges = [f"{name} {ends}" for name, ends in zip(self.names, ranges, strict=True)]
        elif len(set(ranges)) == 1:
            ranges = ranges[:1]
        shown = "; ".join(ranges[:8]) + ("; ..." if len(ranges) > 8 else "")
        rate = f"{self.control_hz:g} Hz" if self.control_hz else ""
        return ", ".join(filter(None, [what, f"{shown} {self.units}".strip(), rate, self.robot]))


def _fits(value: object, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and len(value) <= MAX_TEXT
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def different(found: Mapping[str, str]) -> str:
    """`found` (ActionMeaning.differences) in words."""
    return f"their actions mean different things: {'; '.join(f'{name}: {what}' for name, what in found.items())}"
