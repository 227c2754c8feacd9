"""Least squares of a few numbers, each within bounds."""

from __future__ import annotations

import numpy as np


def bounded(normal: np.ndarray, pull: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The x (n,) of least x·normal·x / 2 - pull·x with low <= x <= high, by active sets; low <= 0 <= high.

    normal: float64 (n, n), positive definite.
    """
    x = np.linalg.solve(normal, pull)
    fixed = (x < low) | (x > high)
    if not fixed.any():
        return np.asarray(x)
    x = np.clip(x, low, high)
    for _ in range(4 * len(pull)):  # more than it ever takes
        aim, free = x.copy(), ~fixed
        if free.any():
            aim[free] = np.linalg.solve(normal[free][:, free], pull[free] - normal[free][:, fixed] @ x[fixed])
        bound = np.where(aim > x, high, low)
        out = free & ((aim > high) | (aim < low))
        if out.any():
            shares = np.full(len(x), np.inf)
            shares[out] = (bound[out] - x[out]) / (aim[out] - x[out])
            first = int(np.argmin(shares))
            x = np.clip(x + shares[first] * (aim - x), low, high)
            x[first], fixed[first] = bound[first], True
            continue
        x = aim
        slope = pull - normal @ x
        wrong = np.where(fixed & (low < high), np.where(x >= high, -slope, slope), 0.0)
        worst = int(np.argmax(wrong))
        if wrong[worst] <= 0:
            break
        fixed[worst] = False
    return x
