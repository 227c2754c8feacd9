"""Statistics of success rates."""

from __future__ import annotations

import functools
from statistics import NormalDist


@functools.lru_cache
def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (rate * (1 - rate) / trials + z * z / (4 * trials * trials)) ** 0.5
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)
