"""The replies that a servo bus loses: how a driver reports them, how they are bridged, counted and logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOST = (ConnectionError, TimeoutError)  # what a driver raises for a reply that was lost, late or corrupted
COAST_S = 0.1  # for how long they are bridged, where nothing else is asked for
CONNECT_TRIES = 3  # connecting takes many replies
RETRY_S = 0.002  # between two tries of a driver that fails at once
REPORT_S = 60.0  # between two lines

log = logging.getLogger(__name__)


class Bridge:
    """Calls of one kind. lost: how many replies were.

    Each kind has a bridge of its own: many buses do not answer writes, so one that succeeds does not show that reads
    do, and the reads that are answered do not show that the motors get their setpoints.
    """

    def __init__(self, coast_s: float) -> None:
        self._coast_s, self.lost = coast_s, 0
        self._since_s: float | None = None  # when the first of those in a row was lost

    def reset(self) -> None:
        """The next loss is the first of a new row."""
        self._since_s = None

    def call(self, call: Callable[[], T], instead: Callable[[], T | None] = lambda: None) -> T:
        """What `call` returns; when its reply is lost, `instead()`, or, where that is None, what the next try does.

        Raises what `call` raises: one of LOST only when none has been answered for `coast_s`, and the last was a retry
        (between two calls there may be any time, which says nothing of the bus).
        """
        retried = not self._coast_s
        while True:
            try:
                answer = call()
            except LOST:
                now_s = time.monotonic()
                self.lost += 1
                since_s = self._since_s = now_s if self._since_s is None else self._since_s
                over = now_s - since_s >= self._coast_s
                if over and retried:
                    self._since_s = None
                    raise
                if not over and (other := instead()) is not None:
                    return other
                retried = True
                time.sleep(RETRY_S)
            else:
                self._since_s = None
                return answer


class LostReplies:
    """Counts since the start. what: whose they are, "the arm's bus"."""

    def __init__(self, what: str) -> None:
        self._what, self._reported, self._reported_s = what, 0, -REPORT_S

    def update(self, count: int) -> int:
        """Log `count` when there are more than were logged. Returns it."""
        if count != self._reported and time.monotonic() - self._reported_s >= REPORT_S:
            log.warning("%s: lost replies: %d, since the start: %d", self._what, count - self._reported, count)
            self._reported, self._reported_s = count, time.monotonic()
        return count
