"""Real-time scheduling, where the system allows it: a control loop is then woken when it is due, whatever else runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PRIORITY = 10  # of 1 to 99; the kernel's own threads have 50


def real_time(wanted: bool = True) -> bool:
    """Give this process, all its threads and those that it starts real-time scheduling, or ordinary one again.

    Returns whether it was given what was wanted. Linux allows it to root, and up to a limit (`ulimit -r`) to others.
    """
    if not hasattr(os, "SCHED_RR"):
        return not wanted
    policy, priority = (os.SCHED_RR, PRIORITY) if wanted else (os.SCHED_OTHER, 0)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has just ended
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))
    return True
