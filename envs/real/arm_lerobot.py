"""Any arm that LeRobot drives, through its public API, in LeRobot's own Python environment on the robot's computer.

`--env lerobot:so101_follower`, with options of LeRobot's own configuration (port, id, ...) under env.arm_options. The
axes are the joints of its action ("shoulder_pan", ... "gripper"), in LeRobot's units (degrees, or -100 to 100 of the
range). Its cameras, if it has some configured, are cameras with source `arm`. Plug-ins (lerobot_robot_*) are found as
its own programs find them.

Of a robot on a servo bus (LeRobot's `bus`): before torque goes on, each goal becomes where the servo is, so that a goal
of an earlier session moves nothing; torque goes off on every servo that answers, even when one does not; and a reply
that came too late is not taken for the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.options import nearest
from envs.real.arm import ArmError, State, described
from envs.real.lerobot_bus import RETRIES, asked, not_connected, prepare, wait_for_replies
from envs.real.lerobot_motors import LeRobotMotors

SUFFIX, VELOCITY = ".pos", ".vel"


class LeRobotArm:
    """kind: a type of robot that LeRobot knows. Raises ValueError for another, for bad options, and without LeRobot."""

    sags = True  # most of its arms have position servos

    def __init__(self, kind: str, **options: Any) -> None:
        robots = load("robots")
        config = configuration(robots.RobotConfig, "robot", kind, options)
        try:
            self._kind, self.robot = kind, robots.make_robot_from_config(config)
        except Exception as error:  # its motors' own package is missing, say
            raise ValueError(f"lerobot:{kind}: {described(error)}") from None
        self._keys = [key for key, what in self.robot.action_features.items() if what is float]
        if not self._keys:
            raise ValueError(f"arm 'lerobot:{kind}': its actions are not numbers: {self.robot.action_features}")
        if drives := [key for key in self._keys if key.endswith(VELOCITY)]:  # held at what is measured, it goes on
            raise ValueError(f"arm 'lerobot:{kind}': {', '.join(drives)} are velocities; only positions can be held")
        self.axes = tuple(key.removesuffix(SUFFIX) for key in self._keys)
        self._motors: LeRobotMotors | None = None
        self._lost = 0  # of the sessions before

    def connect(self) -> None:
        robot = self.robot
        try:
            if not robot.is_connected:
                if bus := getattr(robot, "bus", None):
                    prepare(bus)
                    wait_for_replies(bus)
                robot.connect(calibrate=False)
            calibrated = robot.is_calibrated
        except Exception as error:  # a servo that misses one ping is "missing", for instance: it stumbles in many ways
            raise ConnectionError(f"lerobot:{self._kind}: {not_connected(robot, error)}") from None
        if not calibrated:
            raise ArmError(f"lerobot:{self._kind} is not calibrated: lerobot-calibrate --robot.type={self._kind} ...")
        self._lost = self.lost
        bus = getattr(robot, "bus", None)
        self._motors = LeRobotMotors(bus, self.axes, self._asked) if bus is not None else None

    @property
    def lost(self) -> int:
        """Replies that it has gone on without."""
        return self._lost + (self._motors.lost if self._motors else 0)

    def state(self) -> State:
        effort, errors = self._motors.update() if self._motors else ({}, {})
        seen = self._asked(self.robot.get_observation)
        missing = [key for key in self._keys if key not in seen]
        if missing:
            raise ArmError(f"lerobot:{self._kind} does not observe {', '.join(missing)}, which it is commanded in")
        position = np.array([float(seen[key]) for key in self._keys])
        images = {key: value for key, value in seen.items() if isinstance(value, np.ndarray) and value.ndim == 3}
        return State(position, time.monotonic(), images, effort=effort, errors=errors)

    def command(self, target: np.ndarray) -> np.ndarray:
        sent = self._asked(self.robot.send_action, dict(zip(self._keys, map(float, target), strict=True)))
        return np.array([float(sent.get(key, value)) for key, value in zip(self._keys, target, strict=True)])

    def _asked(self, call: Callable[..., Any], *given: Any) -> Any:
        return asked(f"lerobot:{self._kind}", self.robot, call, *given)

    def hold(self) -> None:
        self.command(self.state().position)
        if self._motors:
            self._motors.expire()

    def disconnect(self) -> None:
        robot, bus = self.robot, getattr(self.robot, "bus", None)
        if not (robot.is_connected or (bus and bus.is_connected)):
            return
        try:
            robot.disconnect()
        except Exception:
            if bus is None or not bus.is_connected:
                raise
            if getattr(robot.config, "disable_torque_on_disconnect", True):
                for motor in bus.motors:  # it has stopped at the first that does not answer
                    with contextlib.suppress(Exception):
                        bus.disable_torque(motor, num_retry=RETRIES)
            bus.disconnect(False)


def load(what: str) -> Any:
    """lerobot.robots or lerobot.teleoperators, with all their kinds known. Raises ValueError without LeRobot."""
    try:
        package = importlib.import_module(f"lerobot.{what}")
    except ImportError as error:
        raise ValueError(f"LeRobot cannot be loaded ({error}); run this in the environment where it is") from None
    for module in pkgutil.iter_modules(package.__path__, f"lerobot.{what}."):
        with contextlib.suppress(Exception):  # one whose own drivers are not installed
            importlib.import_module(module.name)
    with contextlib.suppress(ImportError, AttributeError):  # before it had plug-ins
        importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    return package


def configuration(base: Any, what: str, kind: str, options: dict[str, Any]) -> Any:
    """LeRobot's own configuration object. Raises ValueError, one line."""
    import draccus

    known = sorted(base.get_known_choices())
    if kind not in known:
        raise ValueError(f"LeRobot knows no {what} '{kind}'{nearest(kind, known)}; it knows {', '.join(known)}")
    try:
        return draccus.decode(base, {"type": kind, **options})
    except Exception as error:  # draccus's own kinds of errors have no common one
        raise ValueError(f"lerobot:{kind}: {' '.join(str(error).split())}") from None
