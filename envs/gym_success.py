"""Which of a Gymnasium environment's `info` says that the task is done."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from envs.base import is_flag

KEYS = ("success", "is_success")
COMPLETED = "episode_task_completions"  # Franka Kitchen: names of the tasks completed so far

log = logging.getLogger(__name__)


class SuccessSignal:
    """Reads info[key], or without a key the first of KEYS, or that each of Franka Kitchen's "tasks_to_complete" has
    been completed; it removes those that have, or does not.

    Only a bool, 0 or 1 counts; anything else, the text "False" for instance, is no success. Logs one warning when the
    value is of another kind, and one when the first episode ends without any such key, with the keys that look like
    one.
    """

    def __init__(self, name: str, key: str | None = None) -> None:
        self._name, self._keys = name, (key,) if key else KEYS
        self._asked = key
        self._steps, self._found, self._warned = 0, False, False
        self._flags: set[str] = set()

    def read(self, info: Mapping[str, Any]) -> bool:
        """Whether `info`, of a reset or a step, reports a success."""
        self._steps += 1
        if not self._asked and "tasks_to_complete" in info:
            self._found = True
            return set(info["tasks_to_complete"]) <= set(info.get(COMPLETED, ()))
        self._flags |= {str(key) for key, value in info.items() if is_flag(value)}
        key = next((key for key in self._keys if key in info), None)
        if key is None:
            return False
        self._found = True
        if is_flag(info[key]):
            return bool(info[key])
        self._warn(f"info['{key}'] is a {type(info[key]).__name__}, not a bool, 0 or 1: it never counts as a success")
        return False

    def end_episode(self) -> None:
        """The episode has ended; nothing happens where there was none."""
        if self._steps > 1 and not self._found:
            missing = " or ".join(f"'{key}'" for key in self._keys)
            flags = ", ".join(sorted(self._flags)[:10]) or "none"
            self._warn(
                f"its info has no {missing}, so no episode counts as a success; "
                f"keys there with true or false: {flags} (choose one with --success-key KEY)"
            )
        self._steps = 0

    def _warn(self, what: str) -> None:
        if not self._warned:
            log.warning("gym:%s: %s", self._name, what)
        self._warned = True
