"""A person's word on an episode: it wins over the environment's."""

from __future__ import annotations

import dataclasses

import numpy as np

from agent.spec import Episode
from robot_server.teleop import SUCCESS_REWARD

FAILURE_REWARD = 0.0


def marked(episode: Episode, word: str) -> Episode:
    """`episode` with a person's `word`, "success" or "failure"; meta["marked"] has it, meta["env_success"] the env's.

    Rewards change only where the two contradict each other: a success that the env did not see ends in a reward of 1,
    and in a failure that the env took for a success the steps it called so have 0. A success has terminated; a failure
    was truncated.
    """
    env_success = episode.meta.get("env_success", episode.succeeded)
    rewards, success = episode.rewards.copy(), np.zeros(len(episode), bool)
    terminated, truncated = episode.terminated.copy(), episode.truncated.copy()
    if word == "success":
        success = episode.success.copy()
        if not success.any():
            success[-1], rewards[-1] = True, SUCCESS_REWARD
        terminated[-1], truncated[-1] = True, False
    else:
        rewards[episode.success] = FAILURE_REWARD
        terminated[-1], truncated[-1] = False, True
    return dataclasses.replace(
        episode,
        rewards=rewards,
        success=success,
        terminated=terminated,
        truncated=truncated,
        meta={**episode.meta, "marked": word, "env_success": env_success},
    )
