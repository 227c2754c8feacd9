"""Gymnasium environments by name.

`sim` (robosuite), `fake` (tiny, numpy only), `gym:<id>` (any registered one); in wall-clock time `real` (an arm of your
own), `lerobot:<type>` (one that LeRobot drives) and `mock` (a rehearsal of `real` without one).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAMES = ("sim", "fake", "gym:<id>", "real", "lerobot:<type>", "mock")
MAX_IMAGE_SIZE = 2048  # pixels a side


class RobotFault(RuntimeError):
    """The robot cannot go on, and is held. One line that says why.

    A person has to look, and then to `clear` it; what ends by itself (a camera that is away) only has to be cleared.
    """

    def __init__(self, line: str, by_itself: bool = False) -> None:
        super().__init__(line)
        self.by_itself = by_itself


@dataclass
class Common:
    """What every environment can be told."""

    classifier: str | None = field(
        default=None,
        metadata={"help": "file of tools.train_reward: what it sees gives the reward; empty: the environment"},
    )
    after_success: int | None = field(
        default=None, metadata={"help": "go on for so many steps after a success: recordings for tools.train_reward"}
    )


def options(name: str) -> type:
    """The environment's Options with the Common ones, a dataclass; loads no simulator.

    Raises ValueError for an unknown name.
    """
    return _with_common(_own_options(name))


@functools.cache
def _with_common(kind: type) -> type:
    return dataclasses.make_dataclass("Options", [], bases=(Common, kind))


def _own_options(name: str) -> type:
    if name == "sim":
        from envs.sim import Options as SimOptions

        return SimOptions
    if name == "fake":
        from envs.fake import Options as FakeOptions

        return FakeOptions
    if name.startswith("gym:"):
        from envs.gym import Options as GymOptions

        return GymOptions
    if name in ("real", "mock") or name.startswith("lerobot:"):
        from envs import real_options

        return real_options.MockOptions if name == "mock" else real_options.Options
    raise ValueError(f"unknown environment '{name}'{nearest(name, NAMES)}; there are {', '.join(NAMES)}")


def make(name: str, **chosen: Any) -> Any:
    """A gymnasium.Env with a Dict observation and actions in [-1, 1]^A. Raises ValueError, one line, for bad input."""
    kind = options(name)
    known = [field.name for field in dataclasses.fields(kind)]
    for key in chosen:
        if key not in known:
            raise ValueError(f"environment '{name}' has no option '{key}'{nearest(key, known)}")
    asked = kind(**chosen)
    if asked.classifier and asked.after_success is not None:
        raise ValueError("after_success is for the environment's own success, not for that of a classifier")
    classifier = None
    if asked.classifier:  # before an arm is started
        from envs.success import SuccessClassifier

        classifier = SuccessClassifier.load(asked.classifier)
    env = _own_env(name, asked)
    try:
        return _judged(env, asked, classifier)
    except BaseException:
        env.close()
        raise


def _judged(env: Any, asked: Common, classifier: Any) -> Any:
    if classifier is not None:
        from envs.success import ClassifierReward

        return ClassifierReward(env, classifier)
    if asked.after_success is not None:
        from envs.success import AfterSuccess

        return AfterSuccess(env, asked.after_success)
    return env


def _own_env(name: str, asked: Any) -> Any:
    if name == "sim":
        from envs.sim import SimEnv

        return SimEnv(asked)
    if name == "fake":
        from envs.fake import FakeEnv

        return FakeEnv(asked)
    if not name.startswith("gym:"):
        from envs.real import RealEnv

        if name.startswith("lerobot:"):
            asked = dataclasses.replace(asked, arm=name)
        return RealEnv(asked)
    from envs.gym import wrap

    return wrap(name.removeprefix("gym:"), asked)


def clipped(action: Any, size: int) -> np.ndarray:
    """float64 (size,) in [-1, 1]. Raises ValueError for another shape and for what is not finite."""
    action = np.asarray(action, np.float64)
    if action.shape != (size,) or not np.isfinite(action).all():
        raise ValueError(f"action must be {size} finite numbers, not {action}")
    return np.clip(action, -1, 1)


def action_meaning(env: Any) -> dict[str, Any]:
    """What the actions of `env` (a gymnasium.Env) stand for, as it or its outermost wrapper that knows states it.

    The keys are those of agent.action_meaning.ActionMeaning; {} where nothing states it.
    """
    try:
        return dict(env.get_wrapper_attr("action_meaning"))
    except (AttributeError, TypeError, ValueError):
        return {}


def is_flag(value: Any) -> bool:
    """Whether `value` is a bool, or a number (a NumPy scalar, an array with one element) that is 0 or 1."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.size == 1 and value.dtype.kind in "biuf" and value.item() in (0, 1)
    return isinstance(value, (bool, int, float)) and value in (0, 1)


def nearest(word: str, known: Any) -> str:
    """' (did you mean 'X'?)' for the known word most like `word`, or ''."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
