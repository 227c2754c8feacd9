"""The teleoperator: it says places on a circle, as a leader arm would that somebody turns."""

import math
import time
from dataclasses import dataclass
from typing import Any

from lerobot.teleoperators import Teleoperator, TeleoperatorConfig


@TeleoperatorConfig.register_subclass("rehearsal_leader")
@dataclass
class RehearsalLeaderConfig(TeleoperatorConfig):
    radius: float = 0.05


class RehearsalLeader(Teleoperator):
    config_class = RehearsalLeaderConfig
    name = "rehearsal_leader"

    def __init__(self, config: RehearsalLeaderConfig) -> None:
        super().__init__(config)
        self.config, self._connected = config, False

    @property
    def action_features(self) -> dict[str, Any]:
        return {"x.pos": float, "y.pos": float, "z.pos": float, "gripper.pos": float}

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_action(self) -> dict[str, Any]:
        angle, radius = 2 * time.monotonic(), self.config.radius
        return {
            "x.pos": 0.5 + radius * math.sin(angle),
            "y.pos": radius * math.cos(angle),
            "z.pos": 0.1,
            "gripper.pos": 0.0,
        }

    def send_feedback(self, feedback: dict[str, Any]) -> None: ...

    def disconnect(self) -> None:
        self._connected = False
