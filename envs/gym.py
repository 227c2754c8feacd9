"""Any registered Gymnasium environment, in the project's terms: Dict observation, actions in [-1, 1]^A."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from agent.options import nearest, option
from envs.base import Info, Observation, action_meaning, clipped
from envs.gym_observations import first_line, observe, parts
from envs.gym_success import COMPLETED, SuccessSignal
from envs.rendering import choose_backend, no_opengl

ROBOTICS = "gymnasium_robotics"
ROBOTICS_ENVS = re.compile("Adroit|AntMaze|PointMaze|FrankaKitchen|Fetch|HandManipulate|HandReach")


@dataclass
class GymOptions:
    kwargs: dict[str, Any] = option({}, "keyword arguments of gymnasium.make")
    binary: bool = option(False, "reward 1 at the first success, which ends it; else 0")
    count_tasks: bool = option(False, "Franka Kitchen: the reward is how many tasks have been completed so far")
    max_episode_steps: int | None = option(None, "time limit in its own steps; empty: the environment's own")
    repeat: int | None = option(  # empty: what older records, which lack it, mean
        None, "steps of the environment that each action is repeated for, rewards summed; empty: one", low=1
    )
    success_key: str | None = option(
        None, "key of info that says whether the task is done; empty: success or is_success"
    )


def wrap(environment_id: str, options: GymOptions) -> gymnasium.Env:
    """gymnasium.make(environment_id), rescaled and renamed. Raises ValueError, one line, when that can't be done."""
    if options.kwargs.get("render_mode") == "human" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise ValueError(
            f"gym:{environment_id}: render_mode human opens a window, and there is no display: leave it out"
        )
    choose_backend()
    limit: dict[str, Any] = {}
    if options.max_episode_steps is not None:
        limit["max_episode_steps"] = options.max_episode_steps
    try:
        env = gymnasium.make(environment_id, **limit, **options.kwargs)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"gym:{environment_id}{_remedy(environment_id)}: {first_line(error)}") from None
    except (AttributeError, RuntimeError) as error:
        raise no_opengl(error) or error from None
    try:
        return DictEnv(env, environment_id, options.binary, options.success_key, options.count_tasks, options.repeat)
    except ValueError:
        env.close()
        raise


def _remedy(environment_id: str) -> str:
    """What to write or install instead of an id that Gymnasium does not know; or ''."""
    module, _, name = environment_id.rpartition(":")
    if module == ROBOTICS or ROBOTICS_ENVS.match(name):
        if importlib.util.find_spec(ROBOTICS) is None:
            return " needs gymnasium-robotics: uv pip install gymnasium-robotics"
        return "" if module else f" (is it gym:{ROBOTICS}:{name}?)"
    return "" if environment_id in gymnasium.registry else nearest(environment_id, gymnasium.registry)


class DictEnv(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Observation: images become cameras, uint8 (H, W, 3); every other box becomes a flat float32 vector (see
    envs.gym_observations). Action: [-1, 1]^A onto the environment's range. info["success"]: see envs.gym_success.
    binary: the first success ends the episode with a reward of 1; every other reward is 0. count_tasks: the reward is
    how many of Franka Kitchen's tasks have been completed so far, as in the published experiments.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        name: str,
        binary: bool = False,
        success_key: str | None = None,
        count_tasks: bool = False,
        repeat: int | None = None,
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(  # Gymnasium can make it again
            self, name=name, binary=binary, success_key=success_key, count_tasks=count_tasks, repeat=repeat
        )
        gymnasium.Wrapper.__init__(self, env)
        self.task_name, self._binary, self._count_tasks, self._repeat = name, binary, count_tasks, repeat or 1
        if count_tasks and not hasattr(env.unwrapped, COMPLETED):
            raise ValueError(f"gym:{name}: it has no {COMPLETED} to count; leave --count-tasks out")
        action = env.action_space
        if not isinstance(action, gymnasium.spaces.Box):
            raise ValueError(f"gym:{name}: its action space is {action}; only a Box can be rescaled to [-1, 1]")
        if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
            raise ValueError(f"gym:{name}: its action space has no finite bounds to be rescaled: {first_line(action)}")
        self._low, self._high, self._shape = action.low.ravel(), action.high.ravel(), action.shape
        self._dtype = action.dtype
        self.action_space = gymnasium.spaces.Box(-1, 1, (int(np.prod(action.shape)),), np.float32)
        self._parts = parts(env.observation_space, name)
        self.observation_space = gymnasium.spaces.Dict({key: part.box for key, part in self._parts.items()})
        self._success = SuccessSignal(name, success_key)

    @property
    def action_meaning(self) -> dict[str, Any]:
        """See envs.base.action_meaning; the environment's own, if it states one."""
        ends = {"low": self._low.astype(float).tolist(), "high": self._high.astype(float).tolist()}
        meaning = action_meaning(self.env) or {"kind": "normalized", **ends}
        if hz := meaning.get("control_hz"):
            meaning["control_hz"] = hz / self._repeat
        return {**meaning, "repeat": self._repeat}

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        self._success.end_episode()
        observation, info = self.env.reset(seed=seed, options=options)
        return observe(self._parts, observation), {**info, "success": self._success.read(info)}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        total, success = 0.0, False
        for _ in range(self._repeat):
            observation, reward, terminated, truncated, info = self._step(action)
            total = reward if self._count_tasks else total + reward  # the count is of the whole episode already
            success = success or info["success"]
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, {**info, "success": success}

    def _step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        share = (clipped(action, len(self._low)) + 1) / 2
        scaled = (self._low + share * (self._high - self._low)).reshape(self._shape).astype(self._dtype)
        observation, reward, terminated, truncated, info = self.env.step(scaled)
        info = {**info, "success": self._success.read(info)}
        if terminated or truncated:
            self._success.end_episode()
        if self._count_tasks:
            reward = len(info[COMPLETED])
        if self._binary:
            reward, terminated = float(info["success"]), terminated or info["success"]
        terminated = bool(terminated)  # on the last allowed step Gymnasium's time limit says both
        return observe(self._parts, observation), float(reward), terminated, bool(truncated and not terminated), info
