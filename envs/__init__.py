"""Gymnasium environments by name.

`sim` (robosuite), `fake` (tiny, numpy only), `gym:<id>` (any registered one); in wall-clock time `real` (an arm of your
own), `lerobot:<type>` (one that LeRobot drives) and `mock` (a rehearsal of `real` without one).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from agent.options import build, nearest
from envs.base import RESET_TASK, Common
from envs.instructions import in_words

NAMES = ("sim", "fake", "gym:<id>", "real", "lerobot:<type>", "mock")


def options(name: str) -> type:
    """The environment's options with the Common ones, a dataclass; loads no simulator.

    Raises ValueError for an unknown name.
    """
    return _with_common(_own_options(name))


@functools.cache
def _with_common(kind: type) -> type:
    return dataclasses.make_dataclass(kind.__name__, [], bases=(Common, kind))


def _own_options(name: str) -> type:
    if name == "sim":
        from envs.sim import SimOptions

        return SimOptions
    if name == "fake":
        from envs.fake import FakeOptions

        return FakeOptions
    if name.startswith("gym:"):
        from envs.gym import GymOptions

        return GymOptions
    if name in ("real", "mock") or name.startswith("lerobot:"):
        from envs.real.options import MockOptions, RealOptions

        return MockOptions if name == "mock" else RealOptions
    raise ValueError(f"unknown environment '{name}'{nearest(name, NAMES)}; there are {', '.join(NAMES)}")


def make(name: str, **chosen: Any) -> Any:
    """A gymnasium.Env with a Dict observation and actions in [-1, 1]^A. Raises ValueError, one line, for bad input."""
    asked: Any = build(options(name), chosen)
    if asked.classifier and asked.after_success is not None:
        raise ValueError("after_success is for the environment's own success, not for that of a classifier")
    classifier = None
    if asked.classifier:  # before an arm is started
        from envs.reward_classifier import SuccessClassifier

        classifier = SuccessClassifier.load(asked.classifier)
    env = _own_env(name, asked)
    try:
        env = _judged(env, asked, classifier)
        env.instruction = in_words(env, asked.instruction, getattr(asked, RESET_TASK, False))
        return env
    except BaseException:
        env.close()
        raise


def _judged(env: Any, asked: Common, classifier: Any) -> Any:
    if classifier is not None:
        from envs.reward_classifier import ClassifierReward

        return ClassifierReward(env, classifier)
    if asked.after_success is not None:
        from envs.reward_classifier import AfterSuccess

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
        from envs.real.env import RealEnv

        if name.startswith("lerobot:"):
            asked = dataclasses.replace(asked, arm=name)
        return RealEnv(asked)
    from envs.gym import wrap

    return wrap(name.removeprefix("gym:"), asked)
