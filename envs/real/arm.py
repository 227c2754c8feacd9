"""What an arm has to be able to do, and which arms there are. Your own: the guide is docs/your_own_arm.md.

An arm lives in a process of its own (arm_process), behind the safety filter, and nobody else talks to it. Its axes
are whatever it is commanded in, a number each: joints, or the hand's position; the units are its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from agent.options import nearest


class ArmError(RuntimeError):
    """The arm cannot go on by itself: a person has to look. One line that says why."""


def described(error: BaseException) -> str:
    """One line for it: its text, after its type where that is none of those that drivers raise on purpose."""
    text = " ".join(str(error).split())
    if text and isinstance(error, (OSError, RuntimeError, ValueError, ImportError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True)
class State:
    """position: float64 (n,) measured, in the order of the axes. time_s: time.monotonic() when it was measured.

    images: of cameras that only the arm's driver can read, uint8 (H, W, 3) RGB. Of a simulated arm, None where there is
    no such thing: success, what its world says of the task, and thing, float64 (3,), where the object is.
    Of motors that report it: effort, "load" in % of the most that a motor gives, "current" in mA, "temperature" in
    degrees C -> float64 (n,), the first two without sign, NaN for an axis that has none, each up to a second old;
    errors, axis -> what its motor reports, "overload" or another word.
    By the guard: coasted, this is the last measurement, a newer one was lost; lost, replies since the process started;
    target, float64 (n,), where the arm is sent now: what lost setpoints and holds cut off is not in it any more;
    relaxed, axes that press no harder than their `press` or `squeeze`; held, it stands until the next command.
    """

    position: np.ndarray
    time_s: float
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    success: bool | None = None
    thing: np.ndarray | None = None
    effort: Mapping[str, np.ndarray] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    relaxed: tuple[str, ...] = ()
    coasted: bool = False
    lost: int = 0
    target: np.ndarray | None = None
    held: bool = False


class Arm(Protocol):
    """All calls come from one thread. Any of them may raise ArmError (OSError and RuntimeError mean the same).

    ConnectionError and TimeoutError say that a reply was lost: that is bridged for `coast_s`, by trying again; of
    `connect`, by `disconnect` and another `connect`. An arm that goes on without a reply counts it in an attribute
    `lost`, so that the time it took is bridged, too. One whose motors give way under load, as position servos do, has
    an attribute `sags`, True: held while it stands, it then gets the target that it had.
    """

    axes: tuple[str, ...]  # their names; known before `connect`

    def connect(self) -> None:
        """Power up and enable; does not move. Raises ArmError with the remedy."""

    def state(self) -> State:
        """The newest measurement."""

    def command(self, target: np.ndarray) -> np.ndarray:
        """Go to `target` (n,), and return what was sent to the motors. Does not wait for the motion."""

    def hold(self) -> None:
        """Stand still at once, where it is, with power. May be called again and again."""

    def disconnect(self) -> None:
        """Leave it safe, without power if it can stand so. May follow a failed `connect`."""


KINDS: dict[str, tuple[str, str]] = {
    "mock": ("envs.real.mock_arm", "mock_arm"),
    "lerobot": ("envs.real.arm_lerobot", "LeRobotArm"),
    "ur": ("envs.real.arm_ur", "URArm"),
    "xarm": ("envs.real.arm_xarm", "XArm"),
}


def make_arm(kind: str, options: Mapping[str, Any]) -> Arm:
    """kind: one of KINDS, "mock:so101", "lerobot:<type>", or "your.module:YourArm", made from `options` by name.

    Raises ValueError, one line, for what there is not, and what the arm's own constructor raises as ValueError.
    """
    first, _, rest = kind.partition(":")
    if first in KINDS:
        module, name = KINDS[first]
        given = (rest,) if rest else ()
    elif rest:
        module, name, given = first, rest, ()
    else:
        raise ValueError(f"arm '{kind}'{nearest(kind, KINDS)}: one of {', '.join(KINDS)} or your.module:YourArm")
    try:
        maker: Callable[..., Arm] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"arm '{kind}': {' '.join(str(error).split())}") from None
    try:
        return maker(*given, **options)
    except TypeError as error:  # an option that there is not
        raise ValueError(f"arm '{kind}': {' '.join(str(error).split())}") from None
