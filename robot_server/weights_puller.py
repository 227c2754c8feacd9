"""The robot's side of PULL and WEIGHTS: which weights were received, taken, and are asked for next."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.wire.messages import pack
from agent.wire.schema import MAX_REPORTED
from envs.clock import Clock
from robot_server.outbox import Outbox

TIMED = 600  # newest steps that lateness is reported of
PULLS_PER_REQUEST = 5  # weights that got lost are requested anew after so many PULLs


class WeightsPuller:
    """received: version of the newest weights received, -1 before. taken: version last handed out, 0 before."""

    def __init__(self) -> None:
        self.received, self.taken = -1, 0
        self._pulls = 0
        self._newest: tuple[int, dict[str, np.ndarray]] | None = None

    def pull(self, outbox: Outbox, clock: Clock | None, **report: Any) -> list[bytes]:
        """The next PULL: asks for newer weights, and reports how the robot is doing.

        report: sent_s, reconnects and round_trip_s.
        """
        self._pulls += 1
        episodes = outbox.deliverable
        return pack(
            "PULL",
            have=self.received,
            ask=self._pulls // PULLS_PER_REQUEST,  # the learner answers each number once
            outbox=[[*out.key, out.sent] for out in episodes if out.sent][:MAX_REPORTED],  # the oldest
            acting=self.taken,
            unacknowledged=sum(out.length for out in episodes),
            spooled=sum(out.file is not None for out in episodes),
            **report,
            **_timing(clock),
        )

    def receive(self, version: int, arrays: dict[str, np.ndarray]) -> None:
        self.received, self._newest = version, (version, arrays)
        self._pulls += PULLS_PER_REQUEST  # the next request is a new one

    def restart(self) -> None:
        """Forget which version was received: another learner's versions have nothing to do with the one's before."""
        self.received = -1

    @property
    def waiting(self) -> bool:
        """Whether take() has weights to give."""
        return self._newest is not None

    def take(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """(version, read-only arrays) of the newest weights, once; None when they have been taken already."""
        newest, self._newest = self._newest, None
        if newest:
            self.taken = newest[0]
        return newest


def _timing(clock: Clock | None) -> dict[str, Any]:
    """How well `clock` keeps its deadlines."""
    if not clock:
        return {"steps_timed": 0, "deadlines_missed": 0, "late_p50_s": 0.0, "late_p99_s": 0.0}
    median_s, most_s = clock.late(TIMED)
    counts = {"steps_timed": clock.steps, "deadlines_missed": clock.misses}
    return {**counts, "late_p50_s": median_s, "late_p99_s": most_s}
