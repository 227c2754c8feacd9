"""Demonstrations of an Adroit task by a published policy with noise, in the layout that `--suite adroit_small` reads.

  python -m tools.learning.adroit_policy door-v0.pickle --env AdroitHandDoor-v1 --episodes 60 --noise 0.35 \\
      --out door.hdf5

The file is one of dapg/policies in github.com/aravindr93/hand_dapg (Rajeswaran et al. 2018): a network with two tanh
layers. Or it is an .npz with the same numbers, as 0.weight, 0.bias to 2.weight, 2.bias, in_shift, in_scale, out_shift
and out_scale. Each episode has Gaussian noise of its own size, evenly from 0 to --noise, on actions in [-1, 1]; an
episode ends a few steps after its first success, or at --steps. Rewards are the environment's own. --add FILE: copy the
episodes of that file first, people's for example. Needs `pip install gymnasium-robotics`.

Nothing of the file is run: of a pickle's classes only tensors are made, everything else is a shell.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import torch

from agent import cli
from agent.spec import UserError

AFTER_SUCCESS = 3  # steps; tools.convert --end success cuts them
PLAIN = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2"}  # numpy's are not safe: states of a dtype
SCALES = ("in_shift", "in_scale", "out_shift", "out_scale")


class Shell:
    """What stands for an object of any other class: its arguments, and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *arguments: Any) -> Shell:
        return self


Mean = Callable[[np.ndarray], np.ndarray]


class Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        return super().find_class(module, name) if f"{module}.{name}" in PLAIN else Shell


def read(path: Path) -> Mean:
    """The policy's mean: observation -> action, float64. Raises UserError."""
    try:
        layers, scales = _of_arrays(path) if path.suffix == ".npz" else _of_pickle(path)

        def mean(observation: np.ndarray) -> np.ndarray:
            x = (observation - scales["in_shift"]) / (scales["in_scale"] + 1e-8)
            for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
                x = np.tanh(weight @ x + bias)
            action: np.ndarray = (layers[-2] @ x + layers[-1]) * scales["out_scale"] + scales["out_shift"]
            return action

        mean(np.zeros(scales["in_shift"].shape))  # its parts fit together
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a policy of hand_dapg: {line}") from None
    return mean


def _of_arrays(path: Path) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as found:
        layers = [found[f"{number}.{part}"].astype(float) for number in range(3) for part in ("weight", "bias")]
        return layers, {key: found[key].astype(float) for key in SCALES}


def _of_pickle(path: Path) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    with path.open("rb") as file:
        policy = Unpickler(file, encoding="latin1").load().state
    layers = [each.arguments[0].detach().double().numpy() for each in policy["trainable_params"][:-1]]
    return layers, {key: policy["model"].state[key].detach().numpy() for key in SCALES}


def episode(
    env: gymnasium.Env, policy: Mean, noise: float, random: np.random.Generator, seed: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """(observations (T, D), actions (T, A), rewards (T,), whether it succeeded)."""
    observation = env.reset(seed=seed)[0]
    rows, left, success = [], steps, False
    while left:
        action = policy(observation)
        action = np.clip(action + noise * random.standard_normal(action.shape), -1, 1).astype(np.float32)
        following, reward, _, _, info = env.step(action)
        rows.append((observation, action, reward))
        observation, left = following, left - 1
        if info["success"] and not success:
            success, left = True, min(left, AFTER_SUCCESS)
    observations, actions, rewards = (np.array(column) for column in zip(*rows, strict=True))
    return observations, actions, rewards, success


def main(argv: list[str] | None = None) -> int:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.learning.adroit_policy").flags
    try:
        import gymnasium_robotics
    except ImportError:
        raise UserError("it needs gymnasium-robotics: pip install gymnasium-robotics") from None
    gymnasium.register_envs(gymnasium_robotics)
    policy, random, succeeded = read(flags.policy), np.random.default_rng(flags.seed), 0
    env = gymnasium.make(flags.env, max_episode_steps=flags.steps + 1)
    with h5py.File(flags.out, "x") as file:
        data = file.create_group("data")
        if flags.add:
            with h5py.File(flags.add) as added:
                for name in added["data"]:
                    added.copy(f"data/{name}", data)
        before = len(data)
        for number in range(flags.episodes):
            noise = flags.noise * random.random()
            *columns, success = episode(env, policy, noise, random, 1_000 * flags.seed + number, flags.steps)
            group = data.create_group(f"demo_{before + number}")
            for name, column in zip(("observations", "actions", "rewards"), columns, strict=True):
                group[name] = column
            succeeded += success
    env.close()
    print(f"{flags.out}: {before} episodes copied, {flags.episodes} made, of which {succeeded} succeed")
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", type=Path, help="a file of dapg/policies")
    parser.add_argument("--env", default="AdroitHandDoor-v1", metavar="ID", help="Gymnasium's name of the task")
    parser.add_argument("--episodes", type=int, default=60, metavar="N", help="how many to make")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of an episode that does not succeed")
    parser.add_argument("--noise", type=float, default=0.35, metavar="SIGMA", help="the largest, in units of an action")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", type=Path, metavar="FILE", help="copy its episodes first")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new HDF5 file")


if __name__ == "__main__":
    sys.exit(cli.run(main))
