"""What the replay takes: bytes per transition, and time to sample 256 pairs (s, s') of two 84x84 cameras, on one core.

  python -m tools.bench.replay_buffer [--json FILE] [--steps 6000]

Beside it, on the same data and in turn: torchrl's, d3rlpy's and LeRobot's buffers, where they can be imported. They
are no dependencies of this project; a folder of their own keeps them apart:

  pip install --target PEERS --no-deps torchrl==0.14.1 "tensordict<0.15" pyvers hoptorch cloudpickle \\
      d3rlpy gym gym_notices structlog dataclasses-json marshmallow typing_inspect mypy_extensions colorama click \\
      scikit-learn scipy joblib threadpoolctl narwhals lerobot huggingface_hub
  PYTHONPATH=PEERS python -m tools.bench.replay_buffer

Every buffer gives s and s', unaugmented: ours and torchrl's as uint8, d3rlpy's and LeRobot's as float32 (they do not
offer less). Memory is what a process of its own grows by while a buffer is filled. The limit is to copy as many bytes
as a batch has, from anywhere in as many bytes as the frames have, but in one piece.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import multiprocessing
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.config import RewardConfig
from agent.data.prefetch import Prefetch
from agent.data.replay_buffer import Replay
from agent.data.storage import Storage
from agent.spec import Episode, Spec
from tools.bench.random_data import EPISODE_STEPS, episode
from tools.common.report import Report, parser

SPEC = Spec({"front": (84, 84, 3), "wrist": (84, 84, 3)}, {"state": 9}, 7)
PAIRS = 256
ROUNDS, WARM_UP = 60, 3
FRAME_BYTES = 2 * 84 * 84 * 3  # of a transition, each frame counted once

Sample = Callable[[], object]


def resident() -> int:
    """Bytes of memory that this process has and uses: what has been freed is given back first, if libc can (glibc)."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def episodes(count: int) -> Iterator[Episode]:
    """The same ones each time, one in memory at a time."""
    return (episode(seed, SPEC) for seed in range(count))


def ours(kind: str, folder: str) -> Callable[[int], Sample]:
    def fill(count: int) -> Sample:
        rows = 200_000 if kind != "device" else count * (EPISODE_STEPS + 1)  # that many are never filled here
        replay = Replay(SPEC, rows, RewardConfig(), 0.95, 0, Storage(kind, Path(folder)))
        for made in episodes(count):
            replay.add(made)
        batches = Prefetch(replay, None, PAIRS, 1.0, torch.device("cpu"))  # as the learner draws them
        return batches.next

    return fill


def torchrl(_folder: str) -> Callable[[int], Sample]:
    """As its collectors fill it: s under the key, s' under ("next", key)."""
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

    def fill(count: int) -> Sample:
        buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(count * EPISODE_STEPS), batch_size=PAIRS)
        for made in episodes(count):
            now = {key: torch.from_numpy(value[:-1]) for key, value in made.observations.items()}
            following = {key: torch.from_numpy(value[1:]) for key, value in made.observations.items()}
            outcome = {"reward": torch.from_numpy(made.rewards), "terminated": torch.from_numpy(made.terminated)}
            step = {**now, "action": torch.from_numpy(made.actions), "next": {**following, **outcome}}
            buffer.extend(TensorDict(step, batch_size=[EPISODE_STEPS]))
        return lambda: buffer.sample()

    return fill


def d3rlpy(_folder: str) -> Callable[[int], Sample]:
    """Episodes as they are, in an observation tuple; s' from the row after."""
    from d3rlpy.dataset import Episode as TheirEpisode
    from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer

    def fill(count: int) -> Sample:
        held = [
            TheirEpisode(
                [np.ascontiguousarray(value[:-1]) for value in made.observations.values()],
                made.actions,
                made.rewards[:, None],
                terminated=True,
            )
            for made in episodes(count)
        ]
        buffer = ReplayBuffer(InfiniteBuffer(), episodes=held)
        return lambda: buffer.sample_transition_batch(PAIRS)

    return fill


def lerobot(optimised: bool, _folder: str) -> Callable[[int], Sample]:
    """HIL-SERL's buffer: float32, (C, H, W) in [0, 1]; both frames unless `optimize_memory`."""
    absent: Any = types.ModuleType("lerobot.datasets.lerobot_dataset")
    absent.LeRobotDataset = None  # whose many dependencies the buffer does not need
    sys.modules.setdefault("lerobot.datasets.lerobot_dataset", absent)
    sys.modules.setdefault("lerobot.datasets", types.ModuleType("lerobot.datasets"))
    from lerobot.rl.buffer import ReplayBuffer

    def floats(made: Episode, row: int) -> dict[str, torch.Tensor]:
        frames = {key: torch.from_numpy(made.observations[key][row]).permute(2, 0, 1) / 255 for key in SPEC.cameras}
        named = {f"observation.images.{key}": frame[None] for key, frame in frames.items()}
        return {**named, "observation.state": torch.from_numpy(made.observations["state"][row])[None]}

    def fill(count: int) -> Sample:
        keys = [*(f"observation.images.{key}" for key in SPEC.cameras), "observation.state"]
        size = count * EPISODE_STEPS
        buffer = ReplayBuffer(size, "cpu", keys, lambda images: images, use_drq=False, optimize_memory=optimised)
        for made in episodes(count):
            for t in range(EPISODE_STEPS):
                action, ended = torch.from_numpy(made.actions[t])[None], bool(made.terminated[t])
                buffer.add(floats(made, t), action, float(made.rewards[t]), floats(made, t + 1), ended, False)
        return lambda: buffer.sample(PAIRS)

    return fill


# Each makes what fills a buffer with so many episodes, given a folder; raises where it can't be imported.
MAKERS: dict[str, Callable[[str], Callable[[int], Sample]]] = {
    "ours, host": functools.partial(ours, "host"),
    "ours, file": functools.partial(ours, "file"),
    "torchrl": torchrl,
    "d3rlpy": d3rlpy,
    "LeRobot": functools.partial(lerobot, False),
    "LeRobot, optimize_memory": functools.partial(lerobot, True),
}


def growth_here(name: str, count: int) -> int:
    """Bytes that this process, a fresh one, grows by while a buffer takes in `count` episodes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        fill = MAKERS[name](folder)
        fill(2)()  # what libraries take at their first use is not the buffer's
        before = resident()
        buffer = fill(count)
        grown = resident() - before
        del buffer
    return grown


@functools.cache
def growth(name: str, count: int) -> int:
    """`growth_here`, of a process of its own. Ends the benchmark where the figure is impossible."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        grown = process.submit(growth_here, name, count).result()
    frames = count * EPISODE_STEPS * FRAME_BYTES
    if grown < frames:
        sys.exit(f"{name}: the process grew by {grown:,} bytes, and the frames alone have {frames:,}: measured wrongly")
    return grown


def growth_of_ours(report: Report, count: int) -> None:
    """What the process grows by while a replay for 200,000 steps fills."""
    for number in (count // 2, count):
        steps, frames = number * EPISODE_STEPS, number * (EPISODE_STEPS + 1) * FRAME_BYTES
        report.add(f"process grown by, at {steps} of 200000 steps", growth("ours, host", number) / 1e6, "MB")
        report.add(f"the frames' own bytes, at {steps} of 200000 steps", frames / 1e6, "MB")
    replay = Replay(SPEC, 200_000, RewardConfig(), 0.95)
    for made in episodes(count):
        replay.add(made)
    report.add("bytes of all columns / bytes of the frames, ours", replay.bytes / frames, "x", 1.05)


def add_index(report: Report) -> None:
    """What the first batch after an episode takes more: the list of rows that are steps is made anew."""
    spec = Spec({}, {"state": 1}, 1)
    replay = Replay(spec, 202_000, RewardConfig(), 0.95)
    made = episode(0, spec)
    for _ in range(2000):
        replay.add(made)

    def ours() -> None:
        replay._index = None
        replay.index  # noqa: B018

    def an_episode_at_a_time() -> None:
        torch.cat([torch.arange(first, first + steps) for first, steps, _ in replay._episodes])

    ways: dict[str, Sample] = {"ours": ours, "one arange per episode": an_episode_at_a_time}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    for name, taken in times.items():
        report.add_times(f"index of 200,000 steps, {name}", taken, 3.0 if name == "ours" else None)


def one_piece(steps: int) -> Sample:
    """Copies as many bytes as a batch has, from anywhere in as many bytes as the frames have."""
    size, rng = 2 * PAIRS * FRAME_BYTES, np.random.default_rng(0)
    frames = torch.ones(max(steps * FRAME_BYTES, size + 1), dtype=torch.uint8)
    batch = torch.ones(size, dtype=torch.uint8)

    def copy() -> None:
        start = int(rng.integers(len(frames) - size))
        batch.copy_(frames[start : start + size])

    return copy


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=6000, help="transitions in each buffer (6000)")
    flags = arguments.parse_args()
    torch.set_num_threads(1)
    count = max(2, flags.steps // EPISODE_STEPS)
    steps = count * EPISODE_STEPS
    report = Report(f"replay: {steps} transitions of two 84x84 cameras, batches of {PAIRS} pairs, one thread")
    with tempfile.TemporaryDirectory() as folder:
        samplers: dict[str, Sample] = {}
        for name, make in MAKERS.items():
            try:
                fill = make(folder)
            except (ImportError, AttributeError) as error:
                print(f"{name}: left out ({error}); --help says how to get it")
                continue
            samplers[name] = fill(count)
        bytes_each = {name: growth(name, count) / steps for name in samplers}
        samplers["limit"] = one_piece(steps)
        times: dict[str, list[float]] = {name: [] for name in samplers}
        for turn in range(-WARM_UP, ROUNDS):
            for name, sample in samplers.items():
                began = time.perf_counter()
                sample()
                if turn >= 0:
                    times[name].append(time.perf_counter() - began)
    medians = {}
    for name, taken in times.items():
        medians[name] = report.add_times(f"sampling, {name}", taken, 2.0 if name.startswith("ours") else None)
    for name, size in bytes_each.items():
        report.add(f"bytes per transition, {name}", size, "B")
    growth_of_ours(report, count)
    add_index(report)
    for name in samplers:
        if not name.startswith("ours"):
            report.add(f"time: ours, host / {name}", medians["ours, host"] / medians[name], "x")
    for name in bytes_each:
        if not name.startswith("ours"):
            target = 0.25 if name.startswith("LeRobot") else None
            report.add(f"memory: ours, host / {name}", bytes_each["ours, host"] / bytes_each[name], "x", target)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
