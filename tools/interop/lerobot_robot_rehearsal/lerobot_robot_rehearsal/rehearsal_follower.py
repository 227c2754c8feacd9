"""The robot: axes x, y, z and gripper, and two cameras that its driver reads."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

from envs.real.mock_arm import AXES, MockArm, MockCamera


@RobotConfig.register_subclass("rehearsal_follower")
@dataclass
class RehearsalFollowerConfig(RobotConfig):
    socket: str = ""
    size: int = 128
    views: list[str] = field(default_factory=lambda: ["agentview", "robot0_eye_in_hand"])


class RehearsalFollower(Robot):
    config_class = RehearsalFollowerConfig
    name = "rehearsal_follower"

    def __init__(self, config: RehearsalFollowerConfig) -> None:
        super().__init__(config)
        self.config = config
        self._arm: MockArm | None = None
        self._views = {name: MockCamera(name, config.socket, config.size) for name in config.views}

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return {f"{axis}.pos": float for axis in AXES}

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return {**self.action_features, **{name: (self.config.size, self.config.size, 3) for name in self._views}}

    @property
    def is_connected(self) -> bool:
        return self._arm is not None

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._arm = MockArm(socket=self.config.socket, size=self.config.size)
        self._arm.connect()
        for view in self._views.values():
            view.open()

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        assert self._arm
        position = self._arm.state().position
        images = {name: np.ascontiguousarray(view.newest()[:, :, ::-1]) for name, view in self._views.items()}
        return {**{f"{axis}.pos": float(value) for axis, value in zip(AXES, position, strict=True)}, **images}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        assert self._arm
        self._arm.command(np.array([action[f"{axis}.pos"] for axis in AXES]))
        return action

    def disconnect(self) -> None:
        if self._arm:
            self._arm.disconnect()
            self._arm = None
        for view in self._views.values():
            view.close()
