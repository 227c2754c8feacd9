"""The part of peer_d3rlpy that runs under the peer's own Python: it has d3rlpy, numpy and torch, and nothing of ours.

PYTHON peer_d3rlpy_train.py FOLDER      reads steps.npz and asked.json there, writes policy.pt (TorchScript)
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")
from d3rlpy.algos import CalQLConfig  # noqa: E402
from d3rlpy.models.encoders import VectorEncoderFactory  # noqa: E402
from d3rlpy.torch_utility import TorchMiniBatch  # noqa: E402


def main(folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text())
    steps = {name: torch.from_numpy(rows) for name, rows in np.load(folder / "steps.npz").items()}
    torch.manual_seed(asked["seed"])
    algorithm = CalQLConfig(
        **asked["config"],
        actor_encoder_factory=VectorEncoderFactory(asked["actor_hidden"], use_layer_norm=asked["actor_layer_norm"]),
        critic_encoder_factory=VectorEncoderFactory(asked["critic_hidden"], use_layer_norm=asked["critic_layer_norm"]),
    ).create(device=False)
    algorithm.create_impl(tuple(steps["states"].shape[1:]), steps["actions"].shape[-1])
    fields = {field.name for field in dataclasses.fields(TorchMiniBatch)}
    for update in range(1, asked["updates"] + 1):
        rows = torch.randint(len(steps["states"]), (asked["batch"],))
        columns = {
            "observations": steps["states"][rows],
            "actions": steps["actions"][rows],
            "rewards": steps["rewards"][rows, None],
            "next_observations": steps["following"][rows],
            "next_actions": steps["actions"][rows],
            "returns_to_go": steps["returns"][rows, None],
            "terminals": steps["terminated"][rows, None],
            "intervals": torch.ones(len(rows), 1),
        }
        batch = TorchMiniBatch(**{name: columns[name] for name in columns if name in fields}, device="cpu:0")
        algorithm.impl.update(batch, update)
    algorithm.save_policy(str(folder / "policy.pt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
