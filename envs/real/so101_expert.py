"""The scripted expert of the simulated SO-101: it moves joints, by inverse kinematics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from envs.real.kinematics import Kinematics, Pose
from envs.real.so101_model import JOINTS
from envs.scripted import OPEN, LiftExpert

PITCH = np.deg2rad(75)  # of the hand: it reaches the cube within the ranges of configs/hardware/so101.yaml
GRIPPER_M = 0.001  # one of the gripper's hundred, as the width of fingers that the plan compares
STRIDE_M = 0.03  # how far ahead on its straight way the hand aims
SAG_M = 0.01  # the servos give way by no more


class SO101LiftExpert(LiftExpert):
    """Lift, in joints."""

    hover_m = 0.05

    def __init__(self, env: Any, *given: Any) -> None:
        super().__init__(_View(env), *given)

    def object_position(self) -> np.ndarray:
        return np.array(self.env.real.state.thing)

    def towards(self, target: np.ndarray, hand: np.ndarray, grip: float) -> np.ndarray:
        """All joints arrive at the same time, so that the hand's way is nearly straight, or the hand itself moves."""
        if self.env.real.options.hand:
            place = dict(zip("xyz", target + self.env.sag))
            gripper = self.env.high[5] if grip == OPEN else self.env.low[5]
            return np.asarray(self.env.real.towards({**place, "pitch": PITCH, "gripper": gripper}))
        view, now = self.env, np.array(self.env.real.target)
        way = target - hand
        aim = hand + way * min(1.0, STRIDE_M / max(float(np.linalg.norm(way)), 1e-9))
        goal = view.joints(aim + view.sag, now)
        goal[5] = view.low[5] if grip != OPEN else view.high[5]
        change = (goal - now) / view.stride
        change[:5] /= max(1.0, float(np.abs(change[:5]).max()))
        return np.asarray(np.clip(change, -1, 1))

    def noisy(self, size: int) -> np.ndarray:
        return np.append(np.ones(size - 1), 0.0)


class _View:
    """What an expert looks at, of an envs.real.env.RealEnv with the simulated SO-101."""

    def __init__(self, real: Any) -> None:
        axes = real.options.axes
        if tuple(axes) != JOINTS:
            order = ", ".join(JOINTS)
            raise ValueError(f"the expert for the SO-101 moves {order}, in this order; axes are {', '.join(axes)}")
        self.real, self.options = real, _Options(real.options.control_hz)
        self.kinematics = Kinematics("so101")
        self.low, self.high, speed = np.array(
            [[axes[name][key] for name in JOINTS] for key in ("low", "high", "speed")]
        )
        self.stride = speed / real.options.control_hz

    def hand(self, units: np.ndarray) -> Pose:
        return self.kinematics.pose(np.deg2rad(units[:5]))

    def joints(self, position: np.ndarray, near: np.ndarray) -> np.ndarray:
        """float64 (6,), within the ranges: those that bring the hand to `position`, pitched down."""
        goal = Pose(position, np.array([self.hand(near).turn[0], PITCH]))
        found = self.kinematics.nearest(goal, *np.deg2rad([near[:5], self.low[:5], self.high[:5]]))
        return np.append(np.rad2deg(found), near[5])

    @property
    def eef_position(self) -> np.ndarray:
        return self.hand(self.real.state.position).position

    @property
    def sag(self) -> np.ndarray:
        """(3,): from the hand to where its joints are sent, m."""
        return np.asarray(np.clip(self.hand(self.real.target).position - self.eef_position, -SAG_M, SAG_M))

    @property
    def fingers(self) -> np.ndarray:
        return GRIPPER_M * np.array(self.real.state.position[5:])


class _Options(NamedTuple):
    control_hz: float
    robot: str = "SO-101"
