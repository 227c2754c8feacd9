"""What a real arm's environment can be told, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from agent.options import build, check_range, converted, option
from envs.real.lost_replies import COAST_S
from envs.real.safety_filter import Limits

PERIODS = 1.5  # the shortest watchdog, in control periods
LONGEST = 3.0  # and the longest, unless that is less than a second
LONGEST_COAST_S = 0.3  # a hold bridges its own replies and a read's within ArmProcess's timeout_s


@dataclass
class Axis:
    """One axis of the arm, in its own units and seconds."""

    low: float = option(-1.0, "end of its range")
    high: float = option(1.0, "other end")
    speed: float = option(0.1, "what an action of 1 asks for, a second", above=0)
    velocity: float | None = option(None, "limit; empty: 1.2 times speed", above=0)
    acceleration: float | None = option(None, "limit; empty: the speed in 0.1 s", above=0)
    step: float | None = option(None, "limit of one command; empty: 1.8 times what speed makes of a period", above=0)
    lag: float | None = option(None, "how far ahead of it its target may be; empty: a quarter of its range", above=0)
    home: float = option(0.0, "where a reset takes it")
    start: float = option(0.0, "how far from home an episode starts at most, at random")
    max_load: float | None = option(
        None, "limit of its motor's load, % of the most that it gives; empty: none", above=0
    )
    max_current: float | None = option(None, "limit of its motor's current, mA; empty: none", above=0)
    max_temperature: float | None = option(None, "limit of its motor's temperature, °C; empty: none", above=0)
    press: float | None = option(
        None,
        "how far ahead of it its target stays when it has pressed on something for too long; empty: the arm is held",
        above=0,
    )
    squeeze: float | None = option(
        None, "the same, of a gripper; empty: with `gripper` a twentieth of its range", above=0
    )
    gripper: bool = option(False, "an action opens or closes it, from end to end, instead of moving it")
    opens: Literal["low", "high"] = option("low", "of a gripper: the end where it is open; high: LeRobot's grippers")

    @property
    def opened(self) -> float:
        """Where a gripper is open."""
        return self.low if self.opens == "low" else self.high

    @property
    def closed(self) -> float:
        return self.high if self.opens == "low" else self.low

    @property
    def leash(self) -> float:
        """How far ahead of it its target may be."""
        return self.lag if self.lag is not None else (self.high - self.low) / 4

    @property
    def grasps(self) -> bool:
        """Whether it may have something between its fingers, and so not get where it is sent."""
        return self.gripper or self.squeeze is not None

    def grips(self, position: float) -> bool:
        """Whether a gripper at `position` is nearer to closed than to open."""
        return position > (self.low + self.high) / 2 if self.opens == "low" else position < (self.low + self.high) / 2


@dataclass
class RealOptions:
    arm: str = option("mock", "mock, ur, xarm, lerobot:<type>, or your.module:YourArm")
    arm_options: dict[str, Any] = option({}, "of that arm")
    axes: dict[str, dict[str, Any]] = option(
        {}, "name: {low, high, speed, home, ...}; those of the arm that are not named stay where they are"
    )
    hand: dict[str, Any] = option(
        {}, "{description, speed, ...}: actions move the hand of a joint arm; empty: they move each axis"
    )
    cameras: dict[str, dict[str, Any]] = option(
        {}, "name: {source, device, size, ...}; source arm: one that the arm's driver reads"
    )
    control_hz: float = option(10.0, "actions a second", low=0.5, high=1000)
    horizon: int = option(100, "steps after which an episode is truncated", low=1)
    setpoint_hz: float = option(
        50.0, "how often the arm is told where it should be on its way; 0: once an action", low=0, high=1000
    )
    watchdog_s: float = option(0.15, "seconds without a command after which the arm is held")
    coast_s: float = option(
        COAST_S,
        "seconds without an answer of the arm's bus that are bridged by its last state; then it is held; 0: none",
        low=0,
        high=LONGEST_COAST_S,
    )
    release_s: float = option(
        30.0, "seconds that the arm is held after the robot server was killed, then released", low=0, high=86_400
    )
    realtime: bool = option(
        True, "real-time scheduling of the loop and of the arm's process, where the system allows it"
    )
    stuck_s: float = option(
        1.5,
        "seconds that an axis may stand still with its target `lag` ahead, then it is stuck; 0: no limit",
        low=0,
        high=3600,
    )
    overload_s: float = option(
        1.0, "seconds that a motor may exceed its max_load, max_current or max_temperature", low=0, high=3600
    )
    observe: list[Literal["load", "current", "temperature"]] = option(
        [], "figures of the motors that are observed, for those axes that have them"
    )
    reset_speed: float = option(0.5, "of a reset, as a share of each axis's speed", above=0, high=1)
    via: list[dict[str, float]] = option([], "reset: axes ({x: 0.5}) to pass on the way home, in order")
    camera_check: Literal["warn", "refuse", "ignore"] = option(
        "warn", "at the first reset, where a camera differs from its reference picture (tools.doctor)"
    )
    camera_reference: str = option(
        "", "file of the reference pictures; empty: one for this arm in the user's data folder (~/.local/share/calql)"
    )
    park: dict[str, float] = option(
        {}, "axes ({x: 0.5}) and where they go before the arm is let go; empty: it is let go where it is"
    )
    prompt: str = option("", "reset: what a person has to do before each episode; it waits for them")
    ready: str = option(
        "", "file of tools.train_reward: where the cameras show a scene that is ready, a reset asks nobody"
    )
    reset_task: bool = option(False, "the task is to put the scene back: an episode begins where the arm is")


def read_axis(name: str, given: Mapping[str, Any]) -> Axis:
    """The axis `name`, checked. Raises ValueError, one line."""
    axis = build(Axis, given, f"axes: '{name}': ")
    if axis.low >= axis.high:
        where = f"low {axis.low:g} is not below high {axis.high:g}"
        raise ValueError(f"axes: '{name}': {where}; an axis that shall stay where it is is left out")
    if (
        not axis.low <= axis.home <= axis.high
        or not axis.low <= axis.home - axis.start <= axis.home + axis.start <= axis.high
    ):
        raise ValueError(
            f"axes: '{name}': home {axis.home:g} +- start {axis.start:g} is not within {axis.low:g} to {axis.high:g}"
        )
    if axis.gripper and axis.squeeze is None:
        return replace(axis, squeeze=(axis.high - axis.low) / 20)
    return axis


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


def check(options: RealOptions) -> None:
    if not options.axes:
        raise ValueError(
            "axes: none; name those that an action moves, as {x: {low: 0.3, high: 0.6, speed: 0.1, home: 0.4}}"
        )
    hz = options.control_hz
    check_range(f"watchdog_s (at {hz:g} Hz)", options.watchdog_s, PERIODS / hz, max(1.0, LONGEST / hz))
    for key, place in [*(("via", place) for place in options.via), ("park", options.park)]:
        if not isinstance(place, Mapping) or not set(place) <= set(options.axes):
            raise ValueError(f"{key}: {place!r}: expected axes of {', '.join(options.axes)} and where they go")
        for name, value in place.items():
            axis = read_axis(name, options.axes[name])
            check_range(f"{key}: {name}", converted(value, float, f"{key}: {name}"), axis.low, axis.high)


MOCK_AXES = {
    "x": {"low": 0.40, "high": 0.72, "speed": 0.25, "lag": 0.06, "home": 0.46, "start": 0.02},
    "y": {"low": -0.20, "high": 0.20, "speed": 0.25, "lag": 0.06, "home": 0.0, "start": 0.02},
    "z": {"low": -0.095, "high": 0.22, "speed": 0.25, "lag": 0.06, "home": 0.09, "start": 0.01},
    "gripper": {"low": 0.0, "high": 1.0, "speed": 5.0, "lag": 2.0, "home": 0.0, "gripper": True},
}


@dataclass
class MockOptions(RealOptions):
    axes: dict[str, dict[str, Any]] = option(MOCK_AXES, "as of `real`")
    cameras: dict[str, dict[str, Any]] = option(
        {
            "agentview": {"source": "mock", "size": 84, "fps": 20, "warmup_frames": 2},
            "robot0_eye_in_hand": {"source": "mock", "size": 84, "fps": 20, "warmup_frames": 2},
        },
        "as of `real`",
    )
