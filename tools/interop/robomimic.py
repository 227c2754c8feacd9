"""Does robomimic train on our export? Prints figures; exits with 1 where something differs.

  python -m tools.interop.robomimic DEMOS [--steps 50] [--file FILE.hdf5]

DEMOS is a folder of episodes. It is written as robomimic's HDF5, opened with robomimic's SequenceDataset, compared with
what was written, and its BC trains on it. --file: one that robomimic itself wrote (dataset_states_to_obs); it is read.

robomimic is no dependency of this project: run this in an environment of its own.
  python -m venv ROBOMIMIC && ROBOMIMIC/bin/pip install robomimic six opencv-python-headless h5py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

import numpy as np

from agent.data.episode_file import read_episodes
from agent.spec import Episode
from tools.formats import robomimic
from tools.formats.common.foreign import Choices, Report
from tools.formats.format import read_all

BATCH = 16


def train(path: Path, demos: list[Episode], steps: int) -> bool:
    import robomimic.utils.obs_utils as obs_utils
    import torch
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory
    from robomimic.utils.dataset import SequenceDataset
    from robomimic.utils.file_utils import get_shape_metadata_from_dataset

    torch.manual_seed(0)
    spec = demos[0].spec
    config = config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = list(spec.states)
        config.observation.modalities.obs.rgb = list(spec.cameras)
    obs_utils.initialize_obs_utils_with_config(config)
    shapes = get_shape_metadata_from_dataset(str(path), all_obs_keys=spec.keys)
    columns = ("actions", "rewards", "dones")
    dataset = SequenceDataset(str(path), obs_keys=spec.keys, dataset_keys=columns, load_next_obs=True)
    equal, row = True, 0
    for episode in demos:
        for step in range(len(episode)):
            item = dataset[row]
            row += 1
            equal &= np.array_equal(item["actions"][0], episode.actions[step])
            equal &= item["rewards"][0] == episode.rewards[step]
            for key, rows in episode.observations.items():
                equal &= np.array_equal(item["obs"][key][0], rows[step])
                equal &= np.array_equal(item["next_obs"][key][0], rows[step + 1])
    print(
        f"SequenceDataset: {len(dataset)} of {row} steps, {len(demos)} demos, {'bit-equal' if equal else 'DIFFERENT'}"
    )
    model = algo_factory("bc", config, shapes["all_shapes"], shapes["ac_dim"], torch.device("cpu"))
    model.set_train()
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True)
    losses: list[float] = []
    while len(losses) < steps:
        for batch in loader:
            batch = model.postprocess_batch_for_training(model.process_batch_for_training(batch), None)
            losses.append(float(model.train_on_batch(batch, 0)["losses"]["action_loss"]))
    first, last = np.mean(losses[:5]), np.mean(losses[steps - 5 : steps])
    print(f"BC: {steps} steps on {', '.join(spec.keys)}; action loss {first:.4f} -> {last:.4f}")
    return bool(equal) and len(dataset) == row and last < first


def read(path: Path) -> bool:
    import h5py

    report = Report()
    found = list(read_all(robomimic, path, Choices(success="1", actions="clip"), report))
    equal = True
    with h5py.File(path) as file:
        for (_, demo), episode in zip(robomimic.demos(file, path), found, strict=True):
            equal &= np.array_equal(np.clip(demo["actions"][()], -1, 1).astype(np.float32), episode.actions)
            equal &= np.array_equal(demo["rewards"][()].astype(np.float32), episode.rewards)
            for key, rows in episode.observations.items():
                source = demo["obs"][key][()].reshape(len(episode), *rows.shape[1:])
                equal &= np.array_equal(source.astype(rows.dtype), rows[:-1])
    steps, successes = sum(map(len, found)), sum(episode.succeeded for episode in found)
    print(f"we read robomimic's: {len(found)} demos, {steps} steps, {successes} succeed")
    print(
        f"  {'equal' if equal else 'DIFFERENT'}; {', '.join(f'{k} {v.shape[1:]}' for k, v in rows_of(found).items())}"
    )
    print(*(f"  {line}" for line in str(report).splitlines()), sep="\n")
    return equal


def rows_of(episodes: list[Episode]) -> dict[str, np.ndarray]:
    return episodes[0].observations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--file", type=Path)
    flags = parser.parse_args()
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("robomimic", "torch", "h5py")))
    demos = list(read_episodes([flags.demos]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demos.hdf5"
        robomimic.write(path, demos, Choices(), Report())
        good = train(path, demos, flags.steps)
    if flags.file:
        good &= read(flags.file)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
