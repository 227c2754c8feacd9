"""Two presets held against each other, run by run: paired differences of their figures, and how sure they are.

Two runs are a pair when they have the same folder, task and seed, and so the same demonstrations. 95 % intervals and
p are those of the paired t test (two-sided; the primary ones: pairs are few), and beside it a percentile bootstrap of
the pairs. p is not corrected for the number of figures. Pairs of one seed in several folders share demonstrations, so
they know less than as many of different seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from agent.spec import UserError
from tools.common.curves import people_say
from tools.common.table import markdown, signed
from tools.learning.results import Run, failures, grouped, largest_drop, regret
from tools.learning.settings import differences

DIFFERENCE, POWER, SIGNIFICANCE = 0.05, 0.8, 0.05  # what `pairs_needed` plans for
FIRST_TENTH = 0.1
RESAMPLES = 10_000
MOST_SETTINGS = 8  # that are named
Pair = tuple[Run, Run]


@dataclass(frozen=True)
class Figure:
    name: str
    of: Callable[[Run], float | None]  # None: the run has none, since nobody looked there
    better: int  # the sign of a difference in favour of the first preset


FIGURES = [
    Figure("regret", lambda run: regret(run.points) if run.is_online else None, -1),
    Figure("failures in training", failures, -1),
    Figure("drop in the first tenth", lambda run: largest_drop(run.points, run.env_steps, FIRST_TENTH), -1),
    Figure("success offline", lambda run: run.points[0][1], 1),
    Figure("success at the end", lambda run: run.points[-1][1] if run.is_online else None, 1),
]


def pairs(runs: Iterable[Run], one: str, two: str) -> tuple[list[Pair], list[str]]:
    """Those of the presets `one` and `two`, and the names of runs without a counterpart. Raises UserError for runs of
    one preset that differ in more than their seeds.
    """
    found: list[Pair] = []
    alone = []
    for task, presets in grouped(run for run in runs if run.preset in (one, two)).items():
        first, second = ({run.seed: run for run in presets.get(name, [])} for name in (one, two))
        found += [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
        for name, own, other in ((one, first, second), (two, second, first)):
            if seeds := sorted(own.keys() - other.keys()):
                alone.append(f"{task}, {name}, seed {', '.join(map(str, seeds))}")
    return found, alone


def by_figure(found: Sequence[Pair], figure: Figure) -> np.ndarray:
    """(pairs that have the figure,): the first preset's less the second's."""
    both = [(figure.of(one), figure.of(two)) for one, two in found]
    return np.array([a - b for a, b in both if a is not None and b is not None], float)


def t_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """95 % of the mean difference, and p of none; by Student's t. For two pairs or more that are not all equal."""
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(0.95)
    return float(low), float(high), float(test.pvalue)


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % of the mean difference, by drawing the pairs anew; the same each time."""
    drawn = np.random.default_rng(0).choice(differences, (RESAMPLES, len(differences)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)


def power(count: int, effect: float) -> float:
    """Of the paired t test with so many pairs, for a difference of `effect` standard deviations."""
    critical, shift = stats.t.ppf(1 - SIGNIFICANCE / 2, count - 1), effect * count**0.5
    return float(stats.nct.sf(critical, count - 1, shift) + stats.nct.cdf(-critical, count - 1, shift))


def pairs_needed(deviation: float) -> int:
    """Pairs that show a difference of 0.05 with a power of 80 % when differences have this standard deviation."""
    effect = DIFFERENCE / deviation
    count = max(2, int((stats.norm.ppf(1 - SIGNIFICANCE / 2) + stats.norm.ppf(POWER)) ** 2 / effect**2))
    while power(count, effect) < POWER:
        count += 1
    return count


HEAD = [
    "figure",
    "pairs",
    "difference",
    "95 % (t)",
    "p (t)",
    "95 % (bootstrap)",
    "wins / losses / ties",
    "pairs needed",
]


def row(figure: Figure, differences: np.ndarray) -> list[str]:
    gains = figure.better * differences
    cells = [f"{figure.name} ({'lower' if figure.better < 0 else 'higher'} is better)", str(len(differences))]
    if not len(differences):
        return [*cells, *[""] * 6]
    counted = f"{(gains > 1e-9).sum()} / {(gains < -1e-9).sum()} / {(abs(gains) <= 1e-9).sum()}"
    if len(differences) < 2 or np.ptp(differences) < 1e-9:
        return [*cells, signed(differences.mean()), "", "", "", counted, ""]
    low, high, p = t_interval(differences)
    least, most = bootstrap_interval(differences)
    needed = f"{pairs_needed(float(differences.std(ddof=1))):,}"
    return [
        *cells, signed(differences.mean()), f"{signed(low)} to {signed(high)}", f"{p:.3f}",
        f"{signed(least)} to {signed(most)}", counted, needed,
    ]  # fmt: skip


def by_task(found: Sequence[Pair]) -> list[list[str]]:
    """Rows: the mean differences of each task and comparison."""
    parts: dict[str, list[Pair]] = {}
    for one, two in found:
        parts.setdefault(f"{one.task}: {one.preset}, {two.preset}", []).append((one, two))
    return [
        [name, str(len(part)), *(signed(d.mean()) if len(d := by_figure(part, figure)) else "" for figure in FIGURES)]
        for name, part in parts.items()
    ]


def changed(found: Sequence[Pair]) -> str:
    """Which settings differ within the pairs."""
    keys = sorted({key for one, two in found for key in differences(one.made_of, two.made_of)})
    more = f" and {len(keys) - MOST_SETTINGS} more" if len(keys) > MOST_SETTINGS else ""
    return (", ".join(keys[:MOST_SETTINGS]) or "nothing that the results tell") + more


def report(runs: Sequence[Run], comparisons: Sequence[Sequence[str]]) -> str:
    """Markdown, of the pairs of all comparisons together. Raises UserError."""
    found: list[Pair] = []
    lines: list[str] = []
    alone: list[str] = []
    for one, two in dict.fromkeys(map(tuple, comparisons)):
        some, left_out = pairs(runs, one, two)
        if not some:
            raise UserError(f"--compare {one} {two}: no task has both with the same seed")
        both = f"{one} ({people_say(one)}) less {two} ({people_say(two)}), pairs: {len(some)}"
        lines.append(f"{both}; settings that differ: {changed(some)}")
        found, alone = found + some, alone + left_out
    lines += [
        "",
        markdown(HEAD, [row(figure, by_figure(found, figure)) for figure in FIGURES]),
        "",
        f"t: paired t test, the primary one. Bootstrap: {RESAMPLES:,} resamples of the pairs. Wins: of the first.",
        f"Pairs needed: for a difference of {DIFFERENCE} at {POWER:.0%} power, from the spread of these differences.",
        f"p is not corrected for the {len(FIGURES)} figures.",
        "",
        markdown(["task", "pairs", *(figure.name for figure in FIGURES)], by_task(found)),
        "",
        *(f"- left out, without a counterpart: {name}" for name in alone),
    ]
    return "\n".join(lines).rstrip()
