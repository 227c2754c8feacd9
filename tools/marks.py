"""A person's word on an episode, which wins over the environment's, and a part of one."""

from __future__ import annotations

import dataclasses

import numpy as np

from agent.spec import STEP_COLUMNS, Episode
from robot_server.teleop import SUCCESS_REWARD

FAILURE_REWARD = 0.0
COLUMNS = ("rewards", "success", "terminated", "truncated")  # those that a mark may change


def marked(episode: Episode, word: str) -> Episode:
    """`episode` with a person's `word`, "success" or "failure"; meta["marked"] has it, meta["env_success"] the env's.

    Rewards change only where the two contradict each other: a success that the env did not see at the last step ends in
    a reward of 1, and in a failure that the env took for a success the steps it called so have 0. A success has
    terminated; a failure was truncated. meta["unmarked"] has what the last mark changed: a new word starts from there.
    """
    episode = unmarked(episode)
    rewards, success = episode.rewards.copy(), episode.success.copy()
    terminated, truncated = episode.terminated.copy(), episode.truncated.copy()
    if word == "success":
        if not success[-1]:
            success[-1], rewards[-1] = True, SUCCESS_REWARD
        terminated[-1], truncated[-1] = True, False
    else:
        rewards[success] = FAILURE_REWARD
        success[:] = False
        terminated[-1], truncated[-1] = False, True
    changed = dataclasses.replace(
        episode, rewards=rewards, success=success, terminated=terminated, truncated=truncated, meta=dict(episode.meta)
    )
    differs = np.any([getattr(changed, name) != getattr(episode, name) for name in COLUMNS], axis=0)
    before = [[int(k), *(getattr(episode, name)[k].item() for name in COLUMNS)] for k in np.flatnonzero(differs)]
    env_success = episode.meta.get("env_success", episode.succeeded)
    changed.meta |= {"marked": word, "env_success": env_success, "unmarked": before}
    return changed


def unmarked(episode: Episode) -> Episode:
    """As it was before `marked`; as it is where that did not say what it changed."""
    meta = dict(episode.meta)
    before = meta.pop("unmarked", None)
    if before is None:
        return episode
    for key in ("marked", "env_success"):
        meta.pop(key, None)
    columns = {name: getattr(episode, name).copy() for name in COLUMNS}
    for step, *values in before:
        for name, value in zip(COLUMNS, values, strict=True):
            columns[name][step] = value
    return dataclasses.replace(episode, meta=meta, **columns)


def part(episode: Episode, first: int, end: int) -> Episode:
    """Its steps from `first` to before `end`; meta["cut"] has them, counted in what was recorded.

    Raises ValueError for steps that it has not. A person's "success" goes with the last step, a "failure" stays.
    """
    steps = len(episode)
    if not 0 <= first < end <= steps:
        raise ValueError(f"cut {first}:{end}: it has the steps 0 to {steps - 1}")
    if end < steps and episode.meta.get("marked") == "success":
        episode = unmarked(episode)
    columns = {name: getattr(episode, name)[first:end].copy() for name in ("actions", "rewards", *STEP_COLUMNS)}
    if end < steps:
        columns["truncated"][-1] = True
    begun = episode.meta.get("cut", [0, 0])[0]
    meta = {**episode.meta, "cut": [begun + first, begun + end]}
    if "unmarked" in meta:
        meta["unmarked"] = [[k - first, *values] for k, *values in meta["unmarked"] if first <= k < end]
    observations = {key: rows[first : end + 1] for key, rows in episode.observations.items()}
    return dataclasses.replace(episode, observations=observations, meta=meta, **columns)
