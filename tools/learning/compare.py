"""Two presets held against each other, run by run: paired differences of their figures, and how sure they are.

Two runs are a pair when they have the same folder, task and seed, and so the same demonstrations. 95 % intervals and
p are those of the paired t test (two-sided; the primary test: pairs are few), and beside it a percentile bootstrap of
the pairs. The primary figures (unless told otherwise, regret and the drop in the first tenth) have p after Holm's
correction for all of them, too. p of the others is not corrected. Pairs of one seed in several folders share
demonstrations, so they know less than as many of different seeds; a run is in one pair only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from agent.spec import UserError
from tools.common.curves import people_say
from tools.common.table import markdown, signed
from tools.learning.results import Run, failures, grouped, largest_drop, lowest, other_settings, regret

DIFFERENCE, POWER, SIGNIFICANCE = 0.05, 0.8, 0.05  # what `pairs_needed` plans for
FIRST_TENTH = 0.1
RESAMPLES = 10_000
MOST_SETTINGS = 8  # that are named
Pair = tuple[Run, Run]


@dataclass(frozen=True)
class Figure:
    key: str  # of --primary
    name: str
    of: Callable[[Run], float | None]  # None: the run has none, since nobody looked there
    better: int  # the sign of a difference in favour of the first preset


FIGURES = [
    Figure("regret", "regret", lambda run: regret(run.points) if run.is_online else None, -1),
    Figure("failures", "failures in training", failures, -1),
    Figure("drop", "drop in the first tenth", lambda run: largest_drop(run.points, run.env_steps, FIRST_TENTH), -1),
    Figure(
        "lowest", "lowest success in the first tenth", lambda run: lowest(run.points, run.env_steps, FIRST_TENTH), 1
    ),
    Figure("offline", "success offline", lambda run: run.points[0][1], 1),
    Figure("end", "success at the end", lambda run: run.points[-1][1] if run.is_online else None, 1),
]
KEYS = [figure.key for figure in FIGURES]
PRIMARY = ("regret", "drop")


def pairs(runs: Iterable[Run], one: str, two: str) -> tuple[list[Pair], list[str]]:
    """Those of the presets `one` and `two`, and the names of runs without a counterpart. Raises UserError for runs of
    one preset that differ in more than their seeds, for pairs of which one run is longer or evaluated otherwise, and
    for pairs that differ in other settings than the rest.
    """
    found: list[Pair] = []
    alone = []
    for task, presets in grouped(run for run in runs if run.preset in (one, two)).items():
        first, second = ({run.seed: run for run in presets.get(name, [])} for name in (one, two))
        both = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
        for pair in both:
            if different := not_alike(*pair):
                raise UserError(f"--compare {one} {two}: {task}, seed {pair[0].seed}: no pair: {different}")
        found += both
        for name, own, other in ((one, first, second), (two, second, first)):
            if seeds := sorted(own.keys() - other.keys()):
                alone.append(f"{task}, {name}, seed {', '.join(map(str, seeds))}")
    kinds: dict[frozenset[str], str] = {}  # settings that differ -> the first task where they do
    for pair in found:
        kinds.setdefault(frozenset(other_settings(*pair)), pair[0].task)
    if len(kinds) > 1:
        differ = " against ".join(f"{task} ({named(keys)})" for keys, task in kinds.items())
        change = f"not one change of settings but {len(kinds)}: {differ}; compare them in calls of their own"
        raise UserError(f"--compare {one} {two}: {change}")
    return found, alone


def not_alike(one: Run, two: Run) -> str:
    """In what that a pair must share they differ: length, evaluations, demonstrations. Empty if in nothing."""
    lengths = [f"{run.env_steps:,} env steps, {run.episodes} episodes" for run in (one, two)]
    if lengths[0] != lengths[1]:
        return " against ".join(lengths)
    found = other_settings(one, two).items()
    shared = (f"{key}: {a!r} against {b!r}" for key, (a, b) in found if key == "at" or key.startswith("data."))
    return next(shared, "")


def by_figure(found: Sequence[Pair], figure: Figure) -> np.ndarray:
    """(pairs that have the figure,): the first preset's less the second's."""
    both = [(figure.of(one), figure.of(two)) for one, two in found]
    return np.array([a - b for a, b in both if a is not None and b is not None], float)


def t_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """95 % of the mean difference, and p of none; by Student's t. For two pairs or more that are not all equal."""
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(0.95)
    return float(low), float(high), float(test.pvalue)


def t_p(differences: np.ndarray) -> float | None:
    """As of t_interval; None for fewer than two pairs, and for pairs that are all equal."""
    return t_interval(differences)[2] if _vary(differences) else None


def _vary(differences: np.ndarray) -> bool:
    return len(differences) > 1 and bool(np.ptp(differences) >= 1e-9)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p of tests that are judged together, in their order; one without p counts as a test."""
    adjusted, least = list(p), 0.0
    for rank, (value, place) in enumerate(sorted((value, place) for place, value in enumerate(p) if value is not None)):
        least = max(least, min(1.0, (len(p) - rank) * value))
        adjusted[place] = least
    return adjusted


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
    "p (Holm)",
    "95 % (bootstrap)",
    "wins / losses / ties",
    "pairs needed",
]


def row(figure: Figure, differences: np.ndarray, primary: bool = False, adjusted: float | None = None) -> list[str]:
    """adjusted: p of a primary figure, by `holm`."""
    gains = figure.better * differences
    better = f"{'lower' if figure.better < 0 else 'higher'} is better{', primary' * primary}"
    cells = [f"{figure.name} ({better})", str(len(differences))]
    if not len(differences):
        return [*cells, *[""] * 7]
    counted = f"{(gains > 1e-9).sum()} / {(gains < -1e-9).sum()} / {(abs(gains) <= 1e-9).sum()}"
    if not _vary(differences):
        return [*cells, signed(differences.mean()), "", "", "", "", counted, ""]
    low, high, p = t_interval(differences)
    least, most = bootstrap_interval(differences)
    needed = f"{pairs_needed(float(differences.std(ddof=1))):,}"
    return [
        *cells, signed(differences.mean()), f"{signed(low)} to {signed(high)}", f"{p:.3f}",
        "" if adjusted is None else f"{adjusted:.3f}", f"{signed(least)} to {signed(most)}", counted, needed,
    ]  # fmt: skip


def rows(found: Sequence[Pair], primary: Collection[str] = PRIMARY) -> list[list[str]]:
    """One of each figure; `primary`: keys of those that are judged together."""
    differences = {figure.key: by_figure(found, figure) for figure in FIGURES}
    judged = [key for key in KEYS if key in primary]
    adjusted = dict(zip(judged, holm([t_p(differences[key]) for key in judged]), strict=True))
    return [row(figure, differences[figure.key], figure.key in primary, adjusted.get(figure.key)) for figure in FIGURES]


def by_task(found: Sequence[Pair]) -> list[list[str]]:
    """Rows: the mean differences of each task and comparison."""
    parts: dict[str, list[Pair]] = {}
    for one, two in found:
        parts.setdefault(f"{one.task}: {one.preset}, {two.preset}", []).append((one, two))
    return [
        [name, str(len(part)), *(signed(d.mean()) if len(d := by_figure(part, figure)) else "" for figure in FIGURES)]
        for name, part in parts.items()
    ]


def named(keys: Collection[str]) -> str:
    """Settings, for people."""
    more = f" and {len(keys) - MOST_SETTINGS} more" if len(keys) > MOST_SETTINGS else ""
    return (", ".join(sorted(keys)[:MOST_SETTINGS]) or "none that is recorded") + more


def unlike(found: Sequence[Pair]) -> str:
    """In how many pairs code or precision differ, of which the settings know nothing; empty if in none."""
    counts = {
        "runs of different commits": sum(one.commit != two.commit for one, two in found),
        "one run in float32 that asked for bfloat16": sum(one.fell_back != two.fell_back for one, two in found),
    }
    return "".join(f"; {what} in {count} of {len(found)} pairs" for what, count in counts.items() if count)


def report(runs: Sequence[Run], comparisons: Sequence[Sequence[str]], primary: Collection[str] = PRIMARY) -> str:
    """Markdown, of the pairs of all comparisons together. Raises UserError."""
    found: list[Pair] = []
    lines: list[str] = []
    alone: list[str] = []
    for one, two in dict.fromkeys(map(tuple, comparisons)):
        if one == two:
            raise UserError(f"--compare {one} {two}: needs two presets")
        some, left_out = pairs(runs, one, two)
        if not some:
            raise UserError(f"--compare {one} {two}: no task has both with the same seed")
        seen = {id(run): run for pair in found for run in pair}
        if again := next((run for pair in some for run in pair if id(run) in seen), None):
            name = f"{again.task}, {again.preset}, seed {again.seed}"
            raise UserError(f"--compare {one} {two}: {name} is in two comparisons: give them in two calls")
        both = f"{one} ({people_say(one)}) less {two} ({people_say(two)}), pairs: {len(some)}"
        changed = named(other_settings(*some[0]))  # as in all of them
        lines.append(f"{both}; settings that differ: {changed}{unlike(some)}")
        found, alone = found + some, alone + left_out
    lines += [
        "",
        markdown(HEAD, rows(found, primary)),
        "",
        f"t: paired t test, the primary one. Bootstrap: {RESAMPLES:,} resamples of the pairs. Wins: of the first.",
        f"Pairs needed: for a difference of {DIFFERENCE} at {POWER:.0%} power, from the spread of these differences.",
        "Holm: p of the primary figures, corrected for all of them. p of the others is not corrected.",
        "",
        markdown(["task", "pairs", *(figure.name for figure in FIGURES)], by_task(found)),
        "",
        *(f"- left out, without a counterpart: {name}" for name in alone),
    ]
    return "\n".join(lines).rstrip()
