"""Bad messages: what came of them, for people."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from pathlib import Path

MAX_SENDERS = 1000  # counted by name

log = logging.getLogger(__name__)


def shown(text: object) -> str:
    """What a stranger wrote, as part of a line: 500 characters at most, and none that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:500])


def unexpected(error: Exception) -> str:
    """What an error that nobody foresaw was, and where, in one line."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {' '.join(str(error).split())}"


class Faults:
    """Counts them by kind (counts) and by sender (senders), and logs them, one line a second at most."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.senders: Counter[str] = Counter()
        self._next_line_s, self._unlogged = 0.0, 0

    def note(self, kind: str, sender: str, error: object) -> None:
        self.counts[kind] += 1
        self.senders[sender if sender in self.senders or len(self.senders) < MAX_SENDERS else "others"] += 1
        if time.monotonic() < self._next_line_s:
            self._unlogged += 1
            return
        more = f" (and {self._unlogged} more bad messages since the last such line)" if self._unlogged else ""
        what = "disconnected" if kind == "disconnected" else "dropped a bad message from"
        log.warning("%s %s: %s%s", what, sender, shown(error), more)
        self._next_line_s, self._unlogged = time.monotonic() + 1.0, 0
