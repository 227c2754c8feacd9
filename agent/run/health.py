"""Is this run still alive? Learning that died looks busy: its own figures say so before the success rate does.

Looks at every record of an update and at every finished episode. A complaint that has been true for a while is made
once, as one line with what to try; and again only after it had been over.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from agent.config import CalQLConfig
from agent.data.returns import return_bounds
from agent.run.statistics import wilson

REPEATS = 10  # records of updates in a row with the same complaint
BOUND_LOW, BOUND_HIGH = 0.001, 0.999
MULTIPLIER_LIMIT = 1e6  # where losses.multiplier clips alpha'
SLACK = 0.1  # of the span of returns
NO_SPREAD = -4.0  # nats an action dimension: a standard deviation of about 0.004
EPISODES = 20  # whose success rate is looked at
SURE = 0.997  # confidence of the intervals of two such rates that are taken to differ
GONE, ONCE_GOOD = 40, 0.5  # episodes in a row without a success, after so good a rate
NEVER = 50  # episodes from the beginning without a success

LINES = {
    "q": "Q of the data ({q_data:.4g}) is far from their returns ({return_to_go:.4g}), or beyond any that can be: "
    "lower calql.critic_lr or calql.target_rate, or calql.cql_weight where Q is too low, and check reward.scale, "
    "reward.bias and calql.gamma",
    "bound low": "no policy sample lies below the return, so calibration does nothing: raise calql.cql_weight, or "
    "check reward.bias and calql.gamma",
    "bound high": "every policy sample lies below the return: lower calql.cql_weight, or set calql.lagrange_threshold",
    "multiplier": "alpha' is at its clip, {alpha_prime:.0e}: raise calql.lagrange_threshold, or leave it empty",
    "entropy": "the policy hardly varies any more (entropy {entropy:.4g}): raise calql.temperature_lr to 1e-2, without "
    "which alpha hardly moves and calql.target_entropy has no effect",
    "success": "{rate:.0%} of the last {episodes} episodes succeeded, and {best:.0%} of as many had: resume from an "
    "earlier checkpoint (checkpoints/) with a larger calql.bc_weight_online or online.offline_share, or lower learning "
    "rates",
    "never": "none of the first {episodes} episodes succeeded: evaluate the offline policy without its noise "
    "(tools.evaluate); if that succeeds, raise calql.bc_weight_online, or lower calql.target_entropy with "
    "calql.temperature_lr at 1e-2, otherwise train longer offline, record more, or take over "
    "(tools.panel) with online.interventions_offline",
}


def complaints(
    record: Mapping[str, Any], config: CalQLConfig, rewards: tuple[float, float], actions: int
) -> dict[str, str]:
    """Key of LINES -> the line, of what a record of an update shows.

    rewards: the lowest and highest that learning has seen. Q is far from the returns when it is farther than any two
    returns can be from each other; it is beyond them when no return of such rewards, for ever or until an episode ends,
    comes near it. actions: how many dimensions they have.
    """
    found = set()
    low, high = min(rewards), max(rewards)
    span = (high - low) / (1 - config.gamma)
    lowest, highest = return_bounds(low, high, config.gamma)
    q, slack = record["q_data"], SLACK * span
    beyond = not lowest - slack <= q <= highest + slack and not config.entropy_backup  # there Q holds more
    if span > 0 and (beyond or abs(q - record["return_to_go"]) > span):
        found.add("q")
    if config.calibrate and "bound_rate_current" in record and _travelled(record["updates"], config):
        rate = fmean(record["bound_rate_current"])
        found |= {"bound low"} if rate < BOUND_LOW else {"bound high"} if rate > BOUND_HIGH else set()
    if record.get("alpha_prime", 0.0) >= MULTIPLIER_LIMIT:
        found.add("multiplier")
    if record.get("entropy", math.inf) < NO_SPREAD * actions:
        found.add("entropy")
    return {key: LINES[key].format(**record) for key in found}


def _travelled(updates: int, config: CalQLConfig) -> bool:
    """Whether Q has had the updates that it takes from where it begins to where the returns are."""
    return updates * config.target_rate * (1 - config.gamma) > 1


class Health:
    """tell(line) gets each warning. actions: dimensions of an action. sparse: whether success is learnt."""

    def __init__(self, config: CalQLConfig, actions: int, tell: Callable[[str], None], sparse: bool = True) -> None:
        self._config, self._actions, self.tell, self._sparse = config, actions, tell, sparse
        self._seen: Counter[str] = Counter()  # records in a row, or 1: of episodes
        self._recent: deque[bool] = deque(maxlen=EPISODES)
        self._best = 0  # successes among the best EPISODES in a row
        self._failed, self._succeeded = 0, False  # episodes in a row, any so far

    def update(self, record: Mapping[str, Any], rewards: tuple[float, float]) -> None:
        """A record of an update, as it is in log.jsonl; see complaints."""
        found = complaints(record, self._config, rewards, self._actions)
        for key in LINES:
            if key not in ("success", "never"):
                self._seen[key] = self._seen[key] + 1 if key in found else 0
            if key in found and self._seen[key] == REPEATS:
                self.tell(found[key])

    def episode(self, success: bool) -> None:
        """Success is gone when its rate is surely below the best so far: in 400 episodes of a rate that stays as it is,
        one run in twenty warns at most.
        """
        self._recent.append(success)
        self._failed = 0 if success else self._failed + 1
        self._succeeded |= success
        if self._failed == NEVER and not self._succeeded and self._sparse:
            self.tell(LINES["never"].format(episodes=NEVER))
        if len(self._recent) < EPISODES:
            return
        won = sum(self._recent)
        had, _ = wilson(self._best, EPISODES, SURE)
        _, has = wilson(won, EPISODES, SURE)
        gone = has < had or (self._failed >= GONE and self._best >= ONCE_GOOD * EPISODES)
        if gone and not self._seen["success"]:
            line = LINES["success"].format(rate=won / EPISODES, episodes=EPISODES, best=self._best / EPISODES)
            self.tell(line)
        if gone or won >= had * EPISODES:  # it is over when the rate is back
            self._seen["success"] = int(gone)
        self._best = max(self._best, won)
