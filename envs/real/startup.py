"""The arm and the cameras of a real arm's environment, made from its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.options import nearest
from envs.real.arm import ArmError, make_arm
from envs.real.arm_process import ArmProcess
from envs.real.camera_options import parse
from envs.real.effort import UNITS, EffortLimits
from envs.real.options import Axis, RealOptions, limits_of
from envs.real.park import Park
from envs.real.setup import Setup
from envs.real.standing import STANDS

SAG = 0.02  # of an axis's range, where no `press` or `squeeze` tells
NEAR = 0.05  # of an axis's range: so near to its place it is parked; arms sag


def start_arm(options: RealOptions, named: Mapping[str, Axis]) -> ArmProcess:
    """The arm's process, connected. named: the axes that actions move. Raises ValueError, one line."""
    kind = options.arm
    axes = make_arm(kind, options.arm_options).axes  # not connected: only its names
    for name in named:
        if name not in axes:
            raise ValueError(f"axes: arm '{kind}' has no axis '{name}'{nearest(name, axes)}; it has {', '.join(axes)}")
    every = [named.get(name, Axis(low=-1e9, high=1e9, lag=1e9)) for name in axes]
    limits = limits_of(every, 1 / options.control_hz)
    limits.check(axes)
    setup = Setup(
        kind=kind,
        options=options.arm_options,
        limits=limits,
        period_s=1 / options.control_hz,
        watchdog_s=options.watchdog_s,
        release_s=options.release_s,
        setpoint_hz=options.setpoint_hz,
        lag=np.array([axis.leash for axis in every]),
        stuck_s=options.stuck_s,
        realtime=options.realtime,
        coast_s=options.coast_s,
        squeeze=np.array([np.nan if axis.squeeze is None else axis.squeeze for axis in every]),
        press=np.array([np.nan if axis.press is None else axis.press for axis in every]),
        effort=effort_limits(options, every),
        sag=np.array([sag(named[name]) if name in named else 0.0 for name in axes]),
        park=parking(options, axes, every) if options.park else None,
    )
    try:
        arm = ArmProcess(setup)
    except ArmError as error:
        raise ValueError(f"arm '{kind}': {error}") from None
    try:
        setup.effort.check(arm.first, axes)
    except ValueError as error:
        arm.close()
        raise ValueError(f"arm '{kind}': {error}") from None
    return arm


def sag(axis: Axis) -> float:
    """So far below its target it may stand."""
    most = axis.squeeze if axis.grasps else axis.press
    return SAG * (axis.high - axis.low) if most is None else most


def effort_limits(options: RealOptions, axes: Sequence[Axis]) -> EffortLimits:
    """Of an arm with these `axes`, in its order."""
    given = {figure: [getattr(axis, f"max_{figure}") for axis in axes] for figure in UNITS}
    most = {
        figure: np.array([np.inf if value is None else value for value in values])
        for figure, values in given.items()
        if any(value is not None for value in values)
    }
    return EffortLimits(most, options.overload_s)


def parking(options: RealOptions, names: Sequence[str], axes: list[Axis]) -> Park:
    """names: of the arm's axes, which are `axes`; one that actions do not move stays where it is."""
    spans = np.array([np.inf if axis.grasps else axis.high - axis.low for axis in axes])
    return Park(
        position=np.array([float(options.park.get(name, np.nan)) for name in names]),
        speed=np.array([axis.speed * options.reset_speed for axis in axes]),
        near=NEAR * spans,
        still=STANDS * spans,
        grippers=np.array([axis.grasps for axis in axes]),
    )


def make_camera(options: RealOptions, name: str, given: Mapping[str, Any]) -> Any:
    """The camera `name`, not started. Raises ValueError, one line."""
    from envs.real.cameras import Camera
    from envs.real.mock_arm import MockCamera, mock_options

    if given.get("source") != "mock":
        return Camera(name, parse(name, given))
    mock = mock_options(options.arm_options, *options.arm.split(":")[1:2])
    given = {**given, "source": "file", "device": name, "width": mock.size, "height": mock.size}
    return Camera(name, parse(name, given), MockCamera(name, mock.socket, mock.size))
