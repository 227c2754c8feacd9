"""Statistics of success rates."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist


@functools.lru_cache
def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (rate * (1 - rate) / trials + z * z / (4 * trials * trials)) ** 0.5
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def paired_difference(wins: int, losses: int, pairs: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two success rates that were measured in pairs, by Bonett and Price (2012), (4).

    wins, losses: pairs in which only the first, only the second succeeded. An adjusted Wald interval: unlike that of
    Student's t it has a width where all pairs came out alike.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    more, less = (wins + 1) / (pairs + 2), (losses + 1) / (pairs + 2)
    half = z * math.sqrt((more + less - (more - less) ** 2) / (pairs + 2))
    return max(-1.0, more - less - half), min(1.0, more - less + half)


def mcnemar(wins: int, losses: int) -> float:
    """p of no difference between two success rates that were measured in pairs: McNemar's exact test, two-sided."""
    count = wins + losses
    tail: float = sum(math.comb(count, k) for k in range(min(wins, losses) + 1)) / 2**count
    return min(1.0, 2 * tail)
