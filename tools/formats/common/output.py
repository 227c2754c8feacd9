"""What a conversion writes: it appears whole or not at all, and is counted on its way."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent import files
from agent.spec import Episode, SpecError, UserError, plural

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a disk, a quota, a limit on files' size


class DiskError(Exception):
    """The disk did not take what was written; the message names the place. No fault of the command line."""


class Tally:
    """Passes episodes on, checked, and remembers what a report needs."""

    def __init__(self, source: Path, episodes: Iterable[Episode]) -> None:
        self._source, self._episodes = source, episodes
        self.lengths: list[int] = []
        self.successes = 0
        self.keys: dict[str, str] = {}

    def __iter__(self) -> Iterator[Episode]:
        first = None
        for number, episode in enumerate(self._episodes):
            try:
                episode.check(episode.spec)
            except SpecError as error:
                raise UserError(f"{self._source}: episode {number}: {error}") from None
            first = first or episode.spec
            if differences := first.differences(episode.spec):
                raise UserError(f"{self._source}: episode {number} differs from episode 0: {'; '.join(differences)}")
            self.keys = {key: f"{key} {'x'.join(map(str, first.shape(key)))}" for key in first.keys}
            self.lengths.append(len(episode))
            self.successes += episode.succeeded
            yield episode

    def __str__(self) -> str:
        steps = f"{sum(self.lengths):,} steps ({min(self.lengths)} to {max(self.lengths)} an episode)"
        found = f"{plural(len(self.lengths), 'episode')}, {steps}, {self.successes} succeed"
        return f"{found}\nobservations: {', '.join(self.keys.values())}"


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A path beside `out` to write to; it takes `out`'s name once all is written. Raises DiskError for a full disk."""
    if out.exists():
        raise UserError(f"--out {out}: already exists; name one that is not")
    try:
        for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):  # of a conversion that was killed
            if _ended(left.suffixes[-2][1:]):
                files.remove(left)
        with files.appearing(out) as aside:
            yield aside
    except OSError as error:
        kind = DiskError if error.errno in FULL else UserError
        raise kind(f"{out}: {error.strerror or error}; nothing was written") from None


def _ended(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return True
    except OSError:
        pass
    return False
