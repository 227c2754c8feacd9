"""The arm: sent home as a reset does it, then watched while it stands: how far off it is, loop time, lost replies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from envs.clock import Clock
from envs.real.camera_options import CameraError
from envs.real.camera_set import CameraSet
from envs.real.options import Axis, read_axis
from tools.doctor.lines import Line

if TYPE_CHECKING:
    from envs.real.env import RealEnv

LAG = 0.05  # of an axis's range: commanded minus measured, where nothing is known to compare with
OTHER_LAG = 0.02  # and where it is
NEAR = 0.005  # of an axis's range: it stands
JOG = 0.04  # of an axis's range: enough that the arm's picture moves, little enough to keep clear of everything
JOGS = 4
SETTLE_S = 1.0
BUSY = 0.8  # of the control period
LOST = 0.01  # of the replies


def axes_of(env: RealEnv) -> dict[str, Axis]:
    return {name: read_axis(name, given) for name, given in env.options.axes.items()}


def go(env: RealEnv, place: Mapping[str, float]) -> None:
    """Move axes to `place` through the safety filter, and wait until they stand. Grippers stay. Raises RobotFault."""
    axes = axes_of(env)
    place = {name: value for name, value in place.items() if not axes[name].gripper}
    longest_s = max(((axes[name].high - axes[name].low) / axes[name].speed for name in place), default=0.0)
    hz = env.options.control_hz
    ranges = np.array([axis.high - axis.low for axis in axes.values()])
    positions: list[np.ndarray] = []
    for _ in range(int((2 * longest_s + SETTLE_S) * hz)):
        action = env.towards(place)
        env.step(action)
        positions.append(measured(env))
        settled = len(positions) > SETTLE_S * hz and np.ptp(positions[-int(SETTLE_S * hz / 2) - 1 :], axis=0)
        if np.abs(action).max() < 0.01 and np.all(settled is not False and settled < NEAR * ranges):
            return


def away(env: RealEnv) -> str:
    """An axis that stands farther from home than a reference's pictures were taken; empty when none does."""
    for (name, axis), value in zip(axes_of(env).items(), measured(env), strict=True):
        if not axis.gripper and abs(value - axis.home) > JOG * (axis.high - axis.low):
            return name
    return ""


def jogs(axes: Mapping[str, Axis]) -> list[dict[str, float]]:
    """Places around home where each axis but the grippers is somewhere else, within its limits."""
    rng, places = np.random.default_rng(0), []
    for _ in range(JOGS):
        place = {}
        for name, axis in axes.items():
            step = JOG * (axis.high - axis.low) * rng.choice([-1, 1])
            inside = axis.low <= axis.home + step <= axis.high
            place[name] = axis.home + (step if inside else -step)
        places.append(place)
    return places


def measured(env: RealEnv) -> np.ndarray:
    """float64 (m,), of the axes that actions move."""
    return np.array([env.state.position[number] for number in env.action_axes])


@dataclass
class Watched:
    """While the arm stood. lag: commanded minus measured, each axis but the grippers. busy_s: of each step, without
    waiting. lost, replies: of the bus. gone: camera -> what happened to it. drift_s: of the wall clock, against the
    monotonic one.
    """

    lag: dict[str, float] = field(default_factory=dict)
    busy_s: list[float] = field(default_factory=list)
    lost: int = 0
    replies: float = 0.0
    gone: dict[str, str] = field(default_factory=dict)
    drift_s: float = 0.0
    lasted_s: float = 0.0


def watch(env: RealEnv, cameras: CameraSet, for_s: float) -> Watched:
    """Command the arm to where it stands, for so long. Raises RobotFault."""
    found, lags, waited_s = Watched(), [], 0.0

    def wait(left_s: float) -> bool:
        nonlocal waited_s
        begun_s = time.monotonic()
        time.sleep(left_s)
        waited_s += time.monotonic() - begun_s
        return False

    hz, names = env.options.control_hz, list(env.options.axes)
    before = env.clock, env.paused
    env.clock, env.paused = Clock(hz, sleep=wait), wait
    lost, wall_s, begun_s = env.lost_replies, time.time(), time.monotonic()
    try:
        env.clock.start()
        for _ in range(max(10, int(for_s * hz))):
            waited_s, step_s = 0.0, time.monotonic()
            env.step(np.zeros(len(names)))
            for name, camera in cameras.readers.items():
                try:
                    camera.read()
                except CameraError as error:
                    found.gone[name] = str(error).removeprefix(f"camera '{name}': ")
            found.busy_s.append(time.monotonic() - step_s - waited_s)
            lags.append([env.target[number] for number in env.action_axes] - measured(env))
    finally:
        env.clock, env.paused = before
    found.lasted_s = time.monotonic() - begun_s
    found.drift_s = time.time() - wall_s - found.lasted_s
    found.lost = env.lost_replies - lost
    found.replies = len(found.busy_s) * (2 + env.options.setpoint_hz / hz)  # two states, the setpoints
    lag = np.mean(lags[len(lags) // 2 :], axis=0)
    found.lag = {
        name: float(value) for (name, axis), value in zip(axes_of(env).items(), lag, strict=True) if not axis.gripper
    }
    return found


def lag_lines(lag: Mapping[str, float], axes: Mapping[str, Axis], known: Mapping[str, float], what: str) -> list[Line]:
    """A line for each axis that stands off from where it is sent; one line where none does.

    known: the same of earlier, in the reference or the demonstrations (`what`); empty: nothing is known.
    """
    if not lag:
        return []
    lines = []
    for name, value in lag.items():
        span = axes[name].high - axes[name].low
        off = value - known[name] if name in known else value
        if abs(off) > (OTHER_LAG if name in known else LAG) * span:
            then = f", in {what} {known[name]:.3g}" if name in known else ""
            lines.append(
                Line(
                    f"axis {name}",
                    f"commanded minus measured is {value:.3g}{then}",
                    "look for what holds it, a slipped horn, another calibration; calibrate as before, or record anew",
                )
            )
    if lines:
        return lines
    worst = max(lag, key=lambda name: abs(lag[name]) / (axes[name].high - axes[name].low))
    against = f", compared with {what}" if known else ""
    return [Line("axes", f"commanded minus measured: at most {lag[worst]:.2g} ({worst}){against}")]


def loop_line(busy_s: Sequence[float], hz: float, denied: bool) -> Line:
    """state, command and cameras; denied: without real-time scheduling."""
    p50, p99 = np.percentile(busy_s, [50, 99])
    says = f"p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms of {1e3 / hz:.0f} ms (state, command, cameras)"
    says += "; no real-time scheduling" if denied else ""
    return Line("loop", says, "" if p99 < BUSY / hz else "close other programs; ulimit -r; or lower control_hz")


def bus_line(lost: int, replies: float, lasted_s: float) -> Line:
    says = f"{lost} replies lost in {lasted_s:.0f} s"
    share = lost / max(1.0, replies)
    remedy = "check plugs, cable length, supply voltage and a hub in between" if share > LOST else ""
    return Line("bus", says + (f" ({100 * share:.1f} %)" if lost else ""), remedy)
