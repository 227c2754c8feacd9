"""How much memory this process may still take: the machine's, or that of its control group (a container's limit).

And that libc keeps what an update frees for the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
VERSION_2 = ("memory.max", "memory.current")

MMAP_BYTES = 256 << 20  # a larger block gets pages of its own, and gives them back when it is freed
OLD_MMAP_BYTES = 32 << 20  # the most that glibc took before 2.35
TRIM_BYTES = 512 << 20  # so much that is free at the end of the heap is kept
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed() -> bool:
    """Have libc keep freed blocks for this process: new pages for every activation are a sixth of an update's time.

    Returns whether it does: glibc alone is told, and only where the environment says nothing about its malloc.
    Measured in docs/measurements.md, "Learner".
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "gnu_get_libc_version") or not hasattr(libc, "mallopt"):
        return False
    assert libc is not None
    # An older glibc refuses more than 32 MB. Without the first the second would take its growing threshold away.
    kept = any(libc.mallopt(M_MMAP_THRESHOLD, size) for size in (MMAP_BYTES, OLD_MMAP_BYTES))
    return bool(kept and libc.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))


def available_bytes() -> int:
    """Bytes that can be taken before something is killed; sys.maxsize where the system does not say."""
    return min(_machine(), *_groups(), sys.maxsize)


def _machine() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return sys.maxsize


def _groups() -> list[int]:
    """What each control group above this process leaves."""
    left = []
    with contextlib.suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = CGROUPS / "memory" if controllers else CGROUPS
            names = VERSION_1 if controllers else VERSION_2
            here = root / path.lstrip("/")
            for folder in [here, *here.parents]:
                if folder != root and root not in folder.parents:
                    break
                left.append(_left(folder, *names))
    return left


def _left(folder: Path, limit: str, usage: str) -> int:
    """Page cache counts as usage and can be given back: what memory.stat calls inactive_file is free."""
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())  # "max" is a ValueError
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        return max(0, most - used + cache)
    except (OSError, ValueError):
        return sys.maxsize
