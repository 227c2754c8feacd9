"""What learning runs came to: a table and a plot for each task.

  python -m tools.learning.report runs/learning/lift               # Markdown on stdout, plots beside the results
  python -m tools.learning.report runs/learning/lift runs/learning/can --out docs/learning

Reads every result there is, also of a suite that is not finished yet; a run that diverged has no success from there
on. All figures are of evaluations with fixed seeds and the policy's mean action, unless a line says otherwise.

  offline -> online   success before the first online step, and after the last; mean over seeds with a 95 % interval:
                      the wider one of Student's over the seeds and Wilson's over all of their episodes
  regret              mean of 1 - success over the online env steps, as in the Cal-QL paper: 0 is best, 1 worst
                      (area above the curve of evaluations; in training: the mean over training episodes)
  drop                how far success fell below that of the offline policy in the first fifth of the online env steps,
                      in so many evaluations there
  steps to 90 %       env steps to the first evaluation with so much: the median over all runs; how many got there
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from scipy.stats import t as student

from agent import cli
from agent.run.statistics import wilson
from agent.spec import UserError
from tools.plot import COLOURS, MARKERS, spread

FIRST = 0.2  # of the online phase: where a policy collapses, if it does
SLACK = 0.025  # of it: an evaluation is of the checkpoint nearest to where it was wanted
BINS = 10  # of the online phase, for success in training
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
    lived: float  # the share of its env steps that it had a policy for

    @classmethod
    def of(cls, result: dict[str, Any]) -> Run:
        points = [(float(e["env_steps"]), float(e["success"])) for e in result["evaluations"]]
        end, lived = float(result["env_steps"]), 1.0
        if result["died"]:  # from there on it has no policy
            last = max(points[-1][0], float(result["died_at"]))
            lived = min(1.0, last / end) if end else 0.0
            points += [(steps, 0.0) for steps in (last + 1, end) if steps > points[-1][0]]
        training = [(float(steps), float(success)) for steps, success in result["training"]]
        same = {key: result[key] for key in ("task", "preset", "seed", "env_steps", "warnings", "minutes")}
        episodes = result["evaluations"][0]["episodes"]
        return cls(points=points, episodes=episodes, training=training, died=bool(result["died"]), lived=lived, **same)


def read(folders: Sequence[Path]) -> list[Run]:
    """Of several folders, a task's name has its folder's before it. Raises UserError when there is none, or naming the
    file that is no result.
    """
    runs = []
    for path in [path for folder in folders for path in sorted(folder.glob("*.json"))]:
        try:
            run = Run.of(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path}: not a result of tools.learning: {type(error).__name__} {error}") from None
        runs.append(replace(run, task=f"{path.parent.name}-{run.task}") if len(folders) > 1 else run)
    if not runs:
        raise UserError("no results there yet")
    return runs


def regret(points: Points) -> float:
    """Mean of 1 - success from the first point to the last, the curve taken as straight between two of them."""
    steps, success = np.array(points, float).T
    return float(np.trapezoid(1 - success, steps) / (steps[-1] - steps[0]))


def early(points: Points, env_steps: float) -> list[float]:
    """Success in the first fifth of the online phase, the offline policy's left out."""
    return [success for steps, success in points[1:] if steps <= (FIRST + SLACK) * env_steps]


def largest_drop(points: Points, env_steps: float) -> float | None:
    """How far success fell below its first value in the first fifth; 0 if it did not, None if nobody looked there."""
    return max(0.0, points[0][1] - min(seen)) if (seen := early(points, env_steps)) else None


def steps_to(goal: float, points: Points) -> float | None:
    """Env steps of the first point that reaches `goal`; None without one."""
    return next((steps for steps, success in points if success >= goal), None)


def in_training(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(env steps, success) of the training episodes that ended in each tenth of the online phase, where some did."""
    steps, success = np.array(run.training, float).reshape(-1, 2).T
    part = np.minimum(BINS * steps / run.env_steps, BINS - 1).astype(int)
    there = np.unique(part)
    return (there + 0.5) * run.env_steps / BINS, np.array([success[part == each].mean() for each in there])


def interval(rates: Sequence[float], episodes: int) -> tuple[float, float]:
    """95 % of the mean success over runs, each seen in so many episodes: see the module."""
    low, high = wilson(round(sum(rates) * episodes), len(rates) * episodes)
    if len(rates) > 1:
        half = float(student.ppf(0.975, len(rates) - 1)) * stdev(rates) / len(rates) ** 0.5
        low, high = min(low, fmean(rates) - half), max(high, fmean(rates) + half)
    return max(0.0, low), min(1.0, high)


def grouped(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """task -> preset -> its runs. Raises UserError if runs of one preset differ in more than their seeds, or not in
    these.
    """
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        same = groups.setdefault(run.task, {}).setdefault(run.preset, [])
        if same and (same[0].env_steps, same[0].episodes) != (run.env_steps, run.episodes):
            raise UserError(f"{run.task}, {run.preset}: runs of other lengths, or evaluated otherwise, are no mean")
        if any(run.seed == other.seed for other in same):
            raise UserError(f"{run.task}, {run.preset}: two results of seed {run.seed}; are two folders of one name?")
        same.append(run)
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
    training = [1 - run.lived * fmean(won for _, won in run.training) for run in online if run.training]
    drops = [drop for run in online if (drop := largest_drop(run.points, run.env_steps)) is not None]
    looked = max(len(early(run.points, run.env_steps)) for run in online)
    reached = [steps for run in online if (steps := steps_to(GOAL, run.points)) is not None]
    middle = median(reached + [math.inf] * (len(online) - len(reached)))
    there = f"{middle:,.0f}" if middle < math.inf else "not reached"
    return [
        *cells,
        success(online, -1),
        f"{fmean(regret(run.points) for run in online):.2f}",
        f"{fmean(training):.2f}" if training else "",
        f"{fmean(drops):.0%}, at most {max(drops):.0%} (of {looked})" if drops else "",
        f"{there} ({len(reached)} of {len(online)})",
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
    """Success against env steps: mean over the seeds, band from the worst to the best; dotted, in training."""
    figure = Figure(figsize=(7.2, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    longest = max(run.env_steps for runs in presets.values() for run in runs) or 1
    stub = -0.06 * longest
    for number, (preset, runs) in enumerate(presets.items()):
        again, which = divmod(number, len(COLOURS))
        colour, marker = COLOURS[which], MARKERS[(which + again) % len(MARKERS)]
        before = fmean(run.points[0][1] for run in runs)
        curves = [tuple(np.array(run.points).T) for run in runs if len(run.points) > 1]
        label = f"{preset} ({len(runs)} run{'s' if len(runs) > 1 else ''})"
        axes.plot([stub, 0], [before, before], color=colour, linewidth=2, label=None if curves else label)
        if not curves:
            axes.axhline(before, color=colour, linewidth=1, linestyle=":")
            continue
        steps, mean, low, high = spread(curves)
        axes.plot(steps, mean, color=colour, linewidth=2, marker=marker, markersize=5, label=label)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        trained = [in_training(run) for run in runs if run.training]
        if trained:
            steps, mean, _, _ = spread(trained)
            axes.plot(steps, mean, color=colour, linewidth=1.2, linestyle=":")
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.text(0, 1.045, "offline | online", ha="center", fontsize=8, color="0.3")
    axes.set(
        title=task, xlabel="online environment steps", ylabel="success rate", ylim=(-0.03, 1.03), xlim=(stub, None)
    )
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    said = "mean over seeds; band: worst to best of them; dotted: in training, with the policy's noise"
    figure.legend(loc="outside lower center", ncols=4, frameon=False, title=said)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.learning.report").flags
    if not flags.results:
        raise UserError("name the folders of results, such as runs/learning/lift")
    runs = read(flags.results)
    known = list(dict.fromkeys(run.preset for run in runs))
    for name in flags.presets:
        if name not in known:
            raise UserError(f"--presets {name}: there are {', '.join(known)}{cli.nearest(name, known)}")
    for task, presets in grouped(run for run in runs if run.preset in (flags.presets or known)).items():
        out = (flags.out or flags.results[0]) / f"{task}.png"
        try:
            plot(task, presets, out)
        except OSError as error:
            raise UserError(f"{out}: cannot write: {error.strerror}") from None
        minutes = sum(run.minutes for runs in presets.values() for run in runs)
        print(f"{task}: {out}; {minutes:.0f} minutes of runs\n\n{table(presets)}\n")
        for note in notes(presets):
            print(f"- {note}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="folders of tools.learning")
    parser.add_argument("--presets", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the plots go (the first RESULTS)")


if __name__ == "__main__":
    cli.run(main)
