"""Cal-QL as d3rlpy has it, trained on our demonstrations for as many updates as ours: do the policies do equally well?

  python -m tools.learning.peer_d3rlpy --config configs/tasks/state_lift.yaml --config configs/presets/paper.yaml \\
      --data demos/lift --peer X/bin/python --updates 4000 --seeds 3

--peer is a Python with d3rlpy and nothing of ours (python -m venv X; X/bin/pip install d3rlpy); without it
only ours is trained. Vector observations only. Both see the same steps, with the same rewards and returns (ours), have
hidden layers of the same widths and the same rates, and act with their mean action in the same episodes. What the
config asks for and d3rlpy does not have, or otherwise (its LayerNorm comes after the activation), is named. Numbers of
offline updates only; nothing is fine-tuned.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import yaml

from agent import cli
from agent.config import OfflineConfig
from agent.data.replay_buffer import Replay
from agent.run.demonstrations import load_demonstrations
from agent.spec import Observation, UserError
from envs.start import module_command
from tools.common.rollout import env_options
from tools.common.success_rate import Result
from tools.evaluate import evaluate
from tools.learning.report import interval

SECTIONS = ("network", "calql", "reward", "offline", "online", "learner")
NOT_THEIRS: dict[str, dict[str, Any]] = {  # section -> field -> what theirs amounts to
    "calql": {
        "bc_weight": 0.0, "start_at_return": False, "policy_average": 0.0, "target_subset": 0, "actor_q": "min",
        "gradient_clip": 0.0, "importance_sampling": True, "entropy_backup": False, "target_entropy": -1.0,
        "cql_clip_low": -math.inf, "cql_clip_high": math.inf, "n_step": 1,
    },
    "network": {
        "state_features": 0, "state_standardise": True, "actor_layer_norm": False, "critic_layer_norm": False,
        "init": "torch", "log_std": "direct",
    },
}  # fmt: skip


class Theirs:
    """The peer's policy, as TorchScript: states, standardised as it was trained on them -> its mean action."""

    def __init__(self, path: Path, mean: np.ndarray, std: np.ndarray, keys: list[str]) -> None:
        self._policy, self._mean, self._std, self._keys = torch.jit.load(str(path)), mean, std, keys

    def act(self, observation: Observation, deterministic: bool = True) -> np.ndarray:
        states = (np.concatenate([observation[key] for key in self._keys]) - self._mean) / self._std
        with torch.no_grad():
            action: np.ndarray = self._policy(torch.from_numpy(states[None].astype(np.float32)))[0].numpy()
        return action


def steps_of(replay: Replay) -> dict[str, np.ndarray]:
    """Every step: standardised states and what comes with them; and the mean and deviation they were divided by."""
    mean, std = replay.state_statistics().standardisation()
    index = replay.index

    def states(rows: torch.Tensor) -> np.ndarray:
        found = [replay.columns[f"obs/{key}"].rows[rows].numpy() for key in replay.spec.states]
        scaled: np.ndarray = (np.concatenate(found, -1) - mean) / std
        return scaled

    columns = {
        name: replay.columns[name].rows[index].numpy() for name in ("actions", "rewards", "terminated", "returns")
    }
    return {"states": states(index), "following": states(index + 1), "mean": mean, "std": std, **columns}


def differences(sections: dict[str, Any]) -> list[str]:
    """What the config asks for that d3rlpy's Cal-QL does not do, or does otherwise."""
    found = []
    for part, fields in NOT_THEIRS.items():
        ours = {name: getattr(sections[part], name) for name in fields}
        found += [f"{name} {ours[name]}" for name, theirs in fields.items() if ours[name] != theirs]
    return found


def asked_of_them(sections: dict[str, Any], updates: int, seed: int) -> dict[str, Any]:
    calql, network = sections["calql"], sections["network"]
    lagrange = calql.lagrange_threshold is not None
    return {
        "updates": updates, "batch": sections["offline"].batch, "seed": seed,
        "actor_hidden": network.actor_hidden, "critic_hidden": network.critic_hidden,
        "actor_layer_norm": network.actor_layer_norm, "critic_layer_norm": network.critic_layer_norm,
        "config": {
            "gamma": calql.gamma, "tau": calql.target_rate, "actor_learning_rate": calql.actor_lr,
            "critic_learning_rate": calql.critic_lr, "temp_learning_rate": calql.temperature_lr,
            "alpha_learning_rate": calql.lagrange_lr if lagrange else 0.0,
            "initial_alpha": math.e if lagrange else 1.0,  # lambda begins at 1
            "alpha_threshold": calql.lagrange_threshold or 0.0, "conservative_weight": calql.cql_weight,
            "n_action_samples": calql.cql_actions, "max_q_backup": calql.max_target_backup,
            "n_critics": network.critics, "initial_temperature": calql.initial_temperature,
        },
    }  # fmt: skip


@contextlib.contextmanager
def trained_by_them(peer: str, replay: Replay, asked: dict[str, Any]) -> Iterator[Theirs]:
    script = Path(__file__).with_name("peer_d3rlpy_train.py")
    with tempfile.TemporaryDirectory() as folder:
        steps = steps_of(replay)
        np.savez(Path(folder) / "steps.npz", **steps)  # type: ignore[arg-type]
        (Path(folder) / "asked.json").write_text(json.dumps(asked))
        done = subprocess.run([peer, str(script), folder], capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"--peer {peer}: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")
        yield Theirs(Path(folder) / "policy.pt", steps["mean"], steps["std"], list(replay.spec.states))


def train_ours(sections: dict[str, Any], data: list[str], updates: int, seed: int, out: Path) -> None:
    config = out.with_name("config.yaml")
    config.write_text(yaml.safe_dump({name: dataclasses.asdict(section) for name, section in sections.items()}))
    command = ["agent.pretrain", "--config", str(config), "--data", *data, "--out", str(out)]
    command += ["--run", str(out.with_suffix(""))]
    command += ["--offline.updates", str(updates), "--learner.seed", str(seed)]
    done = subprocess.run(module_command(*command), capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1])


def said(name: str, results: list[Result]) -> str:
    rates = [result.success for result in results]
    low, high = interval(rates, results[0].episodes)
    each = ", ".join(f"{rate:.0%}" for rate in rates)
    return f"{name}: {fmean(rates):.1%} (95 % interval {low:.1%} to {high:.1%}; seeds {each})"


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, SECTIONS, add_flags, env_options, prog="python -m tools.learning.peer_d3rlpy")
    flags = arguments.flags
    if not flags.data:
        raise UserError("--data FOLDER [FOLDER ...] is needed")
    sections = {name: arguments.section(name) for name in SECTIONS}
    calql, name_options = sections["calql"], arguments.env()
    offline: OfflineConfig = dataclasses.replace(sections["offline"], data=flags.data)
    replay, _ = load_demonstrations(offline, sections["reward"], calql.gamma, 0)
    if replay.spec.cameras:
        raise UserError(f"{flags.data[0]}: has cameras; d3rlpy's part is for vectors")
    if found := differences(sections):
        print(f"not so in d3rlpy's: {', '.join(found)}")
    results: dict[str, list[Result]] = {"ours": [], "d3rlpy": []}
    run = {"episodes": flags.episodes, "workers": 1}
    for seed in range(flags.seeds):
        with tempfile.TemporaryDirectory() as folder:
            ckpt = Path(folder) / "ours.pt"
            train_ours(sections, flags.data, flags.updates, seed, ckpt)
            results["ours"].append(evaluate(str(ckpt), *name_options, **run))
        if flags.peer:
            with trained_by_them(flags.peer, replay, asked_of_them(sections, flags.updates, seed)) as theirs:
                results["d3rlpy"].append(evaluate(theirs, *name_options, **run))
    print(f"{flags.updates} updates on {len(replay)} steps, {flags.seeds} seeds, {flags.episodes} episodes each")
    for name, found_results in results.items():
        if found_results:
            print(said(name, found_results))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", metavar="FOLDER", help="demonstrations of ours, without cameras")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has d3rlpy")
    parser.add_argument("--updates", type=int, default=4000, metavar="N", help="of each (4000)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each (3)")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="of an evaluation (50)")


if __name__ == "__main__":
    cli.run(main)
