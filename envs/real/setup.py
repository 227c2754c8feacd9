"""What an arm's own process is told of the arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.real.effort import EffortLimits
from envs.real.park import Park
from envs.real.safety_filter import Limits


@dataclass(frozen=True)
class Setup:
    """kind, options: of make_arm. setpoint_hz: targets are reached in so many even steps a second; 0: at once.

    lag, squeeze, press, stuck_s, effort: see envs.real.contact. coast_s: lost replies are bridged so long; 0: none.
    sag: float64 (n,), so far from where it is sent an axis may stand; None: nowhere else.
    """

    kind: str
    options: Mapping[str, Any]
    limits: Limits
    period_s: float
    watchdog_s: float
    release_s: float
    setpoint_hz: float
    lag: np.ndarray
    stuck_s: float
    realtime: bool = True
    coast_s: float = 0.0
    squeeze: np.ndarray | None = None  # None: no axis grips
    press: np.ndarray | None = None  # None: none is relaxed
    effort: EffortLimits = EffortLimits()
    park: Park | None = None
    sag: np.ndarray | None = None
