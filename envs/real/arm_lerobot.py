"""Any arm that LeRobot drives, through its public API, in LeRobot's own Python environment on the robot's computer.

`--env lerobot:so101_follower`, with options of LeRobot's own configuration (port, id, ...) under env.arm_options. The
axes are the joints of its action ("shoulder_pan", ... "gripper"), in LeRobot's units (degrees, or -100 to 100 of the
range). Its cameras, if it has some configured, are cameras with source `arm`. Plug-ins (lerobot_robot_*) are found as
its own programs find them.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from typing import Any

import numpy as np

from agent.options import nearest
from envs.real.arm import ArmError, State

SUFFIX = ".pos"


class LeRobotArm:
    """kind: a type of robot that LeRobot knows. Raises ValueError for another, for bad options, and without LeRobot."""

    def __init__(self, kind: str, **options: Any) -> None:
        robots = load("robots")
        config = configuration(robots.RobotConfig, "robot", kind, options)
        try:
            self._kind, self.robot = kind, robots.make_robot_from_config(config)
        except Exception as error:  # its motors' own package is missing, say
            raise ValueError(f"lerobot:{kind}: {' '.join(str(error).split())}") from None
        self._keys = [key for key, what in self.robot.action_features.items() if what is float]
        if not self._keys:
            raise ValueError(f"arm 'lerobot:{kind}': its actions are not numbers: {self.robot.action_features}")
        self.axes = tuple(key.removesuffix(SUFFIX) for key in self._keys)

    def connect(self) -> None:
        robot = self.robot
        if not robot.is_connected:
            robot.connect(calibrate=False)
        if not robot.is_calibrated:
            raise ArmError(f"lerobot:{self._kind} is not calibrated: lerobot-calibrate --robot.type={self._kind} ...")

    def state(self) -> State:
        seen = self.robot.get_observation()
        missing = [key for key in self._keys if key not in seen]
        if missing:
            raise ArmError(f"lerobot:{self._kind} does not observe {', '.join(missing)}, which it is commanded in")
        position = np.array([float(seen[key]) for key in self._keys])
        images = {key: value for key, value in seen.items() if isinstance(value, np.ndarray) and value.ndim == 3}
        return State(position, time.monotonic(), images)

    def command(self, target: np.ndarray) -> np.ndarray:
        sent = self.robot.send_action(dict(zip(self._keys, map(float, target), strict=True)))
        return np.array([float(sent.get(key, value)) for key, value in zip(self._keys, target, strict=True)])

    def hold(self) -> None:
        self.command(self.state().position)

    def disconnect(self) -> None:
        if self.robot.is_connected:
            self.robot.disconnect()


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
