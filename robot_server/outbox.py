"""Episodes on their way to the learner, in memory and in the spool folder."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.spec import Episode, Spec, Transition, UserError
from agent.wire import EpisodeKey, episode_name, pack_step, read_step, unpack

log = logging.getLogger(__name__)


@dataclass
class Outgoing:
    """An episode on its way. steps: packed. sent: steps given to the socket. file: its file in the spool, if any."""

    key: EpisodeKey
    meta: dict[str, Any]
    steps: list[list[bytes]] = field(default_factory=list)
    sent: int = 0
    ended: bool = False
    file: Path | None = None

    def append(self, transition: Transition) -> None:
        frames = pack_step(self.key, len(self.steps), transition, {} if self.steps else self.meta)
        self.steps.append([bytes(frame) for frame in frames])  # a copy: the caller may reuse its arrays
        self.ended = transition.last

    def pop(self) -> Transition:
        """Take the newest step back. If it has been sent, what comes instead must end the episode: it replaces it."""
        transition = read_step(unpack(self.steps.pop()))
        self.sent = min(self.sent, len(self.steps))
        return transition

    def episode(self) -> Episode:
        robot, boot, number = self.key
        meta = {**self.meta, "robot": robot, "boot": boot, "number": number}
        return Episode.from_transitions((read_step(unpack(frames)) for frames in self.steps), meta)


def load_spool(folder: Path, spec: Spec) -> list[Outgoing]:
    """The episodes in `folder`, oldest first. One that is damaged or does not fit stays where it is, and is named.

    Makes the folder. Raises UserError when nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"robot.spool {folder}: cannot be written: {error.strerror}") from None
    from agent.episode_file import SUFFIX, read_episode  # h5py, for those who have something to read

    found = []
    for path in sorted(folder.glob(f"[!.]*{SUFFIX}"), key=lambda path: path.stat().st_mtime):
        try:
            episode = read_episode(path)
            episode.check(spec)
            meta = dict(episode.meta)
            outgoing = Outgoing((meta.pop("robot"), meta.pop("boot"), meta.pop("number")), meta, file=path)
            for transition in episode.transitions():
                outgoing.append(transition)
            found.append(outgoing)
        except (UserError, KeyError, TypeError, ValueError) as error:
            log.warning("left in the spool: %s: %s", path, error)
    return found


def write_spool(folder: Path, outbox: Iterable[Outgoing]) -> None:
    """Write each episode that is not in `folder` yet. A disk that fails is reported: the learner may still get them."""
    for outgoing in outbox:
        if outgoing.file is None:
            from agent.episode_file import SUFFIX, write_episode

            episode = outgoing.episode()
            path = folder / f"{episode_name(episode.meta)}{SUFFIX}"
            try:
                write_episode(path, episode)
                outgoing.file = path
            except OSError as error:
                log.error("could not keep an episode in the spool: %s: %s", path, error)


def forget(outgoing: Outgoing) -> None:
    """Remove an acknowledged episode from the spool."""
    try:
        if outgoing.file:
            outgoing.file.unlink(missing_ok=True)
    except OSError as error:
        log.error("delivered, but still in the spool: %s: %s", outgoing.file, error)
