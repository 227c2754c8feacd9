"""What both parts of tools.stress.fuzz use: a good robot's episodes, cores, memory."""

from __future__ import annotations

import functools
import os
import resource
from pathlib import Path

import numpy as np

from agent.env_record import EnvRecord
from agent.spec import Spec, Transition
from tools.common.random_steps import random_steps

SPEC = Spec({"front": (64, 64, 3)}, {"state": 9}, 7)
ENV = EnvRecord("bench")
NETWORK = {"features": 8}
EPISODE_STEPS = 50
BATCH = 5000  # messages made before a round: making one takes longer than sending it
SETTLED = 0.2  # share of the messages after which memory may grow no more


def transitions(number: int) -> list[Transition]:
    """Episode `number` of the good robot, the same in every process."""
    return _episode(number % 10)


@functools.cache
def _episode(seed: int) -> list[Transition]:
    return random_steps(SPEC, EPISODE_STEPS, seed)


def on_cores(strangers: bool) -> None:
    """Keep this process, and what it starts, to the strangers' core or to the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[-1:] if strangers else cores[:-1])


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_mb() -> float:
    """The most memory that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def growth(samples: list[tuple[int, int]]) -> tuple[float, float]:
    """MB by which memory grew after the first messages, and bytes a message; samples: (messages so far, bytes)."""
    settled = [sample for sample in samples if sample[0] >= SETTLED * samples[-1][0]]
    counts, sizes = np.array(settled, float).T
    slope = float(np.polyfit(counts, sizes, 1)[0]) if len(settled) > 1 else 0.0
    return (sizes.max() - sizes[0]) / 1e6, slope
