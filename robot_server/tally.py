"""What a robot server counts: episodes, verdicts, and the time that they cost a person."""

from __future__ import annotations

import time
from collections import Counter
from operator import attrgetter
from typing import Any

from agent.spec import plural
from envs.base import PacedEnv
from robot_server.actor import Summary
from robot_server.history import History
from robot_server.link import Link

LINK_HEALTH = {  # name for the operator's page -> attribute of the link
    "trouble": "connection_error",
    "unkept": "unsaved",
    "reconnects": "connection.reconnects",
    "round_trip_s": "sender.round_trip_s",
    **{name: name for name in ("address", "run", "full", "backlog", "silent_s")},
}


class Tally:
    """What the operator's socket reports besides the running episode.

    person_s: seconds that a person drove, or that the robot waited for one: in prompts and pauses, and for a release
    after a stop or a fault. resets: episodes of the reset policy by whether they succeeded. history: gets all episodes.
    """

    def __init__(self, name: str, link: Link, arm: PacedEnv | None = None) -> None:
        self._name, self._link, self._arm = name, link, arm
        self.episodes = self.successes = self.discarded = self.prompts = 0
        self.person_s = 0.0
        self.resets: Counter[bool] = Counter()
        self.history: History | None = None
        # episodes, by the classifier's verdict and the environment's
        self.classified: Counter[tuple[bool, bool]] = Counter()
        self._version, self._since_s = 0, time.monotonic()

    def spend(self, person_s: float, prompts: int = 0) -> None:
        """Of a person's time."""
        self.person_s += person_s
        self.prompts += prompts

    def count(self, summary: Summary) -> None:
        self.discarded += summary.ending == "discard"
        self.episodes += summary.ending != "discard"
        self.successes += summary.success and summary.ending != "discard"
        outcome = "success" if summary.success else "failure"
        self._remember(summary, "discarded" if summary.ending == "discard" else outcome)
        if summary.true_success is not None:
            self.classified[summary.success, summary.true_success] += 1

    def count_reset(self, summary: Summary) -> None:
        """An episode of the reset policy."""
        self.resets[summary.success] += 1
        self._remember(summary, "reset")

    def _remember(self, summary: Summary, outcome: str) -> None:
        if self.history:
            given = (summary.number, outcome, summary.steps, summary.by_hand, summary.episode_return)
            self.history.episode(*given)

    def verdicts(self) -> str:
        right, wrong, missed = (self.classified[words] for words in ((True, True), (True, False), (False, True)))
        called = f"{right + wrong} of {self.classified.total()} episodes called a success, {wrong} of them wrongly"
        return f"classifier: {called}; {missed} successes missed"

    def person(self) -> str:
        """What the episodes cost a person."""
        minutes, episodes = self.person_s / 60, self.episodes + self.discarded
        each = f", {100 * minutes / episodes:.1f} for 100 episodes" if episodes else ""
        resets = (
            f"; the reset policy put {self.resets[True]} of {self.resets.total()} scenes back" if self.resets else ""
        )
        return f"a person's time: {minutes:.1f} minutes{each}; {plural(self.prompts, 'prompt')}{resets}"

    def about(self) -> dict[str, Any]:
        link = self._link
        if link.version != self._version:
            self._version, self._since_s = link.version, time.monotonic()
        health = {name: attrgetter(path)(link) for name, path in LINK_HEALTH.items()}
        return {
            "robot": self._name,
            "episodes": self.episodes,
            "successes": self.successes,
            "discarded": self.discarded,
            "person_s": self.person_s,
            "policy_version": self._version,
            "policy_age_s": time.monotonic() - self._since_s,
            "lost_replies": self._arm.lost_replies if self._arm else 0,
            "motors": self._arm.motors if self._arm else {},
            "link": health,
        }
