"""robosuite's Panda and its table as hardware: compliant joints made stiff, positions with noise, commands late."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

from agent.options import build
from envs.real.mock_arm import MockArmOptions
from envs.real.mock_hardware import Hardware
from envs.sim import STEP_M, SimEnv, SimOptions

WORLD_HZ = 50.0
STIFFNESS = 3000.0  # 1/s^2: at 0.25 m/s it is 6 mm behind


class Panda(Hardware):
    """Axes: x y z of the hand in the base's frame, m; the gripper, 0 open to 1 closed."""

    tick_hz = WORLD_HZ
    options: MockArmOptions

    def __init__(self, options: MockArmOptions) -> None:
        super().__init__(options)
        sim = {"task": options.task, "cameras": options.cameras, "image_size": options.size, "control_hz": WORLD_HZ}
        self._sim = SimEnv(build(SimOptions, sim))
        self._sim.reset(seed=0)
        self._stiffen()
        self._commands: deque[tuple[float, np.ndarray]] = deque()
        self._target = self.position()
        self._grip = 0.0
        self._measure()

    def _measure(self) -> None:
        self.measured, self.thing = self.position(), self._thing()
        self.success = bool(self._sim.robosuite._check_success())

    def _stiffen(self) -> None:
        """Servos follow what they are sent more closely than robosuite's compliant arm does."""
        robot = self._sim.robosuite.robots[0]
        controller = robot.part_controllers[robot.arms[0]]
        controller.kp = np.full(6, STIFFNESS)
        controller.kd = 2 * np.sqrt(controller.kp)

    def position(self) -> np.ndarray:
        """float64 (4,) of the axes."""
        hand = self._sim._states()["proprio"][:3].astype(np.float64)
        fingers = self._sim.fingers
        opening = abs(float(fingers[0])) / 0.04 if len(fingers) else 0.0
        return np.append(hand, np.clip(1 - opening, 0, 1))

    def _thing(self) -> np.ndarray | None:
        """Lift's cube, in the base's frame, m."""
        suite, data = self._sim.robosuite, self._sim.data
        if not hasattr(suite, "cube_body_id"):
            return None
        return np.array(data.xpos[suite.cube_body_id] - data.xpos[self._sim._base])

    def command(self, target: np.ndarray) -> None:
        if self.rng.random() >= self.options.drop_rate:
            self._commands.append((time.monotonic() + self.options.latency_s, target))

    def hold(self) -> None:
        """The motors' own: no latency but the line's."""
        self._commands.clear()
        self._target = self.measured.copy()

    def reply(self) -> tuple[Any, ...]:
        noise = np.append(self.rng.normal(0, self.options.noise, 3), 0.0)
        error = "error 0x20: motor 3 overloaded" if self.broken("fault") else ""
        return error, self.measured + noise, self.success, self.thing

    def advance(self) -> np.ndarray:
        now_s, stalled = time.monotonic(), self.broken("stall")
        while self._commands and self._commands[0][0] <= now_s:
            self._target = self._commands.popleft()[1]
        here = self.position()
        if not stalled:
            self._grip = 1.0 if self._target[3] > 0.5 else -1.0
        motion = np.clip(((here if stalled else self._target) - here)[:3] / STEP_M, -1, 1)
        self._sim.robosuite.step(self._sim._with_rotation(np.append(motion, self._grip)))
        self._measure()
        return self._target

    def rearrange(self, seed: int) -> None:
        suite = self._sim.robosuite
        suite.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        for position, rotation, thing in suite.placement_initializer.sample().values():
            suite.sim.data.set_joint_qpos(thing.joints[0], np.concatenate([position, rotation]))
        suite.sim.forward()

    def pictures(self) -> dict[str, np.ndarray]:
        return self._sim.pictures()

    def close(self) -> None:
        self._sim.close()
        super().close()
