"""What all environments share: their fault, their common options, and checks of actions and flags."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agent.options import option
from envs.clock import Clock

if TYPE_CHECKING:
    import gymnasium

MAX_IMAGE_SIZE = 2048  # pixels a side
RESET_TASK = "reset_task"  # option of Env.reset: this episode's task is to put the scene back, from where all is now
EE_POS = ["ee_pos.x", "ee_pos.y", "ee_pos.z"]
EE_ROT = ["ee_rot.xx", "ee_rot.xy", "ee_rot.xz", "ee_rot.yx", "ee_rot.yy", "ee_rot.yz"]  # two columns of the matrix


Observation = dict[str, np.ndarray]
Info = dict[str, Any]


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

    classifier: str | None = option(
        None, "file of tools.train_reward: what it sees gives the reward; empty: the environment"
    )
    after_success: int | None = option(
        None, "steps that an episode continues after a success: recordings for tools.train_reward"
    )
    instruction: str | None = option(
        None, "the task in words, for pages, recordings and LeRobotDatasets; empty: that of a known simulator task"
    )


class PacedEnv(Protocol):
    """An environment in wall-clock time, a real arm: `step` takes one period of `clock`. Found by `paced_env`.

    paused: called while a step or a reset waits, with the seconds left; answers whether the arm must not move now.
    ask: called with the prompt of a reset; returns when that is done.
    realtime_denied: real-time scheduling was asked for, and the system does not allow it.
    lost_replies: of the arm's bus since it was started; each was bridged.
    motors: axis -> "load" in %, "current" in mA, "temperature" in °C, as far as its motor reports them; "over", those
    above their limit, "error" and "relaxed" where there is something to say.
    Raises RobotFault in reset, step, hold and clear.
    """

    paced: bool = True
    clock: Clock
    paused: Callable[[float], bool]
    ask: Callable[[str], object]
    realtime_denied: bool
    lost_replies: int
    motors: Mapping[str, Mapping[str, Any]]

    def hold(self) -> None:
        """Stand still, until the next step."""

    def clear(self) -> None:
        """A person has looked at what had raised a RobotFault. Raises it again when it is still there."""

    def towards(self, position: Mapping[str, float]) -> np.ndarray:
        """The action (A,) that moves the named axes towards `position`, such as a leader arm's."""


def paced_env(env: gymnasium.Env) -> PacedEnv | None:
    """The paced environment that `env` (a gymnasium.Env) is or wraps; None for a simulation."""
    inner: Any = env.unwrapped
    return inner if getattr(inner, "paced", False) else None


def while_closing(
    env: gymnasium.Env, stopped: Callable[[], bool], wait: Callable[[float], object] = time.sleep
) -> None:
    """From now on a real arm that `env` closes is not parked, or no farther, once it is `stopped`.

    wait: called with seconds, again and again meanwhile.
    """
    if (arm := paced_env(env)) is not None:

        def paused(left_s: float) -> bool:
            wait(left_s)
            return stopped()

        arm.paused = paused


def clipped(action: Any, size: int) -> np.ndarray:
    """float64 (size,) in [-1, 1]. Raises ValueError for another shape and for what is not finite."""
    given = np.asarray(action, np.float64)
    if given.shape != (size,) or not np.isfinite(given).all():
        raise ValueError(f"action must be {size} finite numbers, not {given}")
    return np.clip(given, -1, 1)


def action_meaning(env: gymnasium.Env) -> dict[str, Any]:
    """What the actions of `env` (a gymnasium.Env) stand for, as it or its outermost wrapper that knows states it.

    The keys are those of agent.action_meaning.ActionMeaning; {} where nothing states it.
    """
    try:
        return dict(env.get_wrapper_attr("action_meaning"))
    except (AttributeError, TypeError, ValueError):
        return {}


def state_names(env: gymnasium.Env) -> dict[str, list[str]]:
    """Observed vector -> a name for each of its numbers, as `env` (a gymnasium.Env) or a wrapper states them; {}."""
    try:
        return {key: list(map(str, names)) for key, names in dict(env.get_wrapper_attr("state_names")).items()}
    except (AttributeError, TypeError, ValueError):
        return {}


def names_of_numbers(env: gymnasium.Env) -> dict[str, list[str]]:
    """As state_names, and "action" -> those of an action, for people who look at the numbers."""
    return {"action": list(action_meaning(env).get("names", ())), **state_names(env)}


def ask_in_terminal(prompt: str) -> None:
    """Wait for Enter. Raises RobotFault where nobody can press it."""
    try:
        input(f"{prompt} (Enter) ")
    except EOFError:
        line = f"a reset asks a person ({prompt}), and there is no terminal"
        raise RobotFault(f"{line}: start it in one, or with the operator's page") from None


def is_flag(value: object) -> bool:
    """Whether `value` is a bool, or a number (a NumPy scalar, an array with one element) that is 0 or 1."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.size == 1 and value.dtype.kind in "biuf" and value.item() in (0, 1)
    return isinstance(value, (bool, int, float)) and value in (0, 1)
