"""Park an arm: lead it to a pose in which it may lose its torque, before its driver is disconnected.

It goes there through the safety filter, from where it was sent last (an arm sags, so that its measured place is lower),
and by itself: nobody has to command it any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from envs.real.arm import ArmError, State
from envs.real.standing import moving

if TYPE_CHECKING:
    from envs.real.guard import Guard

SETTLE_S = 3.0  # it may arrive, and stand, so much later than it was sent there
RELAX_S = 1.0  # a gripper may take so long to let go


@dataclass(frozen=True)
class Park:
    """float64 (n,) each. position: NaN for an axis that stays. speed: a second. near: so far from it is there.

    still: what moves by less stands (envs.real.standing). grippers: bool (n,), those that press on nothing at the end.
    """

    position: np.ndarray
    speed: np.ndarray
    near: np.ndarray
    still: np.ndarray
    grippers: np.ndarray


def park(guard: Guard, stopped: Callable[[float], bool]) -> str:
    """Return "" when the arm is parked, else why it is not. stopped: waits for so long; whether to hold it at once."""
    park = guard.setup.park
    if park is None:
        return "it has no place for that"
    try:
        begin = guard.proceed()
        goal = np.where(np.isfinite(park.position), park.position, begin)
        period_s = guard.setup.period_s
        count = int(np.ceil(np.max(np.abs(goal - begin) / park.speed / period_s, initial=1)))
        seen: list[np.ndarray] = []
        for step in range(1, count + int(SETTLE_S / period_s) + 1):
            state = _command(guard, begin + (goal - begin) * min(step / count, 1.0), stopped)
            seen.append(state.position)
            off = np.abs(state.position - goal) / park.near
            moves = moving(seen, park.still, period_s)
            if step >= count and off.max() <= 1 and not moves.any():
                break
        else:
            guard.hold()
            if off.max() <= 1:
                return f"axis '{guard.arm.axes[int(moves.argmax())]}' does not stand still"
            axis = int(off.argmax())
            where = f"{goal[axis]:.3g}, it is at {state.position[axis]:.3g}"
            return f"axis '{guard.arm.axes[axis]}' does not reach {where}"
        if park.grippers.any():
            relaxed = np.where(park.grippers, state.position, goal)
            for _ in range(int(RELAX_S / period_s)):
                there = (guard.filter.position == relaxed).all()
                _command(guard, relaxed, stopped)
                if there:  # the motors, too
                    break
    except (ArmError, Stopped) as error:
        return str(error)
    return ""


class Stopped(Exception):
    """A person has stopped it, and the arm is held."""


def _command(guard: Guard, requested: np.ndarray, stopped: Callable[[float], bool]) -> State:
    """One period's command. Returns the state before it. Raises Stopped, ArmError."""
    begun_s = time.monotonic()
    _, _, state = guard.command(requested, begun_s)
    while (left_s := begun_s + guard.setup.period_s - time.monotonic()) > 0:
        if stopped(min(left_s, guard.wait_s)):
            guard.hold()
            raise Stopped("stopped by a person")
        guard.tick()
    return state
