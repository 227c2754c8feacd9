"""Success rate and return of runs against environment steps, as a picture.

  python -m tools.plot runs/a runs/b                                       a curve per run
  python -m tools.plot --label 'Cal-QL=runs/calql-*' --label 'RLPD=runs/rlpd-*'    a curve per group: mean and range

Reads RUN/log.jsonl, also of a run that is still going. Writes --out only (plot.png; .pdf and .svg work too).

Lines: mean over the last --window training episodes. Markers: evaluations with fixed seeds, at 0 steps the policy
before any online step; their bars are the 95 % interval that the evaluation reported. Of a group, the line is the mean
over its runs and the band reaches from the worst to the best of them, up to where the shortest run ends; markers are
the mean over its runs, and their bars reach from the worst to the best too. A log line that cannot be read is counted
on stderr and skipped.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import glob
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure  # not pyplot: it needs no display, and keeps no figure open

from agent import cli
from agent.run.records import log_path, read_log
from agent.spec import UserError

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito's
MARKERS, DASHES = "osD^vPX", ["-", "--", "-.", ":"]
Curve = tuple[np.ndarray, np.ndarray]  # env steps, values


@dataclass
class Run:
    """The records of one log, in the order of their env steps."""

    path: Path
    episodes: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def running(self, key: str, window: int) -> Curve:
        """Mean of `key` over the last `window` episodes; over fewer at the start, but at least 5 if there are."""
        steps = np.array([e["env_steps"] for e in self.episodes], float)
        total = np.concatenate([[0.0], np.cumsum([float(e[key]) for e in self.episodes])])
        end = np.arange(1, len(steps) + 1)
        begin = np.maximum(end - window, 0)
        first = min(5, window, len(steps)) - 1
        return steps[first:], ((total[end] - total[begin]) / (end - begin))[first:]


def read_run(folder: Path) -> Run:
    """Raises UserError naming the file if there is none, or nothing to plot in it."""
    path = log_path(folder)
    try:
        records = read_log(
            folder,
            "episode",
            "eval",
            damaged=lambda n: print(f"{path}: {n} lines could not be read", file=sys.stderr),
            numbers={"episode": ("success", "return"), "eval": ("success",)},
        )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    run = Run(path, *([record for record in records if record["kind"] == kind] for kind in ("episode", "eval")))
    if not run.episodes and not run.evaluations:
        raise UserError(f"{path}: no episodes and no evaluations in it yet")
    return run


def spread(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Env steps, mean, lowest and highest of several curves, where all of them have values."""
    begin, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if begin > end:
        return (np.empty(0),) * 4
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    steps = steps[(steps >= begin) & (steps <= end)]
    values = np.stack([np.interp(steps, x, y) for x, y in curves])  # (runs, steps)
    return steps, values.mean(0), values.min(0), values.max(0)


def evaluation_points(runs: list[Run], key: str) -> list[tuple[float, float, float, float]]:
    """(env steps, mean, low, high): one run's own interval, or the range over several runs."""
    steps = sorted({e["env_steps"] for run in runs for e in run.evaluations})
    points = []
    for step in steps:
        found = [e for run in runs for e in run.evaluations if e["env_steps"] == step]
        values = [float(e[key]) for e in found]
        low, high = min(values), max(values)
        if len(runs) == 1 and key == "success":
            low, high = float(found[-1].get("low", low)), float(found[-1].get("high", high))
            values = values[-1:]
        points.append((step, float(np.mean(values)), low, high))
    return points


def draw(axes: Any, number: int, label: str, runs: list[Run], key: str, window: int, dodge: float) -> None:
    """One curve, with its band and its evaluation markers."""
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
    curves = [run.running(key, window) for run in runs if run.episodes]
    if curves:
        steps, mean, low, high = spread(curves)
        axes.plot(steps, mean, dash, color=colour, linewidth=2, label=label)
        if len(curves) > 1:
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    if points := evaluation_points(runs, key):
        x, y, low, high = np.array(points).T
        bars = np.maximum([y - low, high - y], 0)
        axes.errorbar(
            x + dodge, y, bars, fmt=MARKERS[number % len(MARKERS)], color=colour, markersize=7, capsize=3, zorder=3,
            markeredgecolor="white", label=None if curves else label,
        )  # fmt: skip


def plot(groups: dict[str, list[Run]], out: Path, window: int) -> None:
    """Draw every group (label -> its runs) into the picture `out`."""
    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    success, returns = figure.subplots(1, 2)
    every = [run for runs in groups.values() for run in runs]
    longest = max(r["env_steps"] for run in every for r in run.episodes + run.evaluations)
    for number, (label, runs) in enumerate(groups.items()):
        label += f" ({len(runs)} runs)" if len(runs) > 1 else ""
        dodge = (number - (len(groups) - 1) / 2) * 0.012 * longest  # so that bars at the same step stay apart
        draw(success, number, label, runs, "success", window, dodge)
        draw(returns, number, label, runs, "return", window, dodge)
    success.set(ylabel="success rate", ylim=(-0.03, 1.03), title="Success")
    success.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    returns.set(ylabel="return per episode (sum of raw rewards)", title="Return")
    for axes in (success, returns):
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    key = f"line: mean of the last {window} training episodes"
    key += "; band: worst to best run" if any(len(runs) > 1 for runs in groups.values()) else ""
    key += "; marker: evaluation" if any(run.evaluations for run in every) else ""
    handles, labels = success.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), title=key, frameon=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None
    except ValueError as error:  # a suffix that matplotlib does not know
        raise UserError(f"{out}: {str(error).splitlines()[0]}") from None


def groups_of(runs: list[Path], labels: list[str]) -> dict[str, list[Run]]:
    """label -> runs, in the order in which they were asked for."""
    groups: dict[str, list[Run]] = {}
    for folder in runs:
        name = folder.resolve().name
        groups[str(folder) if name in groups else name] = [read_run(folder)]
    for text in labels:
        name, equals, pattern = text.partition("=")
        if not (name and equals and pattern):
            raise UserError(f"--label {text}: expected NAME=PATTERN, such as 'Cal-QL=runs/calql-*'")
        folders = sorted(glob.glob(pattern))
        if not folders:
            raise UserError(f"--label {text}: nothing matches {pattern}")
        groups.setdefault(name, []).extend(read_run(Path(folder)) for folder in folders)
    if not groups:
        raise UserError("name the runs to plot: folders, or --label NAME=PATTERN")
    return groups


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs, a curve each")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=PATTERN", help="runs that share a curve")
    parser.add_argument("--window", type=int, default=20, metavar="N", help="episodes to average over (default 20)")
    parser.add_argument("--out", type=Path, default=Path("plot.png"), metavar="FILE", help="the picture (plot.png)")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.plot").flags
    if flags.window < 1:
        raise UserError(f"--window {flags.window}: at least 1")
    groups = groups_of(flags.runs, flags.label)
    plot(groups, flags.out, flags.window)
    for label, runs in groups.items():
        last = [run.running("success", flags.window)[1][-1] for run in runs if run.episodes]
        if last:
            count = f" of each of {len(last)} runs" if len(last) > 1 else ""
            print(f"{label}: success {np.mean(last):.2f} over the last {flags.window} episodes{count}")
    print(flags.out)


if __name__ == "__main__":
    cli.run(main)
