"""A person's verdict on an episode: the one rule of what it changes, for recording, streaming, editing and summaries.

A verdict wins over the environment's success signal, and changes rewards only where the two contradict each other.

  success  the last step terminates the episode; it gets SUCCESS_REWARD where the environment reported no success there
  failure  steps that the environment reported as a success lose it, with their reward; the episode ends truncated
  discard  changes no step: the learner excludes the episode from training

meta["marked"] is the verdict, meta["env_success"] what the environment reported, and meta["unmarked"] has the values
that the verdict changed: another verdict starts from those.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from agent.spec import Episode, SpecError

VERDICTS = ("success", "failure", "discard")
SUCCESS_REWARD = 1.0  # of the last step of a success that the environment did not report
FAILURE_REWARD = 0.0
COLUMNS = ("rewards", "success", "terminated", "truncated")  # those that a verdict may change


def outcome(verdict: str, rewards: np.ndarray, success: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rewards and the success flags, (T,) each, that `verdict` makes of the environment's; both are new arrays.

    A verdict of none of VERDICTS, such as "", changes nothing.
    """
    rewards, success = rewards.copy(), success.copy()
    if verdict == "success" and not success[-1]:
        rewards[-1], success[-1] = SUCCESS_REWARD, True
    elif verdict == "failure":
        rewards[success], success[:] = FAILURE_REWARD, False
    return rewards, success


def with_verdict(episode: Episode, verdict: str) -> Episode:
    """`episode` with a person's `verdict`, which replaces the one before."""
    episode = without_verdict(episode)
    rewards, success = outcome(verdict, episode.rewards, episode.success)
    terminated, truncated = episode.terminated.copy(), episode.truncated.copy()
    if verdict in ("success", "failure"):
        terminated[-1], truncated[-1] = verdict == "success", verdict == "failure"
    columns = dict(zip(COLUMNS, (rewards, success, terminated, truncated), strict=True))
    differs = np.any([columns[name] != getattr(episode, name) for name in COLUMNS], axis=0)
    before = [[int(k), *(getattr(episode, name)[k].item() for name in COLUMNS)] for k in np.flatnonzero(differs)]
    env_success = episode.meta.get("env_success", episode.succeeded)
    meta = {**episode.meta, "marked": verdict, "env_success": env_success, "unmarked": before}
    return dataclasses.replace(episode, meta=meta, **columns)


def without_verdict(episode: Episode) -> Episode:
    """As it was before `with_verdict`; unchanged where its meta does not tell what that changed.

    Raises SpecError where it tells nonsense: a file may come from anybody.
    """
    meta = dict(episode.meta)
    before = meta.pop("unmarked", None)
    if before is None:
        return episode
    for key in ("marked", "env_success"):
        meta.pop(key, None)
    columns = {name: getattr(episode, name).copy() for name in COLUMNS}
    try:
        for step, *values in before:
            for name, value in zip(COLUMNS, values, strict=True):
                columns[name][step] = value
    except (TypeError, ValueError, IndexError, OverflowError):
        raise SpecError("its meta: 'unmarked' is malformed") from None
    return dataclasses.replace(episode, meta=meta, **columns)


def with_recorded_verdict(episode: Episode) -> Episode:
    """`episode` with the verdict that its meta states, where its columns do not show it yet.

    A robot streams steps as the environment reported them, and the verdict in the last one's meta: earlier steps are on
    their way when a person speaks. Its spool files are as it streams; so are failures in files of older releases.
    """
    meta: dict[str, Any] = episode.meta
    verdict = meta.get("marked")
    if verdict not in ("success", "failure") or "env_success" in meta:
        return episode
    if verdict == "success" and episode.terminated[-1]:  # an older release, which changed the last step and no more
        return episode
    return with_verdict(episode, verdict)
