"""What the page of runs shows: which runs there are, their figures, curves, settings and videos. Only reads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from agent.run.records import LOG_FILE, Record, log_path, number, read_log
from agent.spec import UserError
from tools.export_run import settings
from tools.learning.results import regret

WINDOW = 20  # training episodes of the success that a list shows
POINTS = 1000  # of a curve over updates, at most
VIDEO = ".mp4"
NEEDED = {"episode": ("success", "return", "length"), "eval": ("success",)}
SKIPPED = {"episodes", "checkpoints", "quarantine", "discarded", "originals"}  # of a run's folder: no runs in them
MOST_KEPT = 200  # runs whose records are in memory
OF_PLACE = ("kind", "env_steps", "updates", "time_s", "stage")


_read: OrderedDict[Path, tuple[tuple[int, int], tuple[list[Record], int]]] = OrderedDict()
_lock = threading.Lock()  # the page's server reads in threads


def found(roots: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of every run in or below `roots`; with several roots, the root's own name comes first."""
    runs: dict[str, Path] = {}
    for root in roots:
        for place in _logs(root):
            parts = place.relative_to(root).parts
            name = "/".join([root.resolve().name, *parts] if len(roots) > 1 or not parts else parts)
            while name in runs:
                name += "'"
            runs[name] = place
    return runs


def _logs(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        if LOG_FILE in files:
            yield Path(place)


def records(run: Path) -> tuple[list[Record], int]:
    """Those of the run's log, and how many of its lines could not be read. Read once for each state of the file."""
    found = log_path(run).stat()
    state = found.st_mtime_ns, found.st_size
    with _lock:
        if run in _read:
            _read.move_to_end(run)
            if _read[run][0] == state:
                return _read[run][1]
    unread: list[int] = []
    read = read_log(run, damaged=unread.append, numbers=NEEDED), sum(unread)
    with _lock:
        _read[run] = state, read  # in the place of what it was before: a log that grows is kept once
        while len(_read) > MOST_KEPT:
            _read.popitem(last=False)
    return read


def listed(runs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The figures of each run: a row of the page's table. A log that cannot be read has an "error"."""
    rows = []
    for name, place in runs.items():
        try:
            rows.append({"name": name, **_figures(place)})
        except OSError as error:
            rows.append({"name": name, "error": f"{LOG_FILE}: {error.strerror}"})
    return rows


def _figures(place: Path) -> dict[str, Any]:
    found, unread = records(place)
    episodes = [record for record in found if record["kind"] == "episode"]
    evaluations = _evaluations(found)
    won = [float(record["success"]) for record in episodes]
    points = [(float(record["env_steps"]), float(record["success"])) for record in evaluations]
    return {
        "env_steps": _most(found, "env_steps"),
        "updates": _most(found, "updates"),
        "minutes": round(_most(found, "time_s") / 60, 1),
        "episodes": len(episodes),
        "success": fmean(won[-WINDOW:]) if won else None,
        "failed": 1 - fmean(won) if won else None,
        "offline": points[0][1] if points and points[0][0] == 0 else None,
        "evaluated": points[-1][1] if points and points[-1][0] > 0 else None,
        "regret": regret(points) if len(points) > 1 and points[0][0] == 0 else None,
        "warnings": [str(record.get("line", "")) for record in found if record["kind"] == "warning"],
        "changed_s": round(log_path(place).stat().st_mtime, 1),
        "unread": unread,
    }


def _evaluations(found: Sequence[Record]) -> list[Record]:
    """The newest one at each number of env steps, in their order."""
    newest = {float(record["env_steps"]): record for record in found if record["kind"] == "eval"}
    return [newest[steps] for steps in sorted(newest)]


def curves(run: Path) -> dict[str, Any]:
    """Columns: "episodes", "evaluations" and "updates"; of updates, every figure that the log has of some."""
    found, _ = records(run)
    episodes = [record for record in found if record["kind"] == "episode"]
    evaluations = _evaluations(found)
    updates = [record for record in found if record["kind"] == "update"]
    updates = updates[:: max(1, -(-len(updates) // POINTS))]
    figures = {name: None for record in updates for name in record if name not in OF_PLACE}
    columns = {name: [number(record.get(name)) for record in updates] for name in figures}
    return {
        "episodes": _columns(episodes, "env_steps", "time_s", "success", "return", "length", "interventions"),
        "evaluations": _columns(evaluations, "env_steps", "success", "low", "high", "episodes"),
        "updates": {
            "updates": [number(record.get("updates")) for record in updates],
            **{name: column for name, column in columns.items() if any(value is not None for value in column)},
        },
    }


def _columns(found: Sequence[Record], *names: str) -> dict[str, list[float | None]]:
    return {name: [number(record.get(name)) for record in found] for name in names}


def _most(found: Sequence[Record], name: str) -> float:
    return max((number(record.get(name)) or 0 for record in found), default=0)


def flat_settings(run: Path) -> dict[str, Any]:
    """'section.field' -> value, of the run's newest checkpoint, without the run's folder; empty without one.

    Raises UserError.
    """
    flat: dict[str, Any] = {}
    for section, fields in settings(run).items():
        for field, value in fields.items() if isinstance(fields, Mapping) else [("", fields)]:
            if section == "env" and isinstance(value, Mapping):
                flat |= {f"env.{option}": each for option, each in value.items()}
            else:
                flat[f"{section}.{field}" if field else section] = value
    flat.pop("learner.run", None)
    return flat


def videos(run: Path) -> list[str]:
    """Paths within the run's folder, the newest first."""
    there = [path for path in run.rglob(f"*{VIDEO}") if path.is_file() and not path.name.startswith(".")]
    return [str(path.relative_to(run)) for path in sorted(there, key=lambda path: -path.stat().st_mtime)]


def video(run: Path, name: str) -> Path:
    """Raises UserError when the run has no such video."""
    if name not in videos(run):
        raise UserError(f"{name}: no video of this run")
    return run / name
