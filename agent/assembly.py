"""Steps in, whole episodes out, each exactly once, whatever the order of losses, repetitions and deaths between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent.spec import Episode, Transition
from agent.wire import EpisodeKey


@dataclass
class Open:
    """An episode that has not ended yet."""

    steps: list[Transition] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


class Assembly:
    """stored: (robot, boot, number) of the episodes on disk. unacknowledged: ended, not on disk -> route of its robot.

    steps: received so far, each counted once, those of open episodes too.
    """

    def __init__(self, stored: Iterable[EpisodeKey]) -> None:
        self.stored = {(str(robot), str(boot), int(number)) for robot, boot, number in stored}
        self.unacknowledged: dict[EpisodeKey, bytes] = {}
        self.open: dict[EpisodeKey, Open] = {}
        self.steps = 0
        self._ended: list[Episode] = []

    def received(self, key: EpisodeKey) -> int:
        """Steps there are of an episode that has not ended: the number of the one to come next."""
        return len(self.open[key].steps) if key in self.open else 0

    def add(self, key: EpisodeKey, step: int, transition: Transition, meta: dict[str, Any], route: bytes) -> None:
        """The next step of an open episode, or the one that ends it.

        That one holds from its number on: a robot that is cut short ends a step sent before.
        """
        self.steps += step == self.received(key)
        episode = self.open.setdefault(key, Open())
        episode.steps[step:] = [transition]
        episode.meta.update(meta)
        if transition.last:
            self._end(key, route)

    def cut_short(self, name: str, boot: str, held: set[tuple[Any, ...]], route: bytes) -> None:
        """End what robot `name` began in a boot before `boot` (it was killed) and has not `held` in its spool.

        The newest step has no observation after it: its own becomes the final one, and it is given up.
        """
        for key in [key for key in self.open if key[0] == name and key[1] != boot and key not in held]:
            steps = self.open[key].steps
            newest = steps.pop()
            self.steps -= 1
            if steps:
                steps[-1] = dataclasses.replace(steps[-1], truncated=True, final_observation=newest.observation)
                self._end(key, route)
            else:
                del self.open[key]

    def _end(self, key: EpisodeKey, route: bytes) -> None:
        episode = self.open.pop(key)
        meta = {**episode.meta, "robot": key[0], "boot": key[1], "number": key[2]}
        self._ended.append(Episode.from_transitions(episode.steps, meta))
        self.unacknowledged[key] = route

    def take(self) -> list[Episode]:
        """The episodes that have ended since the last call, in order of ending."""
        ended, self._ended = self._ended, []
        return ended

    def acknowledge(self, episode: Episode) -> tuple[EpisodeKey, bytes | None]:
        """Note that `episode` is on disk; returns its key and the route of the robot that still holds it."""
        key = (episode.meta["robot"], episode.meta["boot"], episode.meta["number"])
        self.stored.add(key)
        return key, self.unacknowledged.pop(key, None)
