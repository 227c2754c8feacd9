"""A simulation in which the scripted expert helps as a person would: for experiments with interventions."""

from __future__ import annotations

import gymnasium
import numpy as np

from envs.base import Info, Observation, paced_env
from envs.scripted import make


class Helped(gymnasium.Wrapper):
    """From step `after` of an episode without success on, the expert drives to its end, as a person who took over.

    It begins as at the start of an episode, with an open gripper. These steps have info["intervention"], and in
    info["action"] what was executed (see docs/your_own_arm.md), whoever else drives. Raises ValueError for an arm, and
    when there is no expert for `env`.
    """

    def __init__(self, env: gymnasium.Env, after: int) -> None:
        super().__init__(env)
        self._after, self._steps = after, 0
        self._succeeded = self._helps = False
        if paced_env(env):
            raise ValueError("help_after is for a simulation: at an arm a person helps (tools.panel, tools.teleop)")
        self._expert = make(env)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        self._steps = 0
        self._succeeded = self._helps = False
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        if self._steps == self._after and not self._succeeded:
            self._expert.reset()
            self._helps = True
        self._steps += 1
        if self._helps:
            action = self._expert.act({})
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._succeeded |= bool(info.get("success", False))
        if self._helps:
            info = {"action": action, **info, "intervention": True}
        return observation, float(reward), terminated, truncated, info
