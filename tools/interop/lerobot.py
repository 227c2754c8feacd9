"""Do the lerobot package and we read each other's datasets? Prints figures; exits with 1 where something differs.

  python -m tools.interop.lerobot DEMOS [--steps N]

DEMOS is a folder of episodes with cameras. It is written as LeRobotDataset v3.0 and opened with lerobot's own class:
every frame is compared with what was written and with what we read back. Then lerobot writes a dataset, and we read it.

lerobot is no dependency of this project: run this in an environment of its own.
  python -m venv LEROBOT && LEROBOT/bin/pip install lerobot h5py pyyaml gymnasium
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.episode_file import read_episodes
from agent.spec import Episode
from tools.formats import lerobot, lerobot_film
from tools.formats.common.foreign import Choices, Report
from tools.formats.format import read_all

SAME_DB = 40.0  # two decoders' rounding


def backend() -> str:
    """lerobot's preferred decoder needs FFmpeg's libraries; its fallback does not."""
    try:
        importlib.import_module("torchcodec")
        return "torchcodec"
    except (ImportError, RuntimeError, OSError):
        return "pyav"


def image_of(tensor: Any) -> np.ndarray:
    """(3, H, W) in [0, 1] -> uint8 (H, W, 3)."""
    image: np.ndarray = (tensor.numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return image


def theirs_reads_ours(demos: list[Episode], folder: Path) -> bool:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    report = Report()
    lerobot.write(folder, demos, Choices(fps=10), report)
    back = list(read_all(lerobot, folder, Choices(), Report()))
    print(report)
    dataset = LeRobotDataset("local/demos", root=folder, video_backend=backend())
    names = lerobot.short_names(dataset.features)
    if len(back[0].spec.states) == 1:
        names["observation.state"] = next(iter(back[0].spec.states))
    vectors_equal, against_ours, against_source, row = True, [], [], 0
    for source, ours in zip(demos, back, strict=True):
        for step in range(len(source)):
            item = dataset[row]
            row += 1
            vectors_equal &= np.array_equal(np.atleast_1d(item["action"].numpy()), source.actions[step])
            vectors_equal &= item["next.reward"].item() == source.rewards[step]
            for feature, key in names.items():
                if key in source.spec.states:
                    vectors_equal &= np.array_equal(
                        np.atleast_1d(item[feature].numpy()), source.observations[key][step]
                    )
                else:
                    image = image_of(item[feature])
                    against_ours.append(lerobot_film.psnr(image, ours.observations[key][step]))
                    against_source.append(lerobot_film.psnr(image, source.observations[key][step]))
    print(f"{row} frames, {len(dataset.meta.episodes)} episodes; task: {item['task']}; decoder: {backend()}")
    print(f"lerobot reads ours: states, actions and rewards {'bit-equal' if vectors_equal else 'DIFFER'}")
    same = sum(value == float("inf") for value in against_ours)
    print(f"  its images equal ours in {same} of {len(against_ours)}, PSNR at worst {min(against_ours):.1f} dB")
    print(f"  against the source: PSNR {np.mean(against_source):.1f} dB on average, {min(against_source):.1f} at worst")
    return vectors_equal and min(against_ours) > SAME_DB and row == len(dataset)


def ours_reads_theirs(folder: Path, steps: int) -> bool:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    def vector(size: int, dtype: str = "float32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": (size,), "names": None}

    features = {
        "observation.state": vector(5),
        "observation.images.front": {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
        "observation.images.wrist": {"dtype": "image", "shape": (32, 32, 3), "names": ["height", "width", "channels"]},
        "action": vector(3),
        "next.reward": vector(1),
        "next.success": vector(1, "bool"),
        "note": vector(2, "int64"),
    }
    rng = np.random.default_rng(0)
    dataset = LeRobotDataset.create("local/theirs", fps=12, features=features, root=folder, robot_type="arm")
    written = []
    for length in (steps, steps // 2, 1):
        rows = []
        for step in range(length):
            front = np.full((48, 64, 3), (40 + 3 * step, 90, 200 - 3 * step), np.uint8)
            row: dict[str, Any] = {
                "observation.state": rng.normal(size=5).astype(np.float32),
                "observation.images.front": front,
                "observation.images.wrist": rng.integers(256, size=(32, 32, 3), dtype=np.uint8),
                "action": rng.uniform(-1, 1, 3).astype(np.float32),
                "next.reward": np.array([float(step == length - 1)], np.float32),
                "next.success": np.array([step == length - 1]),
                "note": np.array([step, 1]),
            }
            dataset.add_frame({**row, "task": "colours"})
            rows.append(row)
        dataset.save_episode()
        written.append(rows)
    dataset.finalize()
    report = Report()
    found = list(read_all(lerobot, folder, Choices(), report))
    equal, seen = len(found) == len(written), []
    for rows, episode in zip(written, found, strict=True):
        for step, row in enumerate(rows):
            equal &= np.array_equal(row["observation.state"], episode.observations["state"][step])
            equal &= np.array_equal(row["action"], episode.actions[step])
            equal &= row["next.reward"][0] == episode.rewards[step] and row["next.success"][0] == episode.success[step]
            equal &= np.array_equal(row["observation.images.wrist"], episode.observations["wrist"][step])
            seen.append(lerobot_film.psnr(row["observation.images.front"], episode.observations["front"][step]))
    print(
        f"we read lerobot's: {len(found)} episodes, {sum(map(len, found))} steps; {len(report.lines)} lines of report:"
    )
    print(*(f"  {line}" for line in report.lines), sep="\n")
    print(
        f"  vectors, rewards, PNG images {'bit-equal' if equal else 'DIFFER'}; video PSNR {min(seen):.1f} dB at worst"
    )
    return equal and min(seen) > 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    flags = parser.parse_args()
    names = ("lerobot", "torch", "av", "pyarrow", "datasets")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
    with tempfile.TemporaryDirectory() as folder:
        good = theirs_reads_ours(list(read_episodes([flags.demos])), Path(folder) / "ours")
        good &= ours_reads_theirs(Path(folder) / "theirs", flags.steps)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
