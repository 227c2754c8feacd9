"""A Gymnasium environment's resets and steps as they are recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.spec import Observation, Spec, SpecError, Transition

if TYPE_CHECKING:
    import gymnasium


class ObservationFault(SpecError):
    """What the environment reports cannot be acted on or learned from; the message names what and at which step."""


def own(observation: Mapping[str, Any], spec: Spec) -> Observation:
    """A copy (environments reuse their buffers), with float64 vectors as float32. Raises SpecError for other dtypes."""
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinity, which is refused
            return {
                key: np.array(value).astype(spec.dtype(key), casting="same_kind") for key, value in observation.items()
            }
    except TypeError as error:
        raise SpecError(f"observation: {error}") from None


class Stepper:
    """Makes the steps of `env` (a gymnasium.Env), whose observations are those of `spec`.

    observation: the newest. info: what came with it. An environment may say there, of a step: "action", as executed (a
    person's or a safety limit's, over the policy's), "intervention", "success", "action_latency_s"; and of what was
    seen after it, or after the reset: "observation_age_s".
    """

    def __init__(self, env: gymnasium.Env, spec: Spec) -> None:
        self._env, self._spec = env, spec
        self._steps, self._seed = 0, 0
        self.observation: Observation = {}
        self.info: Mapping[str, Any] = {}

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> Observation:
        """Raises ObservationFault for NaN or infinity, SpecError for an observation of other dtypes, and whatever the
        environment raises; step does, too.
        """
        self._steps, self._seed = 0, seed
        seen, self.info = self._env.reset(seed=seed, options=options)
        self.observation = self._checked(seen)
        return self.observation

    def step(self, action: np.ndarray) -> Transition:
        """final_observation is set on every one: what was seen after it."""
        observation, age_s, time_s = self.observation, self.info.get("observation_age_s", 0.0), time.time()
        seen, reward, terminated, truncated, info = self._env.step(action)
        self._steps += 1
        checked = self._checked(seen)
        if not np.isfinite(float(reward)):
            raise self._fault(f"the reward is {float(reward)}")
        self.observation, self.info = checked, info
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

    def _checked(self, seen: Mapping[str, Any]) -> Observation:
        observation = own(seen, self._spec)
        for key, value in observation.items():
            if not np.isfinite(value).all():
                what = "NaN" if np.isnan(value).any() else "infinity"
                raise self._fault(f"observation '{key}' has {what}")
        return observation

    def _fault(self, what: str) -> ObservationFault:
        when = f"at step {self._steps} of the episode with seed {self._seed}" if self._steps else "after the reset"
        return ObservationFault(f"{what} {when}: check the environment or the sensor behind it")
