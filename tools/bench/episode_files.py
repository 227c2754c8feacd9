"""Size of episode files, and time to write and to read them: images in bands of some frames, and a frame at a time.

  python -m tools.bench.episode_files demos/lift [--noise 2] [--json FILE]

The episodes in the given folder are joined to one of --steps steps, which both ways write and read in turn. A frame at
a time is how earlier releases wrote. --noise adds a camera's noise, which no simulator has: the standard deviation of a
pixel.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from agent.data import episode_file
from agent.data.episode_file import read_episode, read_episodes, read_steps, write_episode
from agent.data.frames import CHUNK_FRAMES, image_chunks
from agent.spec import STEP_COLUMNS, Episode
from tools.common.report import Report, parser

ROUNDS, WARM_UP = 15, 1
WAYS: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "bands": image_chunks,
    "a frame at a time": lambda shape: (1, *shape[1:]),
}


def joined(folder: str, steps: int, noise: float) -> Episode:
    """One episode of `steps` steps from the frames of those in `folder`, over and over."""
    found, rng = list(read_episodes([folder])), np.random.default_rng(0)
    rows = list(itertools.islice(itertools.cycle((e, t) for e in found for t in range(len(e))), steps + 1))
    observations = {key: np.stack([e.observations[key][t] for e, t in rows]) for key in found[0].spec.keys}
    for key in found[0].spec.cameras if noise else ():
        noisy = observations[key] + rng.normal(0, noise, observations[key].shape)
        observations[key] = noisy.round().clip(0, 255).astype(np.uint8)
    columns = {name: np.zeros(steps, dtype) for name, dtype in STEP_COLUMNS.items()}
    columns["truncated"][-1] = True
    actions = np.stack([e.actions[t] for e, t in rows[:-1]])
    return Episode(observations=observations, actions=actions, meta=dict(found[0].meta), **columns)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("folder", help="of episodes")
    arguments.add_argument("--steps", type=int, default=100, help="of the episode that is written (100)")
    arguments.add_argument("--noise", type=float, default=0.0, help="of the camera, in levels of 256 (0)")
    flags = arguments.parse_args()
    episode = joined(flags.folder, flags.steps, flags.noise)
    cameras = ", ".join(f"{height}x{width}" for height, width, _ in episode.spec.cameras.values())
    report = Report(f"episode files: {flags.steps} steps of {cameras}, noise {flags.noise:g}")
    raw = sum(rows.nbytes for rows in episode.observations.values())
    times: dict[tuple[str, str], list[float]] = {
        (what, way): [] for what in ("write", "read", "read 8 steps of") for way in WAYS
    }
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:  # /tmp may be memory
        path = Path(place) / "episode.hdf5"
        work: dict[str, Callable[[], object]] = {
            "write": lambda: write_episode(path, episode),
            "read": lambda: read_episode(path),
            "read 8 steps of": lambda: read_steps(path, CHUNK_FRAMES, CHUNK_FRAMES),
        }
        for turn in range(-WARM_UP, ROUNDS):
            for way, chunks in WAYS.items():
                with mock.patch.object(episode_file, "image_chunks", chunks):
                    for what, do in work.items():
                        began = time.perf_counter()
                        do()
                        if turn >= 0:
                            times[what, way].append(time.perf_counter() - began)
                if turn == 0:
                    report.add(f"file / observations, {way}", path.stat().st_size / raw, "x")
    for (what, way), taken in times.items():
        report.add_times(f"{what} a file, {way}", taken)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
