"""One attempt in an environment, step by step: what collecting, evaluating and re-executing have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import envs
from agent.env_record import EnvRecord
from agent.spec import Observation, Spec, Transition, UserError
from envs.base import paced_env
from robot_server.stepper import Stepper

if TYPE_CHECKING:
    import gymnasium

Act = Callable[[Observation], np.ndarray]


def env_options(name: str) -> type:
    """The options (a dataclass) of the environment `name`. Raises UserError."""
    try:
        return envs.options(name)
    except ValueError as error:
        raise UserError(str(error)) from None


def make_env(name: str, options: Mapping[str, Any]) -> gymnasium.Env:
    """Raises UserError for options that the environment does not accept; so do its steps, when a real arm is held."""
    try:
        env: gymnasium.Env = envs.make(name, **options)
    except ValueError as error:
        raise UserError(f"environment '{name}': {error}") from None
    if not paced_env(env):
        return env
    from tools.common.held import Held  # with gymnasium, which takes a while to load

    return Held(env)


def env_record(name: str, options: Mapping[str, Any]) -> EnvRecord:
    """The environment as an episode's meta remembers it, with every option."""
    return EnvRecord(name, dataclasses.asdict(env_options(name)(**options)))


def rollout(
    env: gymnasium.Env,
    begin: Callable[[int], Act],
    seed: int,
    start: dict[str, Any] | None = None,
    told: Callable[[Mapping[str, Any]], object] = lambda info: None,
) -> Iterator[Transition]:
    """The transitions of one episode from `env.reset(seed)`; an action is recorded as executed, after clipping.

    `begin(seed)` is called once the environment is reset (an expert looks at the scene then), and returns what acts.
    start: options of the reset, such as the simulator's state. told(info) is called after each step, before its
    transition.
    """
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    stepper = Stepper(env, spec)
    stepper.reset(seed, start)
    act = begin(seed)
    while True:
        action = np.clip(np.asarray(act(stepper.observation), np.float32), -1, 1)
        if not np.isfinite(action).all():
            raise UserError(f"the policy returned {action} in the episode with seed {seed}: its weights are damaged")
        made = stepper.step(action)
        told(stepper.info)
        yield made if made.last else dataclasses.replace(made, final_observation=None)
        if made.last:
            return


def private_seed(seed: int) -> int:
    """A seed for the actor of the episode with reset seed `seed`.

    Not `seed` itself: env and actor would draw the same numbers, and the noise would depend on where the cube lies.
    """
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
