"""What learning runs came to: a table and a plot for each task.

  python -m tools.learning.report runs/learning/lift               # Markdown on stdout, plots beside the results
  python -m tools.learning.report runs/learning/lift runs/learning/can --out docs/learning
  python -m tools.learning.report runs/learning/* --compare robot cql   # the paired difference: tools.learning.compare

Reads every result there is, also of a suite that is not finished yet; a run that diverged has no success from there
on. All figures are of evaluations with fixed seeds and the policy's mean action, unless a line says otherwise.

  offline -> online   success before the first online step, and after the last; mean over seeds with a 95 % interval:
                      the wider one of Student's over the seeds and Wilson's over all of their episodes
  regret              mean of 1 - success over the online env steps, as in the Cal-QL paper: 0 is best, 1 worst
                      (area above the curve of evaluations; in training: the mean over training episodes)
  drop                how far success fell below that of the offline policy in the first fifth of the online env steps,
                      in so many evaluations there
  steps to 90 %       env steps to the first evaluation with so much: the median over all runs; how many got there
  robot minutes       what these would take on a robot: at the task's control rate, and --reset-s for each episode
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from scipy.stats import t as student

from agent import cli
from agent.run.statistics import wilson
from agent.spec import UserError
from tools.common.curves import WORDS, looks, mean, mean_points, people_say, task_in_words
from tools.learning import compare
from tools.learning.results import (
    GOAL,
    Run,
    early,
    failures,
    grouped,
    in_training,
    largest_drop,
    read,
    regret,
    robot_minutes,
    steps_to,
)

RESET_S = 10.0


def interval(rates: Sequence[float], episodes: int) -> tuple[float, float]:
    """95 % of the mean success over runs, each seen in so many episodes: see the module."""
    low, high = wilson(round(sum(rates) * episodes), len(rates) * episodes)
    if len(rates) > 1:
        half = float(student.ppf(0.975, len(rates) - 1)) * stdev(rates) / len(rates) ** 0.5
        low, high = min(low, fmean(rates) - half), max(high, fmean(rates) + half)
    return max(0.0, low), min(1.0, high)


def success(runs: Sequence[Run], which: int) -> str:
    """Mean over the runs at their first (0) or last (-1) evaluation, with its interval."""
    rates = [run.points[which][1] for run in runs]
    low, high = interval(rates, runs[0].episodes)
    return f"{fmean(rates):.0%} ({low * 100:.0f} to {high * 100:.0f})"


def row(preset: str, runs: Sequence[Run], reset_s: float = RESET_S) -> list[str]:
    online = [run for run in runs if run.is_online]
    cells = [preset, str(len(runs)), success(runs, 0)]
    if not online:
        return [*cells, *[""] * 6]
    training = [share for run in online if (share := failures(run)) is not None]
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
        minutes_to_goal(online, reset_s),
    ]


def minutes_to_goal(runs: Sequence[Run], reset_s: float) -> str:
    """The median run's; nothing where that did not get there, or a task does not say its rate."""
    taken: list[float] = []
    for run in runs:
        steps = steps_to(GOAL, run.points)
        minutes = math.inf if steps is None else robot_minutes(run, steps, reset_s)
        if minutes is None:
            return ""
        taken.append(minutes)
    middle = median(taken)
    return f"{middle:.0f}" if middle < math.inf else ""


HEAD = [
    "preset", "runs", "offline", "online", "regret", "in training", "drop in the first fifth", "steps to 90 %",
    "robot minutes",
]  # fmt: skip


def table(presets: dict[str, list[Run]], reset_s: float = RESET_S) -> str:
    """Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(row(preset, runs, reset_s) for preset, runs in presets.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def notes(presets: dict[str, list[Run]]) -> list[str]:
    """What the table does not say: runs that diverged, and those that were called dead while they ran."""
    found = []
    for preset, runs in presets.items():
        found += [f"{preset}, seed {run.seed}: diverged" for run in runs if run.died]
        found += [f"{preset}, seed {run.seed}: {line}" for run in runs for line in run.warnings]
    return found


def title(presets: dict[str, list[Run]]) -> str:
    """Task and size of these runs of one task, in words."""
    runs = [run for same in presets.values() for run in same]
    run = runs[0]
    what = task_in_words(*run.made_of.get("env", ("", {}))) or run.task.replace("_", " ").capitalize()
    updates = sorted({run.offline_updates for run in runs if run.offline_updates})
    offline = " to ".join(f"{count:,}" for count in dict.fromkeys([updates[0], updates[-1]])) if updates else "no"
    steps = max(run.env_steps for run in runs)
    seeds = " or ".join(map(str, sorted({len(same) for same in presets.values()})))
    seeds += " seed" if seeds == "1" else " seeds"
    return f"{what}\n{offline} offline updates, {steps:,} online steps; {seeds}, {run.episodes} episodes each"


def plot(presets: dict[str, list[Run]], out: Path) -> None:
    """Success of one task's runs against env steps: a thick line for the mean over the seeds, a thin one for each."""
    figure = Figure(figsize=(7.2, 4.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    every = [run for runs in presets.values() for run in runs]
    stub = -0.06 * (max(run.env_steps for run in every) or 1)
    for preset, (colour, dash, marker) in looks(presets).items():
        runs = presets[preset]
        label = people_say(preset)
        before = fmean(run.points[0][1] for run in runs)
        curves = [(x, y) for run in runs if run.is_online for x, y in [np.array(run.points).T]]
        axes.plot([stub, 0], [before, before], dash, color=colour, linewidth=2, label=None if curves else label)
        if not curves:
            axes.axhline(before, color=colour, linewidth=1, linestyle=":")
            continue
        for steps, success in curves if len(curves) > 1 else []:
            axes.plot(steps, success, dash, color=colour, linewidth=0.8, alpha=0.45)
        axes.plot(*mean_points(curves), dash, color=colour, linewidth=2.2, marker=marker, markersize=5, label=label)
        if trained := [in_training(run) for run in runs if run.training]:
            axes.plot(*mean(trained), color=colour, linewidth=1.2, linestyle=":")
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.text(0, 1.045, "offline | online", ha="center", fontsize=8, color="0.3")
    axes.set(xlabel="online environment steps", ylabel="success rate", ylim=(-0.03, 1.03), xlim=(stub, None))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title(presets), fontsize=10, pad=18)
    key = "thick: mean over seeds; thin: each seed; dotted: in training"
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title=key, fontsize=9, title_fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def check(what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a name that these results do not have."""
    for name in wanted:
        if name not in known:
            raise UserError(
                f"{name}: no such {what} in these results; there are {', '.join(known)}{cli.nearest(name, known)}"
            )


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.learning.report").flags
    if not flags.results:
        raise UserError("name the folders of results, such as runs/learning/lift")
    if not 0 <= flags.reset_s < math.inf:
        raise UserError(f"--reset-s {flags.reset_s:g}: 0 or more seconds")
    runs = read(flags.results)
    if flags.tasks:
        check("task", flags.tasks, sorted({run.task for run in runs}))
        runs = [run for run in runs if run.task in flags.tasks]
    known = sorted({run.preset for run in runs}, key=lambda name: ([*WORDS, name].index(name), name))
    check("preset", [*flags.presets, *(name for both in flags.compare for name in both)], known)
    if flags.compare:
        print(compare.report(runs, flags.compare, flags.primary))
        return
    wanted = flags.presets or known
    runs = sorted((run for run in runs if run.preset in wanted), key=lambda run: wanted.index(run.preset))
    for task, presets in grouped(runs).items():
        out = (flags.out or flags.results[0]) / f"{task}.png"
        try:
            plot(presets, out)
        except OSError as error:
            raise UserError(f"{out}: cannot write: {error.strerror}") from None
        minutes = sum(run.minutes for runs in presets.values() for run in runs)
        print(f"{task}: {out}; {minutes:.0f} minutes of runs\n\n{table(presets, flags.reset_s)}\n")
        for note in notes(presets):
            print(f"- {note}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="folders of tools.learning")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these")
    parser.add_argument("--presets", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument(
        "--compare",
        nargs=2,
        action="append",
        default=[],
        metavar="PRESET",
        help="the paired difference of two; repeatable: all their pairs together",
    )
    parser.add_argument(
        "--primary",
        nargs="+",
        default=list(compare.PRIMARY),
        choices=compare.KEYS,
        metavar="FIGURE",
        help=f"of --compare, those judged together: of {', '.join(compare.KEYS)} ({' '.join(compare.PRIMARY)})",
    )
    parser.add_argument(
        "--reset-s", type=float, default=RESET_S, metavar="S", help=f"what a reset takes on the robot ({RESET_S:g})"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the plots go (the first RESULTS)")


if __name__ == "__main__":
    cli.run(main)
