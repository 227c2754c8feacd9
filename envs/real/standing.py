"""Whether an arm stands, by its last positions: one that is where it was sent may still move; one that has just been
connected, and was sent nowhere, may, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STANDS, STOOD_S = 0.01, 0.4  # an axis that moves by less than that share of its range for so long stands


def window(period_s: float) -> int:
    """How many positions show whether an arm stands."""
    return 2 + int(np.ceil(STOOD_S / period_s))


def moving(seen: Sequence[np.ndarray], still: np.ndarray, period_s: float) -> np.ndarray:
    """Which axes moved by `still` or more, (n,), within the last STOOD_S: bool (n,), all where less than that was seen.

    seen: positions (n,), one a period, the newest last. The first is from before the first command: it does not count.
    """
    count = window(period_s)
    if len(seen) < count:
        return np.ones(len(still), bool)
    moves: np.ndarray = np.ptp(np.asarray(seen)[1 - count :], axis=0) >= still
    return moves


def leap(moved: np.ndarray, lag: np.ndarray, axes: Sequence[str]) -> str:
    """What is wrong with an arm that `moved` (n,) by itself; empty for less than half of `lag` (n,): it may sag."""
    shares = np.abs(moved) / lag
    axis = int(shares.argmax())
    if shares[axis] <= 0.5:
        return ""
    return (
        f"axis '{axes[axis]}' moved by {moved[axis]:.3g} when its torque came on, before any command: keep clear; its "
        "driver has to send where it stands before that"
    )
