"""Train the walker of tools.learning.maze in AntMaze: PPO towards waypoints on an open plane.

  python -m tools.learning.ant_policy --out ant.npz

The ant is rewarded for its speed towards a waypoint at 1 to 8 m, which changes when it is reached, and pays for a fall
on its back. The simulation integrates with Euler's method, which is three times as fast as AntMaze's: the policy walks
there, too. The file has the layout that tools.learning.adroit_policy reads. tools/learning/ant_policy.npz is what these
flags had left after 1,884,160 of their steps. Needs `pip install gymnasium mujoco`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import gymnasium.envs.mujoco
import mujoco
import numpy as np
import torch
from torch import nn

from agent import cli
from agent.files import written
from agent.spec import UserError
from tools.learning.ant_walker import ACTIONS, FEATURES, action, features

ANTS, LENGTH = 64, 64  # of a batch
FRAMES = 5  # of the simulation in a step of AntMaze
GAMMA, LAMBDA, CLIP, EPOCHS, MINIBATCH, RATE = 0.99, 0.95, 0.2, 5, 1024, 3e-4
NEAR_M = 0.5  # where the waypoint changes
FALL, EFFORT = 20.0, 0.02  # reward lost by a fall, and per square of an action
CUT = 1 / 1000  # chance of a new start, in each step


class Ants:
    """Many ants, each on a plane of its own, each with a waypoint."""

    def __init__(self, random: np.random.Generator) -> None:
        self.model = mujoco.MjModel.from_xml_path(
            str(Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "ant.xml")
        )
        self.data = [mujoco.MjData(self.model) for _ in range(ANTS)]
        self.random, self.waypoints = random, np.zeros((ANTS, 2))
        self.model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
        for number in range(ANTS):
            self.reset(number)

    def reset(self, number: int) -> None:
        data, random = self.data[number], self.random
        mujoco.mj_resetData(self.model, data)
        data.qpos[:7] = 0, 0, 0.75, *np.array([1, 0, 0, 1]) * random.normal(size=4)
        data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        data.qpos[7:] = np.array([0, 1, 0, -1, 0, -1, 0, 1]) + 0.1 * random.normal(size=8)
        data.qvel[:] = 0.1 * random.normal(size=14)
        self.send(number)

    def send(self, number: int) -> None:
        angle, distance = self.random.uniform(-np.pi, np.pi), self.random.uniform(1, 8)
        self.waypoints[number] = self.data[number].qpos[:2] + distance * np.array([np.cos(angle), np.sin(angle)])

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """See ant_walker.features."""
        state = np.array([np.concatenate([data.qpos[2:], data.qvel]) for data in self.data])
        return features(state, self.waypoints - np.array([data.qpos[:2] for data in self.data]))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """(rewards (N,), whether it fell (N,), waypoints reached)."""
        before = np.array([data.qpos[:2] for data in self.data])
        for data, control in zip(self.data, np.clip(actions, -1, 1), strict=True):
            data.ctrl[:] = control
            mujoco.mj_step(self.model, data, FRAMES)
        after = np.array([data.qpos[:2] for data in self.data])
        left = np.linalg.norm(self.waypoints - after, axis=1)
        speed = (np.linalg.norm(self.waypoints - before, axis=1) - left) / (FRAMES * self.model.opt.timestep)
        fell = np.array([data.qpos[4] ** 2 + data.qpos[5] ** 2 > 0.5 for data in self.data])
        reached = np.flatnonzero(left < NEAR_M).tolist()
        for number in reached:
            self.send(number)
        return speed - EFFORT * np.square(actions).sum(1) - FALL * fell, fell, len(reached)


def network(outputs: int, gain: float) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(FEATURES, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, outputs))
    for layer in (0, 2, 4):
        nn.init.orthogonal_(layers[layer].weight, gain if layer == 4 else 2**0.5)  # type: ignore[arg-type]
        nn.init.zeros_(layers[layer].bias)  # type: ignore[arg-type]
    return layers


class Learner:
    """PPO (Schulman et al. 2017)."""

    def __init__(self, random: np.random.Generator) -> None:
        self.actor, self.critic = network(ACTIONS, 0.01), network(1, 1.0)
        self.log_std = nn.Parameter(torch.full((ACTIONS,), -0.5))
        self.parameters = [*self.actor.parameters(), *self.critic.parameters(), self.log_std]
        self.optimiser = torch.optim.Adam(self.parameters, RATE, eps=1e-5)
        self.random, self.ants = random, Ants(random)
        self.seen, self.quarters = self.ants.seen()
        self.count, self.sum, self.squares = 0, np.zeros(FEATURES), np.zeros(FEATURES)
        self.measure(self.seen)

    def measure(self, seen: np.ndarray) -> None:
        """Inputs are scaled by the mean and the standard deviation of all that was seen."""
        self.count += len(seen)
        self.sum, self.squares = self.sum + seen.sum(0), self.squares + np.square(seen).sum(0)
        self.shift = self.sum / self.count
        self.scale = np.sqrt(np.maximum(self.squares / self.count - self.shift**2, 1e-4))

    def scaled(self, seen: np.ndarray) -> torch.Tensor:
        return torch.as_tensor((seen - self.shift) / self.scale, dtype=torch.float32)

    def policy(self, x: torch.Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.actor(x), self.log_std.exp())

    @torch.no_grad()
    def collect(self) -> tuple[list[torch.Tensor], str]:
        """Rows of inputs, actions, log-probabilities, advantages and returns; and a line for the log."""
        raw, columns, falls, reached, speed = [], [], 0, 0, 0.0
        for _ in range(LENGTH):
            raw.append(self.seen)
            x = self.scaled(self.seen)
            policy = self.policy(x)
            chosen = policy.sample()
            rewards, fell, more = self.ants.step(action(chosen.numpy().astype(float), self.quarters))
            falls, reached, speed = falls + int(fell.sum()), reached + more, speed + float(rewards.mean())
            if (cut := ~fell & (self.random.random(ANTS) < CUT)).any():
                rewards[cut] += GAMMA * self.critic(self.scaled(self.ants.seen()[0][cut])).numpy()[:, 0]
            for number in np.flatnonzero(fell | cut).tolist():
                self.ants.reset(number)
            self.seen, self.quarters = self.ants.seen()
            goes_on = torch.as_tensor(~(fell | cut)).float()
            logs = policy.log_prob(chosen).sum(1)
            columns.append((x, chosen, logs, self.critic(x)[:, 0], torch.as_tensor(rewards).float(), goes_on))
        x, actions, logs, values, r, goes_on = (torch.stack(each) for each in zip(*columns, strict=True))
        following, gain, gains = self.critic(self.scaled(self.seen))[:, 0], torch.zeros(ANTS), torch.zeros_like(r)
        for step in reversed(range(LENGTH)):
            gain = r[step] - values[step] + GAMMA * goes_on[step] * (following + LAMBDA * gain)
            gains[step], following = gain, values[step]
        self.measure(np.concatenate(raw))
        line = f"reward {speed / LENGTH:.2f} a step; in 1000 steps {1000 * falls / ANTS / LENGTH:.2f} falls"
        line += f", {1000 * reached / ANTS / LENGTH:.1f} waypoints; sigma {self.log_std.exp().mean():.2f}"
        return [each.flatten(0, 1) for each in (x, actions, logs, gains, gains + values)], line

    def update(self, rows: list[torch.Tensor]) -> None:
        for _ in range(EPOCHS):
            for part in torch.randperm(ANTS * LENGTH).split(MINIBATCH):
                x, actions, logs, gains, returns = (each[part] for each in rows)
                gains = (gains - gains.mean()) / (gains.std() + 1e-8)
                ratio = (self.policy(x).log_prob(actions).sum(1) - logs).exp()
                objective = torch.minimum(ratio * gains, ratio.clamp(1 - CLIP, 1 + CLIP) * gains).mean()
                loss = 0.5 * (self.critic(x)[:, 0] - returns).square().mean() - objective
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimiser.step()

    def save(self, path: Path) -> None:
        arrays = {key: value.numpy() for key, value in self.actor.state_dict().items()}
        arrays = {f"{int(key[0]) // 2}{key[1:]}": value for key, value in arrays.items()}
        scales = {"in_shift": self.shift, "in_scale": self.scale, "out_shift": np.zeros(8), "out_scale": np.ones(8)}
        with written(path) as file:
            np.savez(file, **{key: value.astype(np.float32) for key, value in (arrays | scales).items()})


def main(argv: list[str] | None = None) -> int:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.learning.ant_policy").flags
    if flags.steps < ANTS * LENGTH or flags.seed < 0:
        raise UserError(f"--steps must be at least {ANTS * LENGTH}, which is one batch, and --seed at least 0")
    torch.manual_seed(flags.seed)
    torch.set_num_threads(1)
    learner = Learner(np.random.default_rng(flags.seed))
    batches, started = flags.steps // (ANTS * LENGTH), time.monotonic()
    for batch in range(batches):
        learner.optimiser.param_groups[0]["lr"] = RATE * max(0.1, 1 - batch / batches)
        rows, line = learner.collect()
        learner.update(rows)
        if (batch + 1) % 20 == 0 or batch + 1 == batches:
            print(f"{(batch + 1) * ANTS * LENGTH:,} steps, {time.monotonic() - started:.0f} s: {line}", flush=True)
            learner.save(flags.out)
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=8_000_000, metavar="N", help="of all ants together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="an .npz, written again and again")


if __name__ == "__main__":
    cli.run(main)
