"""How fast a run goes: which updates are due, with what weights, and when simulated robots have to wait for them."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.calql.algorithm import Weights
from agent.config import CalQLConfig, OnlineConfig, RunConfig

HOLD_S = 5.0  # lease of a robot that is held; longer than any update, so that it is renewed in time
COMPILE_S = 60.0  # the same while an update of a new kind is compiled


def updates_due(env_steps: int, warmup_steps: int, utd: float) -> int:
    """How many updates a run should have made after so many env steps."""
    return max(0, math.floor((env_steps - warmup_steps) * utd))


def is_finished(online: OnlineConfig, env_steps: int, updates: int) -> bool:
    """Whether a run has its env steps, of finished episodes, and has made the updates that they ask for."""
    due = updates_due(online.env_steps, online.warmup_steps, online.utd)
    return env_steps >= online.env_steps and updates >= due


def cql_weight(env_steps: int, config: CalQLConfig) -> float:
    """The conservative weight online: from its offline to its online value over cql_decay_steps."""
    share = min(1.0, env_steps / config.cql_decay_steps) if config.cql_decay_steps else 1.0
    return (1 - share) * config.cql_weight + share * config.cql_weight_online


class Pacing:
    """hold(seconds): asks simulated robots to wait, 0 releases them (Mailbox.pace); a real robot ignores it."""

    def __init__(self, config: RunConfig, hold: Callable[[float], None]) -> None:
        self._online, self._calql, self._hold = config.online, config.calql, hold
        self._compiles = config.learner.mode != "eager"
        self._compiled: set[tuple[bool, bool]] = set()  # kinds of update made so far
        self._held = False

    def due(self, env_steps: int) -> int:
        """Updates that a run should have made after so many env steps; those beyond its end ask for no more."""
        return updates_due(min(env_steps, self._online.env_steps), self._online.warmup_steps, self._online.utd)

    def weights(self, env_steps: int) -> Weights:
        """Of the next update's losses."""
        learning_steps = max(0, env_steps - self._online.warmup_steps)
        return Weights(cql_weight(learning_steps, self._calql), self._calql.bc_weight_online)

    def keep(self, env_steps: int, behind: int) -> None:
        """Hold robots that have run too far ahead, or beyond the run's end; release them when they have not.

        behind: updates that are due and not made yet.
        """
        online = self._online
        ahead = behind / online.utd if online.utd > 0 else 0
        spent = behind > 0 and env_steps >= online.env_steps
        if online.max_lead_steps and (ahead > online.max_lead_steps or spent):
            self._hold(HOLD_S)
            self._held = True
        elif self._held:
            self._hold(0.0)
            self._held = False

    def before_update(self, weights: Weights, update_actor: bool) -> None:
        """Hold robots while an update of a new kind is compiled: that takes long, and nobody answers them meanwhile."""
        kind = (weights.conservative, update_actor)
        if self._compiles and kind not in self._compiled:
            self._hold(COMPILE_S)
            self._held = True
            self._compiled.add(kind)
