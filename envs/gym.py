"""Any registered Gymnasium environment, in the project's terms: Dict observation, actions in [-1, 1]^A."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from envs import nearest


@dataclass
class Options:
    kwargs: dict = field(default_factory=dict, metadata={"help": "keyword arguments of gymnasium.make"})
    max_episode_steps: int | None = field(default=None, metadata={"help": "time limit; empty: the environment's own"})


def wrap(environment_id: str, options: Options) -> gymnasium.Env:
    """gymnasium.make(environment_id), rescaled and renamed. Raises ValueError, one line, when that can't be done."""
    limit = {} if options.max_episode_steps is None else {"max_episode_steps": options.max_episode_steps}
    try:
        env = gymnasium.make(environment_id, **limit, **options.kwargs)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        known = nearest(environment_id, gymnasium.registry)
        raise ValueError(f"gym:{environment_id}{known}: {str(error).splitlines()[0]}") from None
    return DictEnv(env, environment_id)


class DictEnv(gymnasium.Wrapper):
    """Observation: each uint8 (H, W, 3) box stays a camera (a lone one is "image"); every other box becomes a flat
    float32 vector (a lone one is "proprio"; nested keys are joined by "."). Action: [-1, 1]^A onto the environment's
    range. info["success"] is the environment's "success" or "is_success", else False.
    """

    def __init__(self, env: gymnasium.Env, name: str) -> None:
        super().__init__(env)
        self.task_name = name
        action = env.action_space
        if not isinstance(action, gymnasium.spaces.Box):
            raise ValueError(f"gym:{name}: its action space is {action}; only a Box can be rescaled to [-1, 1]")
        if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
            raise ValueError(f"gym:{name}: its action space has no finite bounds, so it can't be rescaled: {action}")
        self._low, self._high, self._shape = action.low.ravel(), action.high.ravel(), action.shape
        self._dtype = action.dtype
        self.action_space = gymnasium.spaces.Box(-1, 1, (int(np.prod(action.shape)),), np.float32)
        self._boxes = dict(_leaves(env.observation_space, "", name))
        self.observation_space = gymnasium.spaces.Dict(
            {
                key: box if _is_camera(box) else gymnasium.spaces.Box(-np.inf, np.inf, (int(np.prod(box.shape)),), np.float32)
                for key, box in self._boxes.items()
            }
        )

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation), {**info, "success": _success(info)}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        share = (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2
        scaled = (self._low + share * (self._high - self._low)).reshape(self._shape).astype(self._dtype)
        observation, reward, terminated, truncated, info = self.env.step(scaled)
        info = {**info, "success": _success(info)}
        return self._observation(observation), float(reward), bool(terminated), bool(truncated), info

    def _observation(self, observation: Any) -> dict[str, np.ndarray]:
        rows = {}
        for key, box in self._boxes.items():
            value = observation
            if isinstance(observation, dict):
                for part in key.split("."):
                    value = value[part]
            rows[key] = np.asarray(value) if _is_camera(box) else np.asarray(value, np.float32).ravel()
        return rows


def _success(info: dict) -> bool:
    return bool(info.get("success", info.get("is_success", False)))


def _is_camera(box: gymnasium.spaces.Box) -> bool:
    return box.dtype == np.uint8 and len(box.shape) == 3 and box.shape[2] == 3


def _leaves(space: gymnasium.Space, prefix: str, name: str) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else key, name)
    elif isinstance(space, gymnasium.spaces.Box):
        yield prefix or ("image" if _is_camera(space) else "proprio"), space
    else:
        raise ValueError(f"gym:{name}: observation '{prefix}' is {space}; only boxes and dicts of them can be used")
