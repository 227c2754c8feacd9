"""Do minari and we read each other's datasets? Prints figures; exits with 1 where something differs.

  python -m tools.interop.minari DEMOS

minari is no dependency of this project: run this in an environment of its own.
  python -m venv MINARI && MINARI/bin/pip install 'minari[hdf5,create]' opencv-python-headless av pillow tqdm pyyaml
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

import gymnasium
import numpy as np

from agent.data.episode_file import read_episodes
from agent.spec import Episode
from envs.base import Info, Observation
from tools.formats import lerobot_film, minari
from tools.formats.common.foreign import Choices, Report
from tools.formats.format import read_all


class Picture(gymnasium.Env):
    """A Dict observation with an image, for minari to record."""

    observation_space = gymnasium.spaces.Dict(
        front=gymnasium.spaces.Box(0, 255, (48, 64, 3), np.uint8), pose=gymnasium.spaces.Box(-9, 9, (4,), np.float64)
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    step_count = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        self.step_count = 0
        return self._seen(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        self.step_count += 1
        done = self.step_count == 7
        return self._seen(), float(done), done, False, {"success": done}

    def _seen(self) -> Observation:
        colour = np.full((48, 64, 3), (20 * self.step_count, 90, 40), np.uint8)
        return {"front": colour, "pose": self.np_random.normal(size=4)}


def theirs_reads_ours(demos: list[Episode], folder: Path) -> bool:
    import minari as package

    minari.write(folder, demos, Choices(), Report())
    dataset = package.MinariDataset(folder / "data")
    equal = dataset.total_episodes == len(demos)
    for source, found in zip(demos, dataset.iterate_episodes(), strict=True):
        equal &= np.array_equal(source.actions, found.actions) and np.array_equal(source.rewards, found.rewards)
        equal &= np.array_equal(source.terminated, found.terminations)
        equal &= np.array_equal(source.truncated, found.truncations)
        for key, rows in source.observations.items():
            equal &= np.array_equal(rows, found.observations[key])
    print(f"minari reads ours: {dataset.total_episodes} episodes, {dataset.total_steps} steps, ", end="")
    print("bit-equal, images too" if equal else "DIFFERENT")
    return bool(equal)


def ours_reads_theirs(root: Path) -> bool:
    import os

    os.environ["MINARI_DATASETS_PATH"] = str(root)
    import minari as package

    env = package.DataCollector(Picture(), record_infos=True)
    rng = np.random.default_rng(0)
    for seed in range(3):
        env.reset(seed=seed)
        done = False
        while not done:
            *_, done, _, _ = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
    dataset = env.create_dataset("test/picture-v0")
    report = Report()
    found = list(read_all(minari, root / "test" / "picture-v0", Choices(), report))
    equal, seen = len(found) == 3, []
    for source, episode in zip(dataset.iterate_episodes(), found, strict=True):
        equal &= np.array_equal(source.actions, episode.actions) and episode.success[-1] and episode.meta["seed"] >= 0
        equal &= np.array_equal(source.observations["pose"].astype(np.float32), episode.observations["pose"])
        equal &= np.array_equal(source.terminations, episode.terminated)
        pairs = zip(source.observations["front"], episode.observations["front"], strict=True)
        seen += [lerobot_film.psnr(image, other) for image, other in pairs]
    print(f"we read minari's: {len(found)} episodes, {sum(map(len, found))} steps, ", end="")
    print(f"{'equal' if equal else 'DIFFERENT'}; JPEG images against its own decoding: {min(seen):.1f} dB at worst")
    print(*(f"  {line}" for line in report.lines), sep="\n")
    return bool(equal) and min(seen) > 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path)
    flags = parser.parse_args()
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("minari", "gymnasium", "h5py")))
    with tempfile.TemporaryDirectory() as folder:
        good = theirs_reads_ours(list(read_episodes([flags.demos])), Path(folder) / "ours")
        good &= ours_reads_theirs(Path(folder) / "theirs")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
