"""Send the steps of the outbox, no faster than the learner reads them: with more under way, it would hang up."""

from __future__ import annotations

import statistics
import time
from collections import deque

from agent.data.episode_file import EpisodeFileError
from agent.wire.messages import wire_bytes
from agent.wire.untrusted import WireError
from robot_server.connection import Connection
from robot_server.outbox import Outbox


class Sender:
    """Sends steps of `outbox`; `limit_bytes` of them at most are under way on `connection`.

    The learner answers each PULL by a PONG, and reads in order: a PONG shows that it has read what was sent before that
    PULL.
    """

    def __init__(self, connection: Connection, outbox: Outbox, limit_bytes: int) -> None:
        self._connection, self._outbox, self._limit = connection, outbox, limit_bytes
        self._sent = self._read = 0  # bytes: given to the socket, and read by the learner
        self._pulls: deque[tuple[float, int]] = deque(maxlen=100)  # those without PONG: sent_s, bytes before
        self._round_trips_s: deque[float] = deque(maxlen=30)

    def send_steps(self, end_s: float) -> None:
        """Send what the socket takes, until `end_s` (time.monotonic())."""
        for episode in self._outbox.deliverable:
            while episode.sent < episode.length:
                if time.monotonic() > end_s:
                    return
                try:
                    frames = episode.message(episode.sent)
                except EpisodeFileError as error:
                    self._outbox.move_damaged(episode, error)
                    return
                if self._sent - self._read > self._limit or not self._connection.send(frames):
                    return
                self._sent += wire_bytes(frames)
                episode.sent += 1

    @property
    def needs_pong(self) -> bool:
        """Whether so much has been sent since the last PULL that another should be sent now."""
        return self._sent - (self._pulls[-1][1] if self._pulls else self._read) > self._limit // 2

    @property
    def round_trip_s(self) -> float:
        """Median of the last minute, from PULL to PONG, which comes between two updates."""
        return statistics.median(self._round_trips_s) if self._round_trips_s else 0.0

    def pulled(self, sent_s: float) -> None:
        """Note that a PULL was sent, at time.monotonic() `sent_s`."""
        self._pulls.append((sent_s, self._sent))

    def answered(self, sent_s: float) -> None:
        """Take the PONG to the PULL sent at `sent_s`. Raises WireError for an impossible time."""
        round_trip_s = time.monotonic() - sent_s
        if not 0 <= round_trip_s < 1e9:
            raise WireError(f"PONG after {round_trip_s} s")
        self._round_trips_s.append(round_trip_s)
        while self._pulls and self._pulls[0][0] <= sent_s:
            self._read = self._pulls.popleft()[1]

    def reset(self) -> None:
        """Start again on a new connection."""
        self._sent = self._read = 0
        self._pulls.clear()
