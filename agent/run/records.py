"""Reading a run's log, as agent/run/log.py writes it; without torch."""

from __future__ import annotations

import json
import sys
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
    *lines, last = log_path(run).read_bytes().split(b"\n")
    records, unread = parse(lines, numbers)
    records += parse([last], numbers)[0]
    if unread:
        damaged(unread)
    return without_repeats(record for record in records if not kinds or record["kind"] in kinds)


def parse(
    lines: Iterable[bytes], numbers: Mapping[str, Iterable[str]] = MappingProxyType({})
) -> tuple[list[Record], int]:
    """The records in `lines`, and how many lines could not be read or lack one of the `numbers` of their kind."""
    records: list[Record] = []
    unread = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            for name in ("env_steps", *numbers.get(record["kind"], ())):
                if not _is_finite(record[name]):
                    raise ValueError(name)
            records.append(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            unread += 1
    return records, unread


def without_repeats(records: Iterable[Record]) -> list[Record]:
    """`records` without those that a learner, resumed from a checkpoint before them, went over again."""
    kept: list[Record] = []
    newest: dict[str, float] = {}
    for record in records:
        kind, env_steps = record["kind"], float(record["env_steps"])
        if env_steps < newest.get(kind, 0.0):
            kept = [old for old in kept if old["kind"] != kind or old["env_steps"] <= env_steps]
        newest[kind] = env_steps
        kept.append(record)
    return kept


class Tail:
    """Reads a log that grows: each `read` returns the whole lines since the one before. Never writes, never locks."""

    def __init__(self, run: Path) -> None:
        """Raises OSError when there is no log."""
        self._file, self._rest, self.unread = log_path(run).open("rb"), b"", 0

    def read(self) -> list[Record]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        records, unread = parse(lines)
        self.unread += unread
        return records

    def close(self) -> None:
        self._file.close()


def curves(record: Record) -> tuple[int, dict[str, float]]:
    """Where the numbers of a record stand on its curves, and curve -> number; a list of numbers as its mean.

    The position counts env steps for episodes and robots, updates for the rest. Each robot has its own curves.
    """
    kind = record["kind"]
    where = f"robot/{record['robot']}" if kind == "robot" else kind
    found = {}
    for name, value in record.items():
        if name not in ("kind", "env_steps", "updates", "time_s") and (value := number(value)) is not None:
            found[f"{where}/{name}"] = value
    return record["env_steps" if kind in ("episode", "robot") else "updates"], found


def number(value: Any) -> float | None:
    """What a curve shows of it: of a list of numbers (of critics) their mean; None unless that is finite."""
    if isinstance(value, list) and value and all(isinstance(each, float) for each in value):
        value = sum(value) / len(value)
    return value if _is_finite(value) else None


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float can be; an int of JSON may have any number of digits."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
