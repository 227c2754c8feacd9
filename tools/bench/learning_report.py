"""What learning runs came to: a table and a plot for each task.

  python -m tools.bench.learning_report runs/learning/cpu                 # Markdown on stdout, plots beside the results
  python -m tools.bench.learning_report runs/learning/lift runs/learning/can --out docs/learning

Reads every result there is, also of a suite that is not finished yet; a run that diverged ends without success. All
figures are of evaluations with fixed seeds and the policy's mean action, unless a line says otherwise.

  offline -> online   success before the first online step, and after the last; mean over seeds with a 95 % interval:
                      the wider one of Student's over the seeds and Wilson's over all of their episodes
  regret              mean of 1 - success over the online env steps, as in the Cal-QL paper: 0 is best, 1 worst
                      (area above the curve of evaluations; in training: the mean over training episodes)
  drop                how far success fell below that of the offline policy in the first fifth of the online env steps
  steps to 90 %       env steps to the first evaluation with so much; how many of the runs got there
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from scipy.stats import t as student

from agent import cli
from agent.spec import UserError
from tools.outcome import wilson
from tools.plot import COLOURS, MARKERS, spread

FIRST = 0.2  # of the online phase: where a policy collapses, if it does
SLACK = 0.025  # of it: an evaluation is of the checkpoint nearest to where it was wanted
GOAL = 0.9
Points = Sequence[tuple[float, float]]  # (env steps, success), the first at 0


@dataclass(frozen=True)
class Run:
    """One result file, and what it says of learning."""

    task: str
    preset: str
    seed: int
    env_steps: int
    points: list[tuple[float, float]]
    episodes: int  # of each evaluation
    training: list[tuple[float, float]]
    warnings: list[str]
    died: bool
    minutes: float

    @classmethod
    def of(cls, result: dict[str, Any]) -> Run:
        points = [(float(e["env_steps"]), float(e["success"])) for e in result["evaluations"]]
        if result["died"]:  # from there on it has no policy
            points.append((float(result["env_steps"]), 0.0))
        training = [(float(steps), float(success)) for steps, success in result["training"]]
        same = {key: result[key] for key in ("task", "preset", "seed", "env_steps", "warnings", "minutes")}
        episodes = result["evaluations"][0]["episodes"]
        return cls(points=points, episodes=episodes, training=training, died=bool(result["died"]), **same)


def read(folders: Iterable[Path]) -> list[Run]:
    """Raises UserError when there is none, or naming the file that is no result."""
    runs = []
    for path in [path for folder in folders for path in sorted(folder.glob("*.json"))]:
        try:
            runs.append(Run.of(json.loads(path.read_text())))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path}: not a result of tools.bench.learning: {type(error).__name__} {error}") from None
    if not runs:
        raise UserError("no results there yet")
    return runs


def regret(points: Points) -> float:
    """Mean of 1 - success from the first point to the last, the curve taken as straight between two of them."""
    steps, success = np.array(points, float).T
    return float(np.trapezoid(1 - success, steps) / (steps[-1] - steps[0]))


def largest_drop(points: Points, env_steps: float) -> float | None:
    """How far success fell below its first value in the first fifth; 0 if it did not, None if nobody looked there."""
    early = [success for steps, success in points[1:] if steps <= (FIRST + SLACK) * env_steps]
    return max(0.0, points[0][1] - min(early)) if early else None


def steps_to(goal: float, points: Points) -> float | None:
    """Env steps of the first point that reaches `goal`; None without one."""
    return next((steps for steps, success in points if success >= goal), None)


def interval(rates: Sequence[float], episodes: int) -> tuple[float, float]:
    """95 % of the mean success over runs, each seen in so many episodes: see the module."""
    low, high = wilson(round(sum(rates) * episodes), len(rates) * episodes)
    if len(rates) > 1:
        half = float(student.ppf(0.975, len(rates) - 1)) * stdev(rates) / len(rates) ** 0.5
        low, high = min(low, fmean(rates) - half), max(high, fmean(rates) + half)
    return max(0.0, low), min(1.0, high)


def grouped(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """task -> preset -> its runs."""
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.task, {}).setdefault(run.preset, []).append(run)
    return groups


def success(runs: Sequence[Run], which: int) -> str:
    """Mean over the runs at their first (0) or last (-1) evaluation, with its interval."""
    rates = [run.points[which][1] for run in runs]
    low, high = interval(rates, runs[0].episodes)
    return f"{fmean(rates):.0%} ({low * 100:.0f} to {high * 100:.0f})"


def row(preset: str, runs: Sequence[Run]) -> list[str]:
    online = [run for run in runs if len(run.points) > 1]
    cells = [preset, str(len(runs)), success(runs, 0)]
    if not online:
        return [*cells, *[""] * 5]
    training = [1 - fmean(won for _, won in run.training) for run in online if run.training]
    drops = [drop for run in online if (drop := largest_drop(run.points, run.env_steps)) is not None]
    reached = [steps for run in online if (steps := steps_to(GOAL, run.points)) is not None]
    there = f"{fmean(reached):,.0f} ({len(reached)} of {len(online)})" if reached else f"none of {len(online)}"
    return [
        *cells,
        success(online, -1),
        f"{fmean(regret(run.points) for run in online):.2f}",
        f"{fmean(training):.2f}" if training else "",
        f"{fmean(drops):.0%}, at most {max(drops):.0%}" if drops else "",
        there,
    ]


HEAD = ["preset", "runs", "offline", "online", "regret", "in training", "drop in the first fifth", "steps to 90 %"]


def table(presets: dict[str, list[Run]]) -> str:
    """Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(row(preset, runs) for preset, runs in presets.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def notes(presets: dict[str, list[Run]]) -> list[str]:
    """What the table does not say: runs that diverged, and those that were called dead while they ran."""
    found = []
    for preset, runs in presets.items():
        found += [f"{preset}, seed {run.seed}: diverged" for run in runs if run.died]
        found += [f"{preset}, seed {run.seed}: {line}" for run in runs for line in run.warnings]
    return found


def plot(task: str, presets: dict[str, list[Run]], out: Path) -> None:
    """Success against env steps: mean over the seeds, and a band from the worst to the best of them."""
    figure = Figure(figsize=(7.2, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    longest = max(run.env_steps for runs in presets.values() for run in runs) or 1
    stub = -0.06 * longest
    for number, (preset, runs) in enumerate(presets.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        before = fmean(run.points[0][1] for run in runs)
        curves = [tuple(np.array(run.points).T) for run in runs if len(run.points) > 1]
        label = f"{preset} ({len(runs)} run{'s' if len(runs) > 1 else ''})"
        axes.plot([stub, 0], [before, before], color=colour, linewidth=2, label=None if curves else label)
        if not curves:
            axes.axhline(before, color=colour, linewidth=1, linestyle=":")
            continue
        steps, mean, low, high = spread(curves)  # type: ignore[arg-type]
        axes.plot(steps, mean, color=colour, linewidth=2, marker=marker, markersize=5, label=label)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.text(0, 1.045, "offline | online", ha="center", fontsize=8, color="0.3")
    axes.set(
        title=task, xlabel="online environment steps", ylabel="success rate", ylim=(-0.03, 1.03), xlim=(stub, None)
    )
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower center", ncols=4, frameon=False, title="mean over seeds; band: worst to best of them"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.bench.learning_report").flags
    if not flags.results:
        raise UserError("name the folders of results, such as runs/learning/cpu")
    for task, presets in grouped(read(flags.results)).items():
        out = (flags.out or flags.results[0]) / f"{task}.png"
        plot(task, presets, out)
        minutes = sum(run.minutes for runs in presets.values() for run in runs)
        print(f"{task}: {out}; {minutes:.0f} minutes of runs\n\n{table(presets)}\n")
        for note in notes(presets):
            print(f"- {note}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="folders of tools.bench.learning")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the plots go (the first RESULTS)")


if __name__ == "__main__":
    cli.run(main)
