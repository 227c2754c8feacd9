"""One episode on its way to the learner."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.data.episode_file import read_steps
from agent.data.frames import CHUNK_FRAMES
from agent.spec import Episode, Observation, Transition
from agent.verdict import VERDICTS
from agent.wire.messages import EpisodeKey, pack_step, read_step, unpack
from agent.wire.receipt import LOCAL
from robot_server.journal import Journal


@dataclass
class Outgoing:
    """An episode on its way. sent: steps given to the socket. file: its file in the spool, once it is there.

    length: its steps. size: bytes of it in memory. other_run: it is of another run than the learner's.
    """

    key: EpisodeKey
    meta: dict[str, Any]
    sent: int = 0
    ended: bool = False
    file: Path | None = None
    length: int = 0
    size: int = 0
    other_run: bool = False
    journal: Journal | None = field(default=None, repr=False)
    _steps: list[list[bytes]] = field(default_factory=list, repr=False)
    _block: tuple[int, list[list[bytes]]] = field(default=(0, []), repr=False)

    def append(self, transition: Transition) -> list[bytes]:
        """Returns its frames, copied: the caller may reuse its arrays."""
        frames = self._pack(self.length, transition)
        self._steps.append(frames)
        self.length += 1
        self.size += sum(map(len, frames))
        self.ended = transition.last
        return frames

    def pop(self) -> Transition:
        """Take the newest step back. If it has been sent, what comes instead must end the episode: it replaces it."""
        frames = self._steps.pop()
        self.length -= 1
        self.size -= sum(map(len, frames))
        self.sent = min(self.sent, self.length)
        return read_step(unpack(frames))

    def frames(self, step: int) -> list[bytes]:
        """Of a step, from memory or from the file. Raises EpisodeFileError."""
        if self._steps:
            return self._steps[step]
        first, block = self._block
        if not first <= step < first + len(block):
            assert self.file is not None, "neither in memory nor in a file"
            first = step - step % CHUNK_FRAMES  # whole chunks: some milliseconds, within a control step
            block = [self._pack(first + n, each) for n, each in enumerate(read_steps(self.file, first, CHUNK_FRAMES))]
            self._block = first, block
        return block[step - first]

    def message(self, step: int) -> list[bytes]:
        """A step as it is sent, without what its run shares with this robot alone. Raises EpisodeFileError."""
        frames = self.frames(step)
        last = self.ended and step == self.length - 1
        if not (step == 0 or last) or not (told := unpack(frames)).fields["meta"]:  # see _pack
            return frames
        meta = {name: value for name, value in self.meta.items() if name not in LOCAL}
        return pack_step(self.key, step, read_step(told), meta)

    def release(self) -> None:
        """From here on it is in its file only."""
        self._steps, self.size = [], 0

    def episode(self) -> Episode:
        """As it is streamed: a verdict is in its meta only."""
        robot, boot, number = self.key
        meta = {**self.meta, "robot": robot, "boot": boot, "number": number}
        return Episode.from_transitions((read_step(unpack(frames)) for frames in self._steps), meta)

    def cut(self, observation: Observation | None, ending: str = "") -> bool:
        """End it: its last step becomes truncated, `observation` came after it. False when no step is left.

        Without an observation the last step is dropped, and its own is used. ending: a person's; a verdict goes to the
        meta and changes no step here: whoever puts the episode together applies it (agent.verdict).
        """
        if observation is None and self.length:
            observation = self.pop().observation
        if observation is None or not self.length:
            return False
        last = dataclasses.replace(self.pop(), final_observation=observation, truncated=True)
        if ending in VERDICTS:
            self.meta["marked"] = ending
        self.append(last)
        return True

    def _pack(self, step: int, transition: Transition) -> list[bytes]:
        told = step == 0 or (transition.last and "marked" in self.meta)
        return pack_step(self.key, step, transition, self.meta if told else {})
