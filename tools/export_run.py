"""Send the curves of a run to an experiment tracker: Weights & Biases (wandb) or trackio.

  python -m tools.export_run runs/lift --to wandb                a run as it is now
  python -m tools.export_run runs/lift --to trackio --follow     also what the learner adds, until Ctrl-C

Reads RUN/log.jsonl only, so it cannot disturb training: run it beside the learner, after it, or on a copy of the folder
on another computer. The tracker's own variables work: WANDB_MODE=offline writes to ./wandb, and `wandb sync` sends it
later; WANDB_API_KEY, WANDB_ENTITY. The run's settings come from RUN/latest.pt, where it exists, without those of the
link. Every call makes a new run in the tracker. Install the tracker first: uv pip install wandb (or trackio).
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from agent import cli
from agent.run.records import Record, Tail, curves, log_path, without_repeats
from agent.spec import UserError, plural

POLL_S = 1.0
AXES = ("env_steps", "updates", "time_s")
BY_ENV_STEPS, BY_UPDATES = ("episode", "robot"), ("update", "eval")


class Tracker(Protocol):
    def send(self, step: int, numbers: dict[str, float], record: Record) -> None:
        """One record. step: where `numbers` (curve -> number) stand on their curves."""

    def close(self) -> None: ...


class Wandb:
    """Raises UserError when the run cannot begin."""

    def __init__(self, project: str, name: str, config: dict[str, Any]) -> None:
        wandb = installed("wandb")
        quiet = wandb.Settings(console="off", disable_git=True, x_disable_stats=True)  # of this program, not the run
        try:
            self._run = wandb.init(project=project, name=name, config=config, settings=quiet)
        except wandb.Error as error:
            raise UserError(f"wandb: {' '.join(str(error).split())}") from None
        for kinds, axis in ((BY_ENV_STEPS, "env_steps"), (BY_UPDATES, "updates")):
            for kind in kinds:
                self._run.define_metric(f"{kind}/*", step_metric=axis)

    def send(self, step: int, numbers: dict[str, float], record: Record) -> None:
        self._run.log({name: record[name] for name in AXES if name in record} | numbers)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    def __init__(self, project: str, name: str, config: dict[str, Any]) -> None:
        trackio = installed("trackio")
        self._run = trackio.init(project, name=name, config=config, auto_log_gpu=False, auto_log_cpu=False)

    def send(self, step: int, numbers: dict[str, float], record: Record) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[str, str, dict[str, Any]], Tracker]] = {"wandb": Wandb, "trackio": Trackio}


def installed(package: str) -> Any:
    """The module. Raises UserError when it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UserError(f"--to {package}: not installed; uv pip install {package}") from None


def send(tracker: Tracker, records: Iterable[Record]) -> int:
    """How many of `records` had numbers, and were sent."""
    count = 0
    for record in records:
        step, numbers = curves(record)
        if numbers:
            tracker.send(step, numbers, record)
            count += 1
    return count


def settings(run: Path) -> dict[str, Any]:
    """Section -> field -> value, of the run's newest checkpoint, without the link's addresses; empty without one."""
    latest = (run if run.is_dir() else run.parent) / "latest.pt"
    if not latest.exists():
        return {}
    from agent.run.checkpoint import load

    checkpoint = load(latest)
    return {
        **{name: checkpoint.config[name] for name in checkpoint.config if name != "link"},
        "env": checkpoint.env.to_dict(),
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its log.jsonl")
    parser.add_argument("--to", required=True, choices=TRACKERS, help="the tracker")
    parser.add_argument("--follow", action="store_true", help="send what is added to the log, until Ctrl-C")
    parser.add_argument("--project", default="calql", metavar="NAME", help="project in the tracker (calql)")
    parser.add_argument("--name", metavar="NAME", help="the run's name there (the folder's)")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.export_run").flags
    path = log_path(flags.run)
    try:
        tail = Tail(flags.run)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    with contextlib.closing(tail), cli.Stop() as stop:
        name = flags.name or path.resolve().parent.name
        with contextlib.closing(TRACKERS[flags.to](flags.project, name, settings(flags.run))) as tracker:
            count = send(tracker, without_repeats(tail.read()))
            while flags.follow and not stop():
                time.sleep(POLL_S)
                count += send(tracker, tail.read())
    if tail.unread:
        print(f"{path}: {plural(tail.unread, 'line')} could not be read", file=sys.stderr)
    print(f"{path}: {plural(count, 'record')} sent to {flags.to}")


if __name__ == "__main__":
    cli.run(main)
