"""Which of this computer's cores other programs leave alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOOK_S = 0.5
IDLE = 0.5  # a core that was idle for this share of that time


def idle_cores(look_s: float = LOOK_S) -> int:
    """How many of the cores that this process may use were idle just now; at least 1.

    PyTorch's threads wait for each other in every layer. Where one of them has to share its core the others spin, and
    two threads beside a busy program are several times slower than one: python -m tools.bench.beside.
    """
    own, stat = os.sched_getaffinity(0), Path("/proc/stat")
    try:
        before = times(stat.read_text())
        time.sleep(look_s)
        after = times(stat.read_text())
    except OSError:  # a container may hide it
        return len(own)
    return max(1, sum(_idle_share(before.get(core), after.get(core)) >= IDLE for core in own))


def times(text: str) -> dict[int, tuple[int, int]]:
    """core -> (ticks idle, ticks in all) since the start, from the text of /proc/stat."""
    found = {}
    for line in text.splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            user, nice, system, idle, wait, *rest = map(int, ticks[:8])  # guests are counted in user
            found[int(name[3:])] = (idle + wait, user + nice + system + idle + wait + sum(rest))
    return found


def _idle_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float:
    if before is None or after is None or after[1] <= before[1]:
        return 1.0  # nothing is known of it
    return (after[0] - before[0]) / (after[1] - before[1])
