"""Success rate and return of runs against environment steps, as a picture.

  python -m tools.plot runs/a runs/b                                       a curve per run
  python -m tools.plot --label 'Cal-QL=runs/calql-*' --label 'RLPD=runs/rlpd-*'    a curve per group: the mean

Reads RUN/log.jsonl, also of a run that is still going. Writes --out only (plot.png; .pdf and .svg work too).

Lines: mean over the last --window training episodes. Markers: evaluations with fixed seeds, at 0 steps the policy
before any online step; their bars are the 95 % interval that the evaluation reported. Of a group, lines and markers are
the mean over its runs, up to where the shortest run ends, and thin lines and small markers are those of each run. A
label or folder that has an algorithm's name in it (calql, cql, rlpd, wsrl, sac, bc) gets the colour that the algorithm
has in every picture. A log line that cannot be read is counted on stderr and skipped.
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

from agent import cli
from agent.run.records import log_path, read_log
from agent.spec import UserError
from tools.common.curves import Curve, Look, looks, mean, mean_points


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

    def evaluated(self, key: str) -> Curve:
        """The newest evaluation at each number of env steps."""
        newest = {float(e["env_steps"]): float(e[key]) for e in self.evaluations}
        return np.array(list(newest)), np.array(list(newest.values()))


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


def draw(axes: Any, look: Look, label: str, runs: list[Run], key: str, window: int, dodge: float) -> None:
    """One curve, each run's thin beside it, and the evaluations' markers."""
    colour, dash, marker = look
    trained = [run.running(key, window) for run in runs if run.episodes]
    for curve in trained if len(trained) > 1 else []:
        axes.plot(*curve, dash, color=colour, linewidth=0.8, alpha=0.45)
    if trained:
        axes.plot(*mean(trained), dash, color=colour, linewidth=2.2, label=label)
    evaluated = [run.evaluated(key) for run in runs if run.evaluations]
    for steps, values in evaluated if len(evaluated) > 1 else []:
        axes.plot(steps + dodge, values, marker, color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
    if len(runs) == 1 and key == "success":
        for e in runs[0].evaluations:
            axes.plot([e["env_steps"] + dodge] * 2, [e.get("low"), e.get("high")], color=colour, linewidth=1.5)
    if evaluated:
        steps, values = mean_points(evaluated)
        axes.plot(
            steps + dodge, values, marker, color=colour, markersize=7.5, zorder=3, markeredgecolor="white",
            label=None if trained else label,
        )  # fmt: skip


def plot(groups: dict[str, list[Run]], out: Path, window: int, title: str = "") -> None:
    """Draw every group (label -> its runs) into the picture `out`."""
    from matplotlib import ticker
    from matplotlib.figure import Figure  # not pyplot: it needs no display, and keeps no figure open

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    success, returns = figure.subplots(1, 2)
    every = [run for runs in groups.values() for run in runs]
    longest = max(r["env_steps"] for run in every for r in run.episodes + run.evaluations)
    for number, (name, look) in enumerate(looks(groups).items()):
        runs = groups[name]
        label = f"{name} ({len(runs)} runs)" if len(runs) > 1 else name
        dodge = (number - (len(groups) - 1) / 2) * 0.012 * longest  # so that bars at the same step stay apart
        draw(success, look, label, runs, "success", window, dodge)
        draw(returns, look, label, runs, "return", window, dodge)
    success.set(ylabel="success rate", ylim=(-0.03, 1.03), title="Success")
    success.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    returns.set(ylabel="return per episode (sum of raw rewards)", title="Return")
    for axes in (success, returns):
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    key = f"line: mean of the last {window} training episodes"
    key += "; thin, small: each run" if any(len(runs) > 1 for runs in groups.values()) else ""
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
    parser.add_argument("--title", default="", metavar="TEXT", help="over the picture")
    parser.add_argument("--out", type=Path, default=Path("plot.png"), metavar="FILE", help="the picture (plot.png)")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.plot").flags
    if flags.window < 1:
        raise UserError(f"--window {flags.window}: at least 1")
    groups = groups_of(flags.runs, flags.label)
    plot(groups, flags.out, flags.window, flags.title)
    for label, runs in groups.items():
        last = [run.running("success", flags.window)[1][-1] for run in runs if run.episodes]
        if last:
            count = f" of each of {len(last)} runs" if len(last) > 1 else ""
            print(f"{label}: success {np.mean(last):.2f} over the last {flags.window} episodes{count}")
    print(flags.out)


if __name__ == "__main__":
    cli.run(main)
