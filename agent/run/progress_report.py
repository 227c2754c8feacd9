"""How a run is getting on, as robots are told it: counters, the time that is left, figures of updates, warnings."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from agent.config import OnlineConfig
from agent.run.pacing import updates_due
from agent.wire.progress import FIGURES, MAX_WARNINGS

EVERY_S = 1.0  # between two samples
WINDOW = 300  # samples from which the time that is left is estimated
UNKNOWN_S = -1.0


class ProgressReport:
    """Of a run with `online`. Tell it each turn, record, warning and checkpoint; `fields` are those of a PROGRESS."""

    def __init__(self, online: OnlineConfig) -> None:
        self._online = online
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=WINDOW)  # s, env steps, updates
        self._saved_s: float | None = None
        self._figures: dict[str, Any] = {}
        self._warnings: deque[str] = deque(maxlen=MAX_WARNINGS)

    def saved(self) -> None:
        """A checkpoint has been written."""
        self._saved_s = time.monotonic()

    def warned(self, line: str, env_steps: int) -> None:
        self._warnings.append(f"at {env_steps} env steps: {line}")

    def recorded(self, record: Mapping[str, Any]) -> None:
        """Take a record of updates; a list of numbers, one of each critic, as its mean."""
        figures: dict[str, Any] = {"updates": int(record["updates"])}
        for name in FIGURES:
            value = record.get(name)
            if isinstance(value, list) and value:
                value = sum(value) / len(value)
            if isinstance(value, (int, float)) and math.isfinite(value):
                figures[name] = float(value)
        self._figures = figures

    def sampled(self, env_steps: int, updates: int) -> bool:
        """Note where the run is; False, at no cost, less than EVERY_S after the time before."""
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < EVERY_S:
            return False
        self._samples.append((now, env_steps, updates))
        return True

    def seconds_left(self) -> float:
        """By the rates of the last minutes, of env steps or of updates, whatever takes longer; UNKNOWN_S."""
        if len(self._samples) < 2:
            return UNKNOWN_S
        (before_s, steps_before, updates_before), (now_s, env_steps, updates) = self._samples[0], self._samples[-1]
        online, elapsed_s = self._online, now_s - before_s
        wanted = updates_due(online.env_steps, online.warmup_steps, online.utd)
        lefts = ((online.env_steps - env_steps, env_steps - steps_before), (wanted - updates, updates - updates_before))
        if any(left > 0 and made <= 0 for left, made in lefts):
            return UNKNOWN_S
        return max(left * elapsed_s / made if left > 0 else 0.0 for left, made in lefts)

    def fields(self, stage: str, updates_due: int, episodes: int) -> dict[str, Any]:
        """Of a PROGRESS, as of the last sample."""
        _, env_steps, updates = self._samples[-1]
        return {
            "stage": stage,
            "updates": updates,
            "updates_due": updates_due,
            "env_steps": env_steps,
            "env_steps_wanted": self._online.env_steps,
            "episodes": episodes,
            "seconds_left": self.seconds_left(),
            "checkpoint_age_s": UNKNOWN_S if self._saved_s is None else time.monotonic() - self._saved_s,
            "figures": self._figures,
            "warnings": list(self._warnings),
        }
