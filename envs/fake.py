"""A tiny reaching task in numpy, for tests: a point must reach a coloured target that only the camera shows.

With the environment variable FAKE_ENV_LOG=FILE, each reset and step really made is appended there as a line of JSON,
with a checksum of the observation that came of it. (No option: those are recorded with episodes, and travel.)
"""

from __future__ import annotations

import json
import os
import time
import zlib
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from agent.options import option
from envs.base import MAX_IMAGE_SIZE, RESET_TASK, Info, Observation, clipped

STEP = 0.25  # distance per step of an action of 1; the arena is [-1, 1]^2
LOG = "FAKE_ENV_LOG"


@dataclass
class FakeOptions:
    image_size: int = option(24, "pixels a side", low=8, high=MAX_IMAGE_SIZE)
    horizon: int = option(20, "steps after which an episode is truncated", low=1)
    step_ms: float = option(0.0, "wall-clock time that a step takes", low=0, high=1e6)
    reach: float = option(0.12, "how near is there; with 0 no episode succeeds", low=0, high=2)
    reset_task: bool = option(False, "the task is to go back to the middle, from where the last episode ended")


class FakeEnv(gymnasium.Env):
    """Observation: "top" uint8 (size, size, 3), the target as a red square and the point as a green one; "proprio"
    float32 (4,), the point's position and velocity. Action float32 (2,): displacement. Reward 1 on success, else 0.
    """

    metadata: dict[str, Any] = {"render_modes": []}
    has_reset_task = True
    action_meaning = {"kind": "delta", "quantity": "position", "low": [-STEP] * 2, "high": [STEP] * 2}
    state_names = {"proprio": ["x", "y", "x velocity", "y velocity"]}

    def __init__(self, options: FakeOptions) -> None:
        self.options, self.task_name = options, "reach"
        size = options.image_size
        self.observation_space = gymnasium.spaces.Dict(
            {
                "top": gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8),
                "proprio": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.position, self.velocity, self.target = np.zeros(2), np.zeros(2), np.zeros(2)
        self._steps = 0
        self._log = None
        if path := os.environ.get(LOG):
            try:
                self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise ValueError(f"{LOG} {path}: {error.strerror}") from None

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        start = self.np_random.uniform(-0.3, 0.3, 2)
        target = self.np_random.choice([-1, 1], 2) * self.np_random.uniform(0.4, 0.9, 2)
        if (options or {}).get(RESET_TASK):
            self.target = np.zeros(2)
        elif self.options.reset_task:  # alone: the last episode of the task is made up
            self.position, self.target = target, np.zeros(2)
        else:
            self.position, self.target = start, target
        self.velocity = np.zeros(2)
        self._steps = 0
        observation = self._observation()
        self._note(observation, seed=seed)
        return observation, {"success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        if self.options.step_ms:
            time.sleep(self.options.step_ms / 1000)
        before = self.position
        self.position = np.clip(before + STEP * clipped(action, 2), -1, 1)
        self.velocity = self.position - before
        self._steps += 1
        success = bool(np.linalg.norm(self.position - self.target) < self.options.reach)
        truncated = not success and self._steps >= self.options.horizon
        observation, reward = self._observation(), float(success)
        made = {"reward": reward, "terminated": success, "truncated": truncated}
        self._note(observation, action=np.asarray(action).tolist(), **made)
        return observation, reward, success, truncated, {"success": success}

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _note(self, observation: dict[str, np.ndarray], **what: Any) -> None:
        """One write, unbuffered: whole in the file whatever happens to this process afterwards."""
        if self._log is not None:
            os.write(self._log, json.dumps({**what, "crc32": checksum(observation)}).encode() + b"\n")

    def _observation(self) -> dict[str, np.ndarray]:
        size = self.options.image_size
        image = np.full((size, size, 3), 230, np.uint8)
        half = max(1, size // 12)
        for place, colour in ((self.target, (200, 40, 40)), (self.position, (40, 160, 60))):
            column, row = np.round((np.array([place[0], -place[1]]) + 1) / 2 * (size - 1)).astype(int)
            image[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = colour
        return {"top": image, "proprio": np.concatenate([self.position, self.velocity]).astype(np.float32)}


def checksum(observation: dict[str, np.ndarray]) -> int:
    """CRC-32 of an observation's bytes, in the order of the keys."""
    return zlib.crc32(b"".join(np.ascontiguousarray(observation[key]).tobytes() for key in sorted(observation)))
