"""Run one episode: act with the newest policy, hand every transition to the link."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agent.spec import Observation, Spec, SpecError, Transition, UserError
from robot_server.clock import Clock
from robot_server.link import Link


class Acting(Protocol):
    """What is needed of agent.policy.Policy."""

    def act(self, observation: Observation, deterministic: bool = False) -> np.ndarray: ...

    def load_weights(self, weights: dict[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class Summary:
    """One episode. policy_version: of its last step. cut: it was stopped before its own end."""

    number: int
    steps: int
    episode_return: float
    success: bool
    policy_version: int
    cut: bool

    def __str__(self) -> str:
        outcome = "success" if self.success else "cut short" if self.cut else "failure"
        figures = f"{self.steps} steps, return {self.episode_return:g}"
        return f"episode {self.number}: {figures}, {outcome}, policy {self.policy_version}"


def run_episode(
    env: Any,
    policy: Acting,
    link: Link,
    clock: Clock,
    seed: int,
    deterministic: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """One episode of `env` (a gymnasium.Env), reset with `seed`.

    The learner being away changes nothing: the policy stays the last one. When `stop()` turns true, the step under way
    becomes the last, truncated. An exception (of the env, of a person's second Ctrl-C) also truncates the episode.
    Raises UserError when weights do not fit the policy or the learner refuses this robot.
    """
    swap(policy, link)
    observation = _own(env.reset(seed=seed)[0], link.spec)
    number = link.begin({"seed": seed})
    clock.start()
    steps, episode_return, success, last, cut = 0, 0.0, False, stop(), stop()
    try:
        while not last:
            if not clock.hz:
                _hold(link, stop)
            swap(policy, link)
            action = np.clip(policy.act(observation, deterministic), -1, 1).astype(np.float32)
            time_s = time.time()
            seen, reward, terminated, truncated, info = env.step(action)
            seen = _own(seen, link.spec)
            cut = stop() and not (terminated or truncated)
            last = bool(terminated or truncated or cut)
            link.send(
                Transition(
                    observation=observation,
                    action=_executed(info, action),
                    reward=float(reward),
                    terminated=bool(terminated),
                    truncated=bool(truncated or cut),
                    success=bool(info.get("success", False)),
                    policy_version=link.version,
                    intervention=bool(info.get("intervention", False)),
                    time_s=time_s,
                    final_observation=seen if last else None,
                )
            )
            observation = seen
            steps, episode_return = steps + 1, episode_return + float(reward)
            success = success or bool(info.get("success", False))
            link.pump()
            clock.wait(link.wait)
    finally:
        link.cut(observation)  # an episode that has ended is not touched
    return Summary(number, steps, episode_return, success, link.version, cut)


def swap(policy: Acting, link: Link) -> None:
    """Load the newest weights into the policy, if there are newer ones than it has."""
    if newest := link.newest_weights():
        try:
            policy.load_weights(newest[1])
        except ValueError as error:  # acting on with old weights would look like a policy that does not learn
            raise UserError(f"weights of version {newest[0]} do not fit the learner's own network: {error}") from None


def _hold(link: Link, stop: Callable[[], bool]) -> None:
    """Simulation only: wait while the learner's lease lasts, so that data do not run ahead of learning."""
    while (hold_s := link.hold_s) > 0 and not stop():
        link.wait(min(hold_s, 0.1))


def _own(observation: Mapping[str, Any], spec: Spec) -> Observation:
    """A copy (environments reuse their buffers), with float64 vectors as float32. Raises SpecError for other dtypes."""
    try:
        return {key: np.array(value).astype(spec.dtype(key), casting="same_kind") for key, value in observation.items()}
    except TypeError as error:
        raise SpecError(f"observation: {error}") from None


def _executed(info: Mapping[str, Any], action: np.ndarray) -> np.ndarray:
    """The action as executed: the env's word (info["action"]: a person's or a safety limit's) over the policy's."""
    return np.asarray(info.get("action", action), np.float32)
