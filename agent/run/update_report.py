"""Updates as people see them: now and then a record of the run's log, with curves, that health looks at too."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from agent.run.health import Health
from agent.run.log import RunLog


class UpdateReport:
    """Records of updates in `log`. env_steps, updates: before the first of them."""

    def __init__(self, log: RunLog, health: Health, env_steps: int, updates: int) -> None:
        self._log, self._health = log, health
        self._last = (log.time_s, env_steps, updates)  # at the record before
        self._metrics: dict[str, Tensor] = {}  # the newest of each since then

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Metrics of an update, which may lack the actor's; they stay on the device until `write`."""
        self._metrics |= metrics

    def write(self, env_steps: int, updates: int, rewards: tuple[float, float], **more: Any) -> dict[str, Any]:
        """The record, with the rates since the one before. rewards: the lowest and highest that learning has seen."""
        (before_s, steps_before, updates_before), now_s = self._last, self._log.time_s
        elapsed_s = max(now_s - before_s, 1e-9)
        rates = {"updates_per_s": (updates - updates_before) / elapsed_s}
        if env_steps:  # there are none offline
            rates["env_steps_per_s"] = (env_steps - steps_before) / elapsed_s
        record = self._log.write("update", env_steps, updates, **more, **rates, **self._metrics)
        self._health.update(record, rewards)
        self._last, self._metrics = (now_s, env_steps, updates), {}
        return record
