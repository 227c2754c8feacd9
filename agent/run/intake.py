"""From the mailbox to the disk and the replay: what happens to an episode that has arrived.

Files are compressed, written and synced by a thread, while the learner makes its updates: for two cameras of 128 x 128
that takes longer than many of them.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from agent.data.episode_store import Store, Writing
from agent.mailbox.arrivals import Arrivals
from agent.mailbox.mailbox import Mailbox
from agent.run.log import RunLog
from agent.spec import Episode, plural
from agent.wire.messages import episode_key, episode_name

TAKE_S = 0.1  # then an update is made, whatever else has arrived
MAX_WRITING = 16  # episodes given to the thread at a time: the rest stays with the robots' turns
RETRY_S = 5.0  # between two attempts to write episodes to a disk that is full

log = logging.getLogger(__name__)


class Intake:
    """Moves episodes from `mailbox` to `store`, robots in turn, and reports them to `run_log`.

    robot_gb: how much of the disk the episodes of one robot may take. warn: reports a line to people and the log.
    """

    def __init__(
        self, mailbox: Mailbox, store: Store, run_log: RunLog, robot_gb: float, warn: Callable[[str], None]
    ) -> None:
        self._mailbox, self._store, self._log, self._robot_gb, self._warn = mailbox, store, run_log, robot_gb, warn
        self._arrived = Arrivals()
        self._writing: deque[Writing] = deque()  # in the order in which they are written
        self._retry_s = 0.0  # time.monotonic() before which the disk is left alone
        self._before = store.env_steps  # steps from before the run was resumed, less those quarantined since
        for robot in store.bytes:
            self._limit_share(robot)

    @property
    def seen(self) -> int:
        """Env steps received, those of unfinished episodes included; the store's count only finished ones."""
        return self._before + self._mailbox.steps

    def take_in(self, updates: int, version: int) -> None:
        """Have what has arrived written, and take in what is on disk by now, for TAKE_S; the rest waits.

        So do episodes that the disk has no place for, until it has. updates, version: for the log.
        """
        self._arrived.add(self._mailbox.drain())
        self._start()
        end_s = time.monotonic() + TAKE_S
        while self._writing and self._writing[0].done and time.monotonic() < end_s:
            self._take_first(updates, version)
        self._start()

    def finish(self, updates: int, version: int) -> None:
        """Wait for what is being written, and take it in."""
        while self._writing:
            self._take_first(updates, version)

    def _start(self) -> None:
        while self._arrived and len(self._writing) < MAX_WRITING and self._retry_s <= time.monotonic():
            episode = self._arrived.next
            if any(writing.key == episode_key(episode.meta) for writing in self._writing):
                return  # a longer version: when the shorter one is on disk
            self._writing.append(self._store.start(episode))
            self._arrived.pop()

    def _take_first(self, updates: int, version: int) -> None:
        """Wait for the first of those that are being written, and take it in, or put it back if the disk is full."""
        writing = self._writing.popleft()
        try:
            self.take(writing, updates, version)
        except OSError as error:
            self._retry_s = time.monotonic() + RETRY_S
            stopped = [each for each in self._writing if each.cancel()]  # one may be under way: it is taken in its turn
            self._writing = deque(each for each in self._writing if each not in stopped)
            for each in reversed([writing, *stopped]):
                self._arrived.put_back(each.episode)
            waiting = plural(len(self._arrived), "episode")
            log.error("%s: cannot write: %s; waiting: %s", self._store.folder, error.strerror, waiting)
        else:
            self._limit_share(writing.episode.meta["robot"])

    def take(self, writing: Writing, updates: int, version: int) -> None:
        """An episode that is on disk: into the replay, acknowledged, logged, in this order. Raises OSError."""
        episode = writing.episode
        shorter, used = self._store.stored(episode_key(episode.meta)), self._store.env_steps
        taken = self._store.finish(writing)
        self._mailbox.acknowledge(episode)
        counted = max(0, len(episode) - shorter)  # by the mailbox, for this version
        self._before += self._store.env_steps - used - counted
        if shorter:
            name = episode_name(episode.meta)
            self._log.say(f"episode {name}: its {plural(len(episode), 'step')} replace the {shorter} that came first")
        if taken:
            self._report(episode, "replaced" if shorter else "episode", updates, version)

    def _report(self, episode: Episode, kind: str, updates: int, version: int) -> None:
        self._log.write(
            kind,
            self._store.env_steps,
            updates,
            robot=episode.meta["robot"],
            number=episode.meta["number"],
            success=int(episode.succeeded),
            length=len(episode),
            interventions=int(episode.interventions.sum()),
            policy_version=int(episode.policy_versions[-1]),
            staleness=version - int(episode.policy_versions[-1]),
            observation_age_s=float(episode.observation_ages_s.max()),
            action_latency_s=float(episode.action_latencies_s.max()),
            **{"return": episode.episode_return},
        )

    def _limit_share(self, robot: str) -> None:
        """Take no more episodes of `robot` when it has had its share of the disk."""
        if robot not in self._mailbox.over_share and self._store.bytes[robot] > self._robot_gb * 1e9:
            self._mailbox.over_share.add(robot)
            share = f"{self._robot_gb:g} GB (learner.robot_gb)"
            self._warn(f"robot '{robot}' has filled its {share}: its next episodes stay with it")
