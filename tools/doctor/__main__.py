"""Is this arm ready for a session? Every check is a line: ok, or FAIL and what to do. Exit code 0: all are ok.

  python -m tools.doctor --config my_arm.yaml --save-reference       once, when all is as it shall be
  python -m tools.doctor --config my_arm.yaml --data demos/mine      before each session

The arm goes home as a reset does, and stands there for some seconds: keep clear, with a hand on the emergency stop.
--save-reference also moves each axis a little around home, to see what in the pictures stands still.
--no-motion leaves the arm where it is, and what needs it at home unchecked.

Checked: device files and their permissions, and whether they stay the same after a reboot; the arm's first state
against its limits; each camera against its reference picture (moved, turned, dimmed, covered, frozen, swapped);
commanded minus measured of each axis while it stands, against the demonstrations of --data or the reference; loop
time; lost replies of the bus; free disk; the clock; who may read the keys; the learner, where --address or a config
names it. The reference pictures and a picture of now are in the user's data folder, or where camera_reference says.
A robot server and tools.collect compare the cameras with the reference at their first reset.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envs
from agent import cli
from agent.data.episode_file import episode_paths
from agent.spec import UserError
from envs.base import RobotFault
from envs.real.arm import ArmError
from envs.real.camera_options import CameraError
from envs.real.camera_reference import SAVE, References, load, reference_file
from envs.real.camera_set import CameraSet
from envs.real.hand import read_hand
from envs.real.options import RealOptions, check, read_axis
from envs.real.start_check import outside
from tools.common.rollout import env_options
from tools.doctor import arm, cameras, computer, recorded
from tools.doctor.lines import Line, Screen

if TYPE_CHECKING:
    import numpy as np

    from envs.real.env import RealEnv

WATCH_S = 4.0
INSPECT = "check the arm, its cable and its power supply"
OFTEN = ("config", "env", "data", "save-reference", "no-motion", "json")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, action="append", metavar="FOLDER", help="demonstrations to compare with")
    parser.add_argument("--save-reference", action="store_true", help="take the cameras' reference pictures anew")
    parser.add_argument("--no-motion", action="store_true", help="do not move the arm")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(
        argv, __doc__, ["robot", "link"], add_flags, env_options, prog="python -m tools.doctor", often=OFTEN
    )
    flags, robot, link = arguments.flags, arguments.section("robot"), arguments.section("link")
    if flags.save_reference and flags.no_motion:
        raise UserError("--save-reference takes the pictures at home; it cannot be combined with --no-motion")
    name, given = arguments.env()
    options = options_of(name, given)
    episode_paths(flags.data or [])  # what is missing is refused before the arm moves
    screen = Screen(flags.json)
    examine(name, given, options, flags, screen)
    folders = [Path(robot.spool), *(path if path.is_dir() else path.parent for path in flags.data or [])]
    screen.add(*(computer.disk(folder) for folder in folders))
    keys = computer.keys(link.keys, robot.robot_name)
    screen.add(*keys)
    if "address" in arguments.settings.get("link", {}) and not any(line.remedy for line in keys):
        screen.add(computer.learner(link, robot.robot_name))
    return screen.finish()


def options_of(name: str, given: dict[str, Any]) -> RealOptions:
    """Raises UserError for an environment without an arm of ours, and for bad options."""
    options = env_options(name)(**given)
    if not isinstance(options, RealOptions):
        raise UserError(f"--env {name}: the doctor examines an arm: real, lerobot:<type> or mock")
    if name.startswith("lerobot:"):
        options = dataclasses.replace(options, arm=name)
    try:
        check(options)
        read_hand(options, {axis: read_axis(axis, about) for axis, about in options.axes.items()})
    except ValueError as error:
        raise UserError(str(error)) from None
    return options


def examine(name: str, given: dict[str, Any], options: RealOptions, flags: argparse.Namespace, screen: Screen) -> None:
    """Arm and cameras, as far as they are there. Raises UserError for bad options of a camera."""
    try:
        seen_by = CameraSet(options)
        screen.add(*computer.arm_ports(options.arm_options))
        for camera, about in options.cameras.items():
            screen.add(*computer.camera_device(camera, about))
    except ValueError as error:
        raise UserError(str(error)) from None
    before = len(screen.lines)
    with contextlib.ExitStack() as stack:
        stack.callback(seen_by.close)
        env = None
        try:
            env = stack.enter_context(contextlib.closing(arm_of(name, given)))
        except ValueError as error:
            screen.add(Line("arm", str(error), INSPECT))
        start(seen_by, screen)
        if env:
            examine_arm(env, seen_by, options, flags, screen)
        told = {line.check for line in screen.lines[before:]}
        left = [check for camera in seen_by.readers if (check := f"camera {camera}") not in told]
        screen.add(*(Line(check, "sends frames, not compared") for check in left))


def examine_arm(
    env: RealEnv, seen_by: CameraSet, options: RealOptions, flags: argparse.Namespace, screen: Screen
) -> None:
    axes = arm.axes_of(env)
    if lines := [Line("arm", line, remedy) for line, remedy in outside(axes, arm.measured(env))]:
        screen.add(*lines)  # it would move back inside
        return
    screen.add(Line("arm", f"{options.arm} answers, its {len(axes)} axes are within their limits"))
    try:
        at_home(env, seen_by, options, flags, screen)
    except (RobotFault, ArmError, CameraError) as error:
        screen.add(Line("arm", str(error), INSPECT))


def start(seen_by: CameraSet, screen: Screen) -> None:
    for camera, why in seen_by.start_each().items():
        screen.add(Line(f"camera {camera}", why, "correct that, or plug it in again"))


def arm_of(name: str, given: dict[str, Any]) -> RealEnv:
    """The arm alone: its axes, without cameras, prompts and rewards. Raises ValueError."""
    alone: dict[str, Any] = {
        "cameras": {},
        "hand": {},  # each axis by itself
        "prompt": "",
        "ready": "",
        "reset_task": False,  # it shall go home
        "camera_check": "ignore",
        "classifier": None,
        "after_success": None,
    }
    env: RealEnv = envs.make(name, **{**given, **alone})
    return env


def at_home(env: RealEnv, seen_by: CameraSet, options: RealOptions, flags: argparse.Namespace, screen: Screen) -> None:
    """Raises RobotFault, ArmError, CameraError."""
    axes, path = arm.axes_of(env), reference_file(options)
    if not flags.no_motion:
        env.reset(seed=0)
        arm.go(env, {name: axis.home for name, axis in axes.items()})
    watched = arm.watch(env, seen_by, WATCH_S)
    for camera, why in watched.gone.items():
        screen.add(Line(f"camera {camera}", why, "plug it in again; check its cable and the USB port's bandwidth"))
        seen_by.drop(camera)
    known = references(path, env, seen_by, watched.lag, flags.save_reference, screen)
    if flags.no_motion and (away := arm.away(env)):
        screen.add(Line("cameras", f"not compared: axis '{away}' is not at home (--no-motion)"))
    elif known:
        seen = cameras.look(env, seen_by)
        screen.add(*cameras.compare(known.cameras, seen))
        screen.add(beside(path.with_suffix(".png"), known, seen))
    if not flags.no_motion:
        screen.add(*standing(env, watched, known, flags.data))
    screen.add(arm.loop_line(watched.busy_s, options.control_hz, env.realtime_denied))
    screen.add(arm.bus_line(watched.lost, watched.replies, watched.lasted_s))
    screen.add(computer.clock(watched.drift_s, watched.lasted_s))


def beside(path: Path, known: References, seen: dict[str, np.ndarray]) -> Line:
    """Draw what the cameras show beside their references, into `path`."""
    try:
        cameras.draw(path, known.cameras, seen)
    except OSError as error:
        return Line("cameras", f"{path}: cannot be written: {error.strerror}", "make room, or another camera_reference")
    return Line("cameras", f"beside the reference of {known.saved}: {path}")


def references(
    path: Path, env: RealEnv, seen_by: CameraSet, lag: dict[str, float], anew: bool, screen: Screen
) -> References | None:
    """Those in `path`, made anew if that is asked for; None where there are none."""
    if not seen_by.names:
        return None
    try:
        if anew:
            made = cameras.make_references(env, seen_by)
            cameras.write(path, made, lag)
            screen.add(*cameras.try_out(made))
        known = load(path)
    except (ValueError, OSError) as error:
        screen.add(Line("cameras", str(error), f"{SAVE}, or another camera_reference"))
        return None
    if known is None:
        screen.add(Line("cameras", f"no reference pictures ({path})", f"{SAVE} when all cameras stand as they shall"))
    return known


def standing(env: RealEnv, watched: arm.Watched, known: References | None, data: list[Path] | None) -> list[Line]:
    """Commanded minus measured, against the demonstrations if there are any, else against the reference."""
    axes = arm.axes_of(env)
    lag, what = (known.lag, "the reference") if known else ({}, "")
    lines: list[Line] = []
    found = recorded.Recorded()
    if data:
        try:
            found = recorded.recorded(data, axes, env.action_axes, len(env.state.position))
            lines = recorded.start_lines(found.start, axes)
        except UserError as error:
            lines = [Line("data", str(error), "see what tools.inspect says of it")]
        if not found.start and not lines:
            lines.append(Line("data", "has no 'proprio' of this arm", "give demonstrations that this arm recorded"))
        lag, what = (found.lag, "the demonstrations") if found.lag else (lag, what)
    return [*lines, *arm.lag_lines(watched.lag, axes, lag, what)]


if __name__ == "__main__":
    cli.run(main)
