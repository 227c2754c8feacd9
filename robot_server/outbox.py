"""Episodes on their way to the learner: in memory, and on this machine's disk, in the spool folder.

The running episode is in memory and in a journal; an ended one becomes an episode file, and goes from memory when
there are many. What a robot server leaves in the spool, however it ended, is sent under its own boot by the next one
of the same name.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.data.episode_file import SUFFIX, write_episode
from agent.files import check_writable, make_folder, move
from agent.spec import Observation, Spec, SpecError, Transition, UserError
from agent.wire.bad_messages import shown
from agent.wire.messages import SEPARATOR, EpisodeKey, episode_name
from agent.wire.receipt import is_receipt
from agent.wire.untrusted import WireError
from robot_server import spool
from robot_server.journal import Journals
from robot_server.outgoing import Outgoing

MEMORY_BYTES = 256 << 20  # of ended episodes that are in the spool, too
EPISODE_BYTES = 2 << 30  # a longer episode is cut short

log = logging.getLogger(__name__)


class Outbox:
    """Every episode of `robot` that the learner has not acknowledged, oldest first; takes in what `folder` has of it.

    limit_bytes: `full` from there on. episodes: by their identity. running: the one that has not ended, or None.
    Raises UserError when `folder` cannot be written.
    """

    def __init__(self, folder: Path, spec: Spec, robot: str, boot: str, limit_bytes: float = math.inf) -> None:
        self.folder, self.spec, self.limit_bytes = folder, spec, limit_bytes
        self._identity = robot, boot
        self._number = -1
        self.running: Outgoing | None = None
        self._longest = 0  # bytes of an episode
        self._spool_bytes = 0  # bytes in the folder
        self._failed = False  # the last attempt to write there
        self._journals = Journals(folder, SEPARATOR.join(self._identity))
        try:
            make_folder(folder)
            check_writable(folder)
        except OSError as error:
            raise UserError(f"robot.spool {folder}: cannot be written: {error.strerror}") from None
        self.episodes = {out.key: out for out in spool.left_behind(folder, spec, robot)}
        self.save()

    def __len__(self) -> int:
        return len(self.deliverable)

    @property
    def deliverable(self) -> list[Outgoing]:
        """Those for the learner's run, oldest first."""
        return [episode for episode in self.episodes.values() if not episode.other_run]

    @property
    def backlog(self) -> int:
        """Steps that have not been sent yet, of ended episodes and of the running one."""
        return sum(episode.length - episode.sent for episode in self.deliverable)

    @property
    def unsaved(self) -> int:
        """Episodes that are in memory only: neither acknowledged nor in the spool."""
        return sum(episode.file is None for episode in self.episodes.values())

    @property
    def full(self) -> str:
        """Why the robot should make no more steps, in words: they could be lost. Empty: it may."""
        if self._failed and any(out.ended and out.file is None for out in self.episodes.values()):
            return f"{self.folder} cannot be written"
        running = self.running.size if self.running else 0
        if running >= EPISODE_BYTES:
            return f"the episode has {running / 1e9:.1f} GB"
        ahead = running if self.running else self._longest if self._spool_bytes else 0
        if self._spool_bytes + ahead < self.limit_bytes:
            return ""
        return f"{self.folder} holds {self._spool_bytes / 1e9:.2f} GB that no learner has taken yet (robot.spool_gb)"

    def begin(self, meta: Mapping[str, Any]) -> int:
        """The next episode of this boot; its number."""
        assert self.running is None, "the episode before has not ended"
        self._number += 1
        self.running = Outgoing((*self._identity, self._number), dict(meta))
        return self._number

    def append(self, transition: Transition) -> None:
        """The next step of the running episode. Raises SpecError if it does not fit."""
        episode = self.running
        assert episode is not None, "begin() comes first"
        transition.check(self.spec)
        self._note(episode, episode.append(transition))
        self.episodes[episode.key] = episode
        self.running = None if episode.ended else episode

    def cut(self, observation: Observation | None, ending: str = "") -> None:
        """End the running episode, if there is one; `observation`, if it fits the spec, came after its last step."""
        episode, self.running = self.running, None
        if episode is None:
            return
        try:
            self.spec.check_observation(observation or {})
        except SpecError:
            observation = None
        if episode.cut(observation, ending):
            self._note(episode, episode.frames(episode.length - 1))
        else:
            self.remove(episode.key)

    def save(self) -> None:
        """Write what has ended to the spool. Waits for the disk; one that fails is reported, and tried again."""
        failed_before, self._failed = self._failed, False
        in_memory = 0  # bytes
        for episode in self.episodes.values():
            if not episode.ended:
                continue
            self._longest = max(self._longest, episode.size)
            if episode.file is None:
                path = self.folder / f"{self._name(episode.key)}{SUFFIX}"
                try:
                    write_episode(path, episode.episode())
                except OSError as error:
                    if not (failed_before or self._failed):
                        log.error("could not save an episode in the spool: %s: %s", path, error.strerror or error)
                    self._failed = True
                    continue
                episode.file = path
                self._retire_journal(episode)
                self._longest = max(self._longest, path.stat().st_size)
            in_memory += episode.size
            if in_memory > MEMORY_BYTES:
                episode.release()
        self._measure()

    def acknowledge(self, key: EpisodeKey, steps: int, receipt: str) -> None:
        """Take the learner's ACK: `steps` of the episode are on its disk. Raises WireError when it cannot be right."""
        episode = self.episodes.get(key)
        if episode is None:
            return
        secret = episode.meta.get("secret")
        if episode.other_run or (secret and not is_receipt(receipt, secret, key[2], steps)):
            raise WireError(f"ACK of {key} from another run")
        if steps < episode.length:  # cut short there, while this robot was disconnected
            episode.sent = min(episode.sent, steps)  # the learner asks for the rest that it needs
        elif not episode.ended:
            raise WireError(f"ACK of {key}, which has not ended")
        else:
            self.deliver(key)

    def resend(self, key: EpisodeKey, step: int) -> None:
        """Send the episode again from `step` on."""
        if episode := self.episodes.get(key):
            episode.sent = min(episode.sent, step)

    def deliver(self, key: EpisodeKey) -> None:
        """It is on the learner's disk: delete it.

        The file of an episode that has no secret of its run (it began before this robot had heard of any learner, or is
        of an earlier release) is kept in delivered/: nothing proves whose learner it is that has it.
        """
        episode = self.episodes[key]
        if not episode.meta.get("secret"):
            place = self.folder / "delivered" / f"{self._name(key)}{SUFFIX}"
            try:
                if episode.file is None:
                    write_episode(place, episode.episode())
                else:
                    size = episode.file.stat().st_size
                    move(episode.file, place)
                    self._spool_bytes -= size
            except OSError as error:
                log.error("delivered, but still in the spool: %s: %s", place, error)
                return
        self.remove(key)

    def remove(self, key: EpisodeKey) -> None:
        """It is not needed here any more, or has no steps."""
        episode = self.episodes.pop(key, None)
        if episode is None:
            return
        self._retire_journal(episode)
        try:
            if episode.file:
                size = episode.file.stat().st_size
                episode.file.unlink()
                self._spool_bytes -= size
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("delivered, but still in the spool: %s: %s", episode.file, error)

    def close(self) -> None:
        """Leave nothing in the folder that no later robot server needs."""
        self._journals.close()

    def use_run(self, run: str) -> None:
        """Hold back episodes of other runs, the running one too: they are for their own learner.

        Those of no run are this one's from here on.
        """
        for out in {**self.episodes, **({self.running.key: self.running} if self.running else {})}.values():
            out.meta["run"] = out.meta.get("run") or run
            before, out.other_run = out.other_run, out.meta["run"] != run
            if out.other_run and not before:
                name = out.file.name if out.file else self._name(out.key)
                mine, other = shown(out.meta["run"]), shown(run)  # as the network named them
                log.warning("kept in %s for run %s, not sent to run %s: %s", self.folder, mine, other, name)

    def move_damaged(self, episode: Outgoing, error: object) -> None:
        """Its file turned out to be damaged."""
        del self.episodes[episode.key]
        if episode.file and episode.file.exists():
            spool.move_damaged(episode.file, error)
        else:
            log.error("lost from the spool: %s", error)

    def _note(self, episode: Outgoing, frames: list[bytes]) -> None:
        """Into the journal. A disk that fails costs the journal: the learner, and the next save(), may still get it."""
        try:
            if episode.journal is None and episode.length == 1:
                episode.journal = self._journals.open(self._name(episode.key))
            if episode.journal:
                episode.journal.append(frames)
        except OSError as error:
            log.error("no journal of the running episode: %s: %s", self.folder, error.strerror)
            if episode.journal:
                episode.journal.close(remove=True)
            episode.journal = None

    def _retire_journal(self, episode: Outgoing) -> None:
        if episode.journal:
            self._journals.retire(episode.journal)
        episode.journal = None

    def _measure(self) -> None:
        sizes = 0
        with contextlib.suppress(OSError):
            for path in self.folder.glob("[!.]*"):  # without the files that wait for the next journals
                with contextlib.suppress(FileNotFoundError):  # another robot server's
                    sizes += path.stat().st_size
        self._spool_bytes = sizes

    @staticmethod
    def _name(key: EpisodeKey) -> str:
        return episode_name(dict(zip(("robot", "boot", "number"), key, strict=True)))
