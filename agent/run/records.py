"""Reading a run's log, as agent/run/log.py writes it; without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

LOG_FILE = "log.jsonl"
Record = dict[str, Any]  # kind, env_steps, updates, time_s, and what the kind has


def log_path(run: Path) -> Path:
    """The log of a run's folder; `run` may be the log itself."""
    return run if run.is_file() else run / LOG_FILE


def read_log(
    run: Path,
    *kinds: str,
    damaged: Callable[[int], object] = lambda count: None,
    numbers: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> list[Record]:
    """The records of a run, of these kinds or of all, in order; once those that a resumed learner went over again.

    A line that cannot be read, or lacks one of the `numbers` of its kind, is passed over; damaged(count) is called if
    there are any. The last line of a run that still goes may be on its way, and does not count. Raises OSError when
    there is no log.
    """
    lines = log_path(run).read_bytes().split(b"\n")
    kept: list[Record] = []
    newest: dict[str, float] = {}
    unread = 0
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            kind, env_steps = record["kind"], float(record["env_steps"])
            for name in numbers.get(kind, ()):
                float(record[name])
        except (ValueError, KeyError, TypeError):
            unread += number < len(lines) - 1
            continue
        if kinds and kind not in kinds:
            continue
        if env_steps < newest.get(kind, 0.0):  # the run was resumed from a checkpoint before those
            kept = [old for old in kept if old["kind"] != kind or old["env_steps"] <= env_steps]
        newest[kind] = env_steps
        kept.append(record)
    if unread:
        damaged(unread)
    return kept
