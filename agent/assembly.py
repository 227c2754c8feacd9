"""Steps in, whole episodes out, each exactly once, whatever the order of losses, repetitions and deaths between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent.spec import Episode, Transition
from agent.verdict import settled
from agent.wire import EpisodeKey, WireError

MAX_OPEN = 1000  # episodes under way
MAX_OPEN_BYTES = 4 << 30  # of them all; one may take half
STEP_BYTES = 10_000  # of a step, besides its arrays; libzmq keeps small messages in blocks of 8 kB


@dataclass
class Open:
    """An episode that has not ended yet."""

    steps: list[Transition] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0


class Assembly:
    """stored: (robot, boot, number) of the episodes on disk. unacknowledged: ended, not on disk -> route of its robot.

    steps: received so far, each counted once, those of open episodes too. open: those, the one that went on last comes
    last. When they are too many, or too large, the one that has rested for longest is let go: its robot still has it,
    and is asked for all of it again.
    """

    def __init__(self, stored: Iterable[EpisodeKey]) -> None:
        self.stored = {(str(robot), str(boot), int(number)) for robot, boot, number in stored}
        self.unacknowledged: dict[EpisodeKey, bytes] = {}
        self.open: dict[EpisodeKey, Open] = {}
        self.steps = 0
        self._bytes = 0  # of open episodes
        self._ended: list[Episode] = []

    def received(self, key: EpisodeKey) -> int:
        """Steps there are of an episode that has not ended: the number of the one to come next."""
        return len(self.open[key].steps) if key in self.open else 0

    def add(self, key: EpisodeKey, step: int, transition: Transition, meta: dict[str, Any], route: bytes) -> None:
        """The next step of an open episode, or the one that ends it.

        That one holds from its number on: a robot that is cut short ends a step sent before.
        """
        observations = [transition.observation, transition.final_observation or {}]
        size = STEP_BYTES + sum(array.nbytes for seen in observations for array in seen.values())
        episode = self.open.get(key) or Open()
        if episode.bytes + size > MAX_OPEN_BYTES // 2:
            raise WireError(f"episode {key} is too large: {step} steps, and no end")
        self.steps += step == len(episode.steps)
        self.open.pop(key, None)
        self.open[key] = episode
        episode.steps[step:] = [transition]
        episode.bytes += size
        self._bytes += size
        if step == 0 or transition.last:
            episode.meta.update(meta)
        if transition.last:
            self._end(key, route)
        while len(self.open) > MAX_OPEN or self._bytes > MAX_OPEN_BYTES:
            oldest = next(iter(self.open))
            self.steps -= len(self._pop(oldest).steps)

    def _pop(self, key: EpisodeKey) -> Open:
        episode = self.open.pop(key)
        self._bytes -= episode.bytes
        return episode

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
                self._pop(key)

    def _end(self, key: EpisodeKey, route: bytes) -> None:
        episode = self._pop(key)
        meta = {**episode.meta, "robot": key[0], "boot": key[1], "number": key[2]}
        self._ended.append(settled(Episode.from_transitions(episode.steps, meta)))
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
