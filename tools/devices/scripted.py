"""Device `scripted`: an expert program in a person's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import envs.scripted
from agent.spec import Observation, UserError
from envs.scripted import Expert
from tools.common.rollout import private_seed
from tools.recording.config import CollectConfig

if TYPE_CHECKING:
    import gymnasium


class Scripted:
    """The expert of envs.scripted; its noise and its failures depend on the episode's seed alone."""

    def __init__(self, env: gymnasium.Env, config: CollectConfig):
        self._env, self._config = env, config
        self._expert = self._make(0)  # what there is no expert for is refused now

    def reset(self, seed: int) -> None:
        """A new episode begins; the environment has been reset."""
        self._expert = self._make(private_seed(seed))
        self._expert.reset()

    def act(self, observation: Observation) -> np.ndarray:
        return self._expert.act(observation)

    def _make(self, seed: int) -> Expert:
        config = self._config
        try:
            return envs.scripted.make(self._env, config.noise, config.failure_rate, seed, config.retry_rate)
        except ValueError as error:
            raise UserError(f"device 'scripted': {error}") from None
