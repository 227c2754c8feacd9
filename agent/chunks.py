"""Acting step by step with a policy that decides on several actions at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from agent.spec import Observation


class Acting(Protocol):
    """What is needed of agent.policy.Policy, which may give chunks of actions, too: act_chunk."""

    def act(self, observation: Observation, deterministic: bool = False) -> np.ndarray: ...


class Chunks:
    """The actions of one episode: the policy's chunks, each made when the one before is used up."""

    def __init__(self, policy: Acting) -> None:
        self._policy = policy
        self._rest: list[np.ndarray] = []

    @property
    def used_up(self) -> bool:
        """Whether the next action is made for what is seen then, by the weights that the policy has then."""
        return not self._rest

    def act(self, observation: Observation, deterministic: bool = False) -> np.ndarray:
        """The next action, float32 (A,) in [-1, 1]."""
        make = getattr(self._policy, "act_chunk", None)
        if make is None:
            return self._policy.act(observation, deterministic)
        if not self._rest:
            self._rest = list(make(observation, deterministic))
        return self._rest.pop(0)

    def forget(self) -> None:
        """Something else has acted, or time has passed: the next action is made for what is seen then."""
        self._rest = []
