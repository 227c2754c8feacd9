"""What episodes that arrive cost the learner's loop: written by its thread, and, as earlier releases did, in the loop.

  python -m tools.bench.intake [--side 128] [--episodes 20] [--json FILE]

The loop makes an update of about 30 ms again and again (products of matrices, as many threads as the learner has), and
an episode of 100 steps of two cameras arrives every so many of them. Half of each image is noise, so that it is
compressed to about what a camera's would be. A stall is what the loop waits, between two updates, for the disk and for
the replay.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch

from agent.config import RewardConfig
from agent.data.episode_store import Store, Writing
from agent.data.replay_buffer import Replay
from agent.spec import Episode, Spec
from tools.bench.random_data import EPISODE_STEPS, episode
from tools.common.report import Report, parser

UPDATES = 40  # for each episode
UPDATE_S = 0.03
WAYS = ("by a thread", "in the loop")


def arriving(number: int, made: Episode) -> Episode:
    """`made` with an identity of its own."""
    return dataclasses.replace(made, meta={"robot": "arm", "boot": "0", "number": number})


def half_noise(spec: Spec) -> Episode:
    made = episode(0, spec)
    for key in spec.cameras:
        made.observations[key][:, ::2] = 128
    return made


class Work:
    """An update of about UPDATE_S."""

    def __init__(self) -> None:
        self._one, self._products = torch.ones(600, 600), 1
        began = time.perf_counter()
        for _ in range(20):
            self._one @ self._one
        self._products = max(1, round(20 * UPDATE_S / (time.perf_counter() - began)))

    def __call__(self) -> None:
        for _ in range(self._products):
            self._one @ self._one


def stalls(
    way: str, spec: Spec, episodes: int, folder: Path, work: Work, updates: int = UPDATES
) -> tuple[list[float], float]:
    """Seconds that the loop waited before each update, and seconds that it took in all. updates: for each episode."""
    replay, made = Replay(spec, 20_000, RewardConfig(), 0.95), half_noise(spec)

    def add(given: Episode) -> None:
        replay.add(given)

    store = Store(folder, add, lambda key: None)
    writing: deque[Writing] = deque()
    waited, start = [], time.perf_counter()
    for number in range(episodes * updates):
        began = time.perf_counter()
        if number % updates == 0:
            given = arriving(number // updates, made)
            if way == "in the loop":
                store.take(given)
            else:
                writing.append(store.start(given))
        while writing and writing[0].done:
            store.finish(writing.popleft())
        waited.append(time.perf_counter() - began)
        work()
    for each in writing:
        store.finish(each)
    store.close()
    assert store.episodes == episodes == len(replay) // EPISODE_STEPS
    return waited, time.perf_counter() - start


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--side", type=int, default=128, help="pixels (128)")
    arguments.add_argument("--episodes", type=int, default=20, help="that arrive, each way (20)")
    flags = arguments.parse_args()
    spec = Spec({"front": (flags.side, flags.side, 3), "wrist": (flags.side, flags.side, 3)}, {"state": 9}, 7)
    work, rounds = Work(), 4
    waited: dict[str, list[float]] = {way: [] for way in WAYS}
    taken = dict.fromkeys(WAYS, 0.0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:  # /tmp may be memory
        for turn in range(rounds):
            for way in WAYS:
                found, seconds = stalls(
                    way, spec, max(1, flags.episodes // rounds), Path(place) / f"{way}-{turn}", work
                )
                waited[way] += found
                taken[way] += seconds
    report = Report(
        f"intake: episodes of {EPISODE_STEPS} steps of two {flags.side}x{flags.side} cameras, every {UPDATES} updates"
    )
    for way, found in waited.items():
        report.add(f"longest stall, {way}", max(found) * 1e3, "ms", 50.0 if way == WAYS[0] else None)
        at_arrivals = np.sort(found)[-max(1, len(found) // UPDATES) :]
        report.add(f"longest stall of an episode, median, {way}", float(np.median(at_arrivals)) * 1e3, "ms")
        report.add(f"stalls, 99th percentile, {way}", float(np.quantile(found, 0.99)) * 1e3, "ms")
        report.add(f"updates per second, {way}", len(found) / taken[way], "1/s")
    report.finish(flags.json)


if __name__ == "__main__":
    main()
