"""A Gymnasium environment's resets and steps as they are recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.spec import Observation, Spec, SpecError, Transition


def own(observation: Mapping[str, Any], spec: Spec) -> Observation:
    """A copy (environments reuse their buffers), with float64 vectors as float32. Raises SpecError for other dtypes."""
    try:
        return {key: np.array(value).astype(spec.dtype(key), casting="same_kind") for key, value in observation.items()}
    except TypeError as error:
        raise SpecError(f"observation: {error}") from None


class Stepper:
    """Makes the steps of `env` (a gymnasium.Env), whose observations are those of `spec`.

    observation: the newest. info: what came with it. An environment may say there, of a step: "action", as executed (a
    person's or a safety limit's, over the policy's), "intervention", "success", "action_latency_s"; and of what was
    seen after it, or after the reset: "observation_age_s".
    """

    def __init__(self, env: Any, spec: Spec) -> None:
        self._env, self._spec = env, spec
        self.observation: Observation = {}
        self.info: Mapping[str, Any] = {}

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> Observation:
        """Raises SpecError for an observation of other dtypes, and whatever the environment raises; step does, too."""
        seen, self.info = self._env.reset(seed=seed, options=options)
        self.observation = own(seen, self._spec)
        return self.observation

    def step(self, action: np.ndarray) -> Transition:
        """final_observation is set on every one: what was seen after it."""
        observation, age_s, time_s = self.observation, self.info.get("observation_age_s", 0.0), time.time()
        seen, reward, terminated, truncated, info = self._env.step(action)
        self.observation, self.info = own(seen, self._spec), info
        return Transition(
            observation=observation,
            action=np.array(info.get("action", action), np.float32),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            success=bool(info.get("success", False)),
            intervention=bool(info.get("intervention", False)),
            time_s=time_s,
            observation_age_s=float(age_s),
            action_latency_s=float(info.get("action_latency_s", 0.0)),
            final_observation=self.observation,
        )
