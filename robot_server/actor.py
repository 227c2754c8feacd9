"""Run one episode: act with the newest policy, hand every transition to the link."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agent.spec import Observation, Transition, UserError, executed, own
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
    max_backlog: float = math.inf,
) -> Summary:
    """One episode of `env` (a gymnasium.Env), reset with `seed`.

    The learner being away changes nothing, the policy stays the last one; but a simulation (no clock.hz) waits once
    more than `max_backlog` steps have not been sent. When `stop()` turns true, the step under way becomes the last,
    truncated. An exception (of the env, of a person's second Ctrl-C) also truncates the episode.
    Raises UserError when weights do not fit the policy, an action is not finite, or the learner refuses this robot.
    """
    swap(policy, link)
    observation = own(env.reset(seed=seed)[0], link.spec)
    number = link.begin({"seed": seed})
    clock.start()
    steps, episode_return, success, last, cut = 0, 0.0, False, stop(), stop()
    try:
        while not last:
            if not clock.hz:
                _hold(link, stop, max_backlog)
            swap(policy, link)
            action = np.clip(policy.act(observation, deterministic), -1, 1).astype(np.float32)
            if not np.isfinite(action).all():  # an arm must never be sent it
                raise UserError(f"the policy (version {link.version}) answers {action}: stopped before moving")
            time_s = time.time()
            seen, reward, terminated, truncated, info = env.step(action)
            seen = own(seen, link.spec)
            cut = stop() and not (terminated or truncated)
            last = bool(terminated or truncated or cut)
            link.send(
                Transition(
                    observation=observation,
                    action=executed(info, action),
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
        link.keep()
    return Summary(number, steps, episode_return, success, link.version, cut)


def swap(policy: Acting, link: Link) -> None:
    """Load the newest weights into the policy, if there are newer ones than it has."""
    if newest := link.newest_weights():
        try:
            policy.load_weights(newest[1])
        except ValueError as error:  # acting on with old weights would look like a policy that does not learn
            raise UserError(f"weights of version {newest[0]} do not fit the learner's own network: {error}") from None


def _hold(link: Link, stop: Callable[[], bool], max_backlog: float) -> None:
    """Simulation only: wait while the learner asks for it or takes no steps: data must not run ahead of learning."""
    while ((hold_s := link.hold_s) > 0 or link.backlog > max_backlog) and not stop():
        link.wait(min(hold_s or 0.1, 0.1))
