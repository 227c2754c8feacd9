"""How much of the learner's time messages may take that bring it nothing: a good robot is heard beside bad ones."""

from __future__ import annotations

import time

SHARE_S = 0.05  # CPU time of a second, for all senders together


class CpuBudget:
    """Counts what each sender took in the running second. One that had its share is not listened to in the rest of it.

    Its messages are lost then, as if on the way: what an honest robot has to say, it says again.
    """

    def __init__(self) -> None:
        self._taken_s: dict[bytes, float] = {}
        self._end_s = 0.0

    def renew(self) -> None:
        """Begin the next second, if the one before is over."""
        now = time.monotonic()
        if now >= self._end_s:
            self._taken_s, self._end_s = {}, now + 1.0

    def has(self, sender: bytes) -> bool:
        """Whether to listen; at least once a second to everybody."""
        return self._taken_s.get(sender, -1.0) < SHARE_S / max(1, len(self._taken_s))

    def charge(self, sender: bytes, cpu_s: float) -> None:
        self._taken_s[sender] = self._taken_s.get(sender, 0.0) + cpu_s
