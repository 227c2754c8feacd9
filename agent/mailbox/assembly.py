"""Steps in, whole episodes out, each exactly once, whatever the order of losses, repetitions and deaths between."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.spec import Episode, Transition
from agent.verdict import with_recorded_verdict
from agent.wire.bad_messages import shown, unexpected
from agent.wire.messages import EpisodeKey, episode_key, without_meta
from agent.wire.untrusted import WireError

MAX_OPEN = 1000  # episodes under way
MAX_PENDING = 200  # episodes of one robot that have ended and are not on disk: then it begins no other
MAX_PENDING_BYTES = 1 << 30
MAX_OPEN_BYTES = 4 << 30  # of them all; one may take half
STEP_BYTES = 10_000  # of a step, besides its arrays; libzmq keeps small messages in blocks of 8 kB


@dataclass
class Open:
    """An episode that has not ended yet."""

    steps: list[Transition] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0


@dataclass
class Ended:
    """An episode that is not on disk yet. route: of the robot that holds it."""

    route: bytes
    steps: int
    bytes: int = 0


class Assembly:
    """Puts steps together to episodes, and knows which episodes have been put together.

    stored: episodes on disk -> how many steps of each. unacknowledged: episodes that ended and are not on disk.
    steps: received so far, each counted once, those of open episodes too. open: episodes under way, the one that went
    on last comes last. When they are too many, or too large, the one that has rested for longest is let go: its robot
    still has it, and is asked for all of it again.

    What `cut_short` ends may go on: its robot was away, not dead. Once the robot has more steps of an episode than are
    here, the episode is put together again from its first step, and ends a second time, longer.
    """

    def __init__(self, stored: Mapping[EpisodeKey, int]) -> None:
        self.stored = dict(stored)
        self.unacknowledged: dict[EpisodeKey, Ended] = {}
        self.open: dict[EpisodeKey, Open] = {}
        self.steps = 0
        self.open_bytes = 0  # of open episodes
        self._ended: list[Episode] = []

    def length(self, key: EpisodeKey) -> int:
        """Steps of an episode that has ended, of its longest version; 0 when it has not."""
        pending = self.unacknowledged.get(key)
        return max(self.stored.get(key, 0), pending.steps if pending else 0)

    def received(self, key: EpisodeKey) -> int:
        """Steps there are of an open episode: the number of the one to come next."""
        return len(self.open[key].steps) if key in self.open else 0

    def is_full(self, robot: str) -> bool:
        """Whether so much of `robot` waits for the disk that no more of its episodes should begin."""
        waiting = [ended.bytes for key, ended in self.unacknowledged.items() if key[0] == robot]
        return len(waiting) >= MAX_PENDING or sum(waiting) >= MAX_PENDING_BYTES

    def reopen(self, key: EpisodeKey) -> None:
        """Put an episode together again that was cut short: there is more of it."""
        self.open.setdefault(key, Open())

    def add(self, key: EpisodeKey, step: int, transition: Transition, meta: dict[str, Any], route: bytes) -> None:
        """The next step of an open episode, or the one that ends it.

        That one holds from its number on: a robot that is cut short ends a step sent before.
        """
        observations = [transition.observation, transition.final_observation or {}]
        size = STEP_BYTES + sum(array.nbytes for seen in observations for array in seen.values())
        episode = self.open.get(key) or Open()
        if episode.bytes + size > MAX_OPEN_BYTES // 2:
            raise WireError(f"episode {key} is too large: {step} steps, and no end")
        self.steps += step == len(episode.steps) and step >= self.length(key)
        self.open.pop(key, None)
        self.open[key] = episode
        episode.steps[step:] = [transition]
        episode.bytes += size
        self.open_bytes += size
        if step == 0 or transition.last:
            episode.meta.update(meta)
        if transition.last:
            self._end(key, route)
        while len(self.open) > MAX_OPEN or self.open_bytes > MAX_OPEN_BYTES:
            oldest = next(iter(self.open))
            self.steps -= self._new(oldest, len(self._pop(oldest).steps))

    def _new(self, key: EpisodeKey, steps: int) -> int:
        """How many of the first `steps` were not here when the episode ended before."""
        return max(0, steps - self.length(key))

    def _pop(self, key: EpisodeKey) -> Open:
        episode = self.open.pop(key)
        self.open_bytes -= episode.bytes
        return episode

    def cut_short(self, name: str, boot: str, held: set[tuple[Any, ...]], route: bytes) -> None:
        """End what robot `name` began in a boot before `boot` (it was killed, or is away) and has not `held`.

        The newest step has no observation after it: its own becomes the final one, and it is given up. Should that
        robot be back with its episode, this version of it is replaced.
        """
        for key in [key for key in self.open if key[0] == name and key[1] != boot and key not in held]:
            steps = self.open[key].steps
            newest = steps.pop() if steps else None
            self.steps -= self._new(key, len(steps) + 1) - self._new(key, len(steps)) if newest else 0
            if newest and steps:
                steps[-1] = dataclasses.replace(steps[-1], truncated=True, final_observation=newest.observation)
                self._end(key, route)
            else:
                self._pop(key)

    def _end(self, key: EpisodeKey, route: bytes) -> None:
        episode = self._pop(key)
        if len(episode.steps) <= self.length(key):
            return  # nothing new
        meta = {**episode.meta, "robot": key[0], "boot": key[1], "number": key[2]}
        ended = Episode.from_transitions(episode.steps, meta)
        try:
            ended = with_recorded_verdict(ended)
        except Exception as error:  # a verdict in the meta that contradicts the steps
            ended = dataclasses.replace(ended, meta=without_meta(key, shown(unexpected(error))))
        self._ended.append(ended)
        self.unacknowledged[key] = Ended(route, len(episode.steps), episode.bytes)

    def take(self) -> list[Episode]:
        """The episodes that have ended since the last call, in order of ending."""
        ended, self._ended = self._ended, []
        return ended

    def acknowledge(self, episode: Episode) -> bytes | None:
        """Note that `episode` is on disk; returns the route of the robot that may still hold it."""
        key, steps = episode_key(episode.meta), len(episode)
        self.stored[key] = max(steps, self.stored.get(key, 0))
        pending = self.unacknowledged.get(key)
        if pending and pending.steps <= steps:
            del self.unacknowledged[key]
        return pending.route if pending else None
