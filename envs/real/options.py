"""What a real arm's environment can be told, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.base import nearest
from envs.real.safety_filter import Limits

PERIODS = 1.5  # the shortest watchdog, in control periods
LONGEST = 3.0  # and the longest, unless that is less than a second


def _o(default: Any, help: str) -> Any:
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class Axis:
    """One axis of the arm, in its own units and seconds."""

    low: float = _o(-1.0, "end of its range")
    high: float = _o(1.0, "other end")
    speed: float = _o(0.1, "what an action of 1 asks for, a second")
    velocity: float | None = _o(None, "limit; empty: 1.2 times speed")
    acceleration: float | None = _o(None, "limit; empty: the speed in 0.1 s")
    step: float | None = _o(None, "limit of one command; empty: 1.8 times what speed makes of a period")
    lag: float | None = _o(None, "how far ahead of it its target may be; empty: a quarter of its range")
    home: float = _o(0.0, "where a reset takes it")
    start: float = _o(0.0, "how far from home an episode starts at most, at random")
    gripper: bool = _o(False, "an action opens it (to low) or closes it (to high), instead of moving it")


@dataclass
class Options:
    arm: str = _o("mock", "mock, lerobot:<type>, or your.module:YourArm")
    arm_options: dict = _o({}, "of that arm")
    axes: dict = _o({}, "name: {low, high, speed, home, ...}; those of the arm that are not named stay where they are")
    cameras: dict = _o({}, "name: {source, device, size, ...}; source arm: one that the arm's driver reads")
    control_hz: float = _o(10.0, "actions a second")
    horizon: int = _o(100, "steps after which an episode is truncated")
    setpoint_hz: float = _o(50.0, "how often the arm is told where it should be on its way; 0: once an action")
    watchdog_s: float = _o(0.15, "no command for so long: the arm is held")
    release_s: float = _o(30.0, "held for so long after the robot server has gone, then let go")
    realtime: bool = _o(True, "real-time scheduling of the loop and of the arm's process, where the system allows it")
    stuck_s: float = _o(1.5, "an axis that stands for so long with its target `lag` ahead is stuck; 0: may press on")
    reset_speed: float = _o(0.5, "of a reset, as a share of each axis's speed")
    via: list = _o([], "reset: axes ({x: 0.5}) to pass on the way home, in order")
    prompt: str = _o("", "reset: what a person has to do before each episode; it waits for them")


def read_axis(name: str, given: Any) -> Axis:
    known = Axis.__dataclass_fields__
    if not isinstance(given, Mapping):
        raise ValueError(f"axes: '{name}' is {given!r}; expected low, high, speed, home, ...")
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"axes: '{name}' has no '{key}'{nearest(key, known)}; there are {', '.join(known)}")
        if key == "gripper":
            if not isinstance(value, bool):
                raise ValueError(f"axes: '{name}': gripper is {value!r}; it must be true or false")
        elif value is not None or known[key].default is not None:
            above = key in ("speed", "velocity", "acceleration", "step", "lag")
            number(f"axes: '{name}': {key}", value, 0.0 if above else -np.inf, above=above)
    axis = Axis(**given)
    if (
        not axis.low <= axis.home <= axis.high
        or not axis.low <= axis.home - axis.start <= axis.home + axis.start <= axis.high
    ):
        raise ValueError(
            f"axes: '{name}': home {axis.home:g} +- start {axis.start:g} is not within {axis.low:g} to {axis.high:g}"
        )
    return axis


def number(what: str, value: Any, low: float, high: float = np.inf, above: bool = False) -> None:
    """Raises ValueError naming `what` unless `value` is a finite number, `low` to `high`, or `above` low."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} is {value!r}; it must be a number")
    if not np.isfinite(value) or value < low or value > high or (above and value == low):
        least = f"above {low:.5g}" if above else f"{low:.5g} or more" if np.isfinite(low) else ""
        most = f"{high:.5g} or less" if np.isfinite(high) else ""
        raise ValueError(f"{what} is {value:g}; it must be {' and '.join(filter(None, (least, most))) or 'finite'}")


def limits_of(axes: list[Axis], period_s: float) -> Limits:
    def numbers(value: Callable[[Axis], float]) -> np.ndarray:
        return np.array([value(axis) for axis in axes], np.float64)

    return Limits(
        low=numbers(lambda a: a.low),
        high=numbers(lambda a: a.high),
        step=numbers(lambda a: a.step if a.step is not None else 1.8 * a.speed * period_s),
        velocity=numbers(lambda a: a.velocity if a.velocity is not None else 1.2 * a.speed),
        acceleration=numbers(lambda a: a.acceleration if a.acceleration is not None else 12 * a.speed),
    )


def check(options: Options) -> None:
    if not options.axes:
        raise ValueError(
            "axes: none; name those that an action moves, as {x: {low: 0.3, high: 0.6, speed: 0.1, home: 0.4}}"
        )
    number("control_hz", options.control_hz, 0.5, 1000)
    number("horizon", options.horizon, 1)
    number("setpoint_hz", options.setpoint_hz, 0, 1000)
    number("release_s", options.release_s, 0, 86_400)
    number("stuck_s", options.stuck_s, 0, 3600)
    number("reset_speed", options.reset_speed, 0, 1, above=True)
    hz = options.control_hz
    number(f"watchdog_s (at {hz:g} Hz)", options.watchdog_s, PERIODS / hz, max(1.0, LONGEST / hz))
    for place in options.via:
        if not isinstance(place, Mapping) or not set(place) <= set(options.axes):
            raise ValueError(f"via: {place!r}: expected axes of {', '.join(options.axes)} and where they go")
        for name, value in place.items():
            axis = read_axis(name, options.axes[name])
            number(f"via: {name}", value, axis.low, axis.high)


MOCK_AXES = {
    "x": {"low": 0.40, "high": 0.72, "speed": 0.25, "lag": 0.06, "home": 0.46, "start": 0.02},
    "y": {"low": -0.20, "high": 0.20, "speed": 0.25, "lag": 0.06, "home": 0.0, "start": 0.02},
    "z": {"low": -0.095, "high": 0.22, "speed": 0.25, "lag": 0.06, "home": 0.09, "start": 0.01},
    "gripper": {"low": 0.0, "high": 1.0, "speed": 5.0, "lag": 2.0, "home": 0.0, "gripper": True},
}


@dataclass
class MockOptions(Options):
    axes: dict = _o(MOCK_AXES, "as of `real`")
    cameras: dict = _o(
        {
            "agentview": {"source": "mock", "size": 84, "fps": 20, "warmup_frames": 2},
            "robot0_eye_in_hand": {"source": "mock", "size": 84, "fps": 20, "warmup_frames": 2},
        },
        "as of `real`",
    )
