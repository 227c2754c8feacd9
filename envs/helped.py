"""A simulation in which the scripted expert helps as a person would: for experiments with interventions."""

from __future__ import annotations

import gymnasium
import numpy as np

from envs.base import Info, Observation, paced_env
from envs.scripted import make


class Helped(gymnasium.Wrapper):
    """After `after` steps without success the expert drives to the end of the episode, as a person who took over.

    These steps have info["intervention"], and in info["action"] what was executed (see docs/your_own_arm.md). Raises
    ValueError for an arm, and when there is no expert for `env`.
    """

    def __init__(self, env: gymnasium.Env, after: int) -> None:
        super().__init__(env)
        self._after, self._steps = after, 0
        if paced_env(env):
            raise ValueError("help_after is for a simulation: at an arm a person helps (tools.panel, tools.teleop)")
        self._expert = make(env)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        self._steps = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        if self._steps == self._after:
            self._expert.reset()
        self._steps += 1
        helps = self._steps > self._after
        if helps:
            action = self._expert.act({})
        observation, reward, terminated, truncated, info = self.env.step(action)
        if helps:
            info = {**info, "intervention": True, "action": action}
        return observation, float(reward), terminated, truncated, info
