"""What the critics expect along each robot's newest episode: for the operator's page, by way of PROGRESS."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from agent.calql.algorithm import CalQL
from agent.calql.values import episode_values
from agent.config import RewardConfig
from agent.spec import Episode
from agent.wire.bad_messages import unexpected
from agent.wire.progress import CURVES, MAX_POINTS

DIGITS = 5

log = logging.getLogger(__name__)


class NewestEpisodes:
    """curves: robot's name -> the field newest_episode of its PROGRESS (agent.wire.progress)."""

    def __init__(self, agent: CalQL, reward: RewardConfig) -> None:
        self._agent, self._reward = agent, reward
        self._waiting: dict[str, Episode] = {}  # the newest of each robot, until the critics have been asked
        self._reported = False
        self.curves: dict[str, dict[str, Any]] = {}

    def add(self, episode: Episode) -> None:
        """Remember an episode that has been stored, instead of the robot's one before; this costs nothing."""
        self._waiting[episode.meta["robot"]] = episode

    def ask_critics(self, updates: int) -> None:
        """Of one episode at a time, at MAX_POINTS of its steps: less than an update costs. updates: made so far."""
        if not self._waiting:
            return
        robot = next(iter(self._waiting))
        episode = self._waiting.pop(robot)
        steps = np.unique(np.linspace(0, len(episode) - 1, MAX_POINTS).round().astype(int))
        try:
            values = episode_values(self._agent, self._reward, episode, steps)
        except Exception as error:  # no memory left, say: what only a page shows ends no run
            if not self._reported:
                log.warning("Q along an episode is not shown: %s; later ones are tried in silence", unexpected(error))
            self._reported = True
            return
        if not all(np.isfinite(values[name]).all() for name in CURVES):  # learning has diverged: the run ends by itself
            return
        told = {name: [float(f"{value:.{DIGITS}g}") for value in values[name]] for name in CURVES}
        which = {"number": int(episode.meta["number"]), "updates": updates, "success": episode.succeeded}
        self.curves[robot] = {**which, "steps": steps.tolist(), **told}
