"""Demonstrations in PointMaze by a waypoint controller towards random places, for the suite point_maze.

  python -m tools.learning.point_maze --config configs/tasks/point_maze_medium.yaml --steps 100000 --out demos --seed 0

Each episode starts in a random free cell and follows the shortest path to a random free cell at most --reach cells
away, with Gaussian noise on its actions; it ends there, or at the environment's time limit. The reward is that of the
task's own goal, which the controller does not know of: few episodes pass it, none leads from the task's start to it
when --reach is shorter than that path, so a policy has to be put together from parts of episodes ("stitching", Fu et
al. 2020, D4RL). Needs `pip install gymnasium-robotics`.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np

from agent import cli
from agent.data.episode_file import SUFFIX, write_episode
from agent.spec import Episode, Observation, Spec, Transition, UserError
from envs.base import action_meaning
from robot_server.stepper import Stepper
from tools.common.rollout import Act, env_options, env_record, make_env

Cell = tuple[int, int]
GAIN, DAMPING = 10.0, 1.0  # force per metre to the waypoint, and per m/s
ARRIVED_M = 0.2
EPISODES = 1_000_000  # between the seeds of two --seed, above those of evaluations
PASSED_M = 0.35  # from a waypoint, before the next one is taken


class Maze:
    """The free cells of a PointMaze environment and the ways between them."""

    def __init__(self, env: gymnasium.Env) -> None:
        try:
            self._maze = env.unwrapped.maze  # type: ignore[attr-defined]
            rows = self._maze.maze_map
        except AttributeError:
            raise UserError("the environment has no maze; expected gym:gymnasium_robotics:PointMaze_...") from None
        self.cells: list[Cell] = [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell != 1]
        self.goals = [(i, j) for i, j in self.cells if rows[i][j] == "g"]

    def path(self, start: Cell, end: Cell) -> list[Cell]:
        """The cells of a shortest path, start and end included."""
        before = {start: start}
        queue = deque([start])
        while queue and end not in before:
            i, j = queue.popleft()
            for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if cell in self.cells and cell not in before:
                    before[cell] = (i, j)
                    queue.append(cell)
        cells = [end]
        while cells[-1] != start:
            cells.append(before[cells[-1]])
        return cells[::-1]

    def centre(self, cell: Cell) -> np.ndarray:
        """(2,) metres."""
        return np.asarray(self._maze.cell_rowcol_to_xy(np.array(cell)))


def walker(waypoints: list[np.ndarray], noise: float, random: np.random.Generator) -> Act:
    """A controller along `waypoints` ((2,), m): a spring and a damper, and noise; actions (2,) in [-1, 1]."""
    left = deque(waypoints)

    def act(observation: Observation) -> np.ndarray:
        place, speed = np.split(observation["observation"].astype(np.float64), 2)
        while len(left) > 1 and np.linalg.norm(left[0] - place) < PASSED_M:
            left.popleft()
        force = GAIN * (left[0] - place) - DAMPING * speed + noise * random.standard_normal(2)
        return np.clip(force, -1, 1).astype(np.float32)

    return act


def episode(stepper: Stepper, maze: Maze, reach: int, noise: float, seed: int) -> Episode:
    """It ends at the task's goal, terminated, or where it was sent or at the time limit, truncated."""
    random = np.random.default_rng(seed)
    starts = [cell for cell in maze.cells if cell not in maze.goals]
    start = starts[random.integers(len(starts))]
    paths = [path for cell in maze.cells if 1 < len(path := maze.path(start, cell)) <= reach + 1]
    waypoints = [maze.centre(cell) for cell in paths[random.integers(len(paths))]]
    act = walker(waypoints, noise, random)
    observation = stepper.reset(seed, {"reset_cell": np.array(start)})
    steps: list[Transition] = []
    while not (steps and steps[-1].last) and np.linalg.norm(observation["observation"][:2] - waypoints[-1]) > ARRIVED_M:
        steps.append(stepper.step(act(observation)))
        observation = stepper.observation
    ended = replace(steps[-1], truncated=not steps[-1].terminated)
    return Episode.from_transitions([*(replace(step, final_observation=None) for step in steps[:-1]), ended])


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(
        argv, __doc__, [], add_flags, env_options=env_options, prog="python -m tools.learning.point_maze"
    )
    flags, (name, options) = arguments.flags, arguments.env()
    if flags.steps < 1 or flags.reach < 1 or flags.noise < 0 or flags.seed < 0:
        raise UserError("--steps and --reach must be at least 1, --noise and --seed at least 0")
    env = make_env(name, options)
    record = replace(env_record(name, options), actions=action_meaning(env))
    meta = {"env": record.to_dict(), "policy": "waypoints"}
    flags.out.mkdir(parents=True, exist_ok=True)
    count = taken = reached = 0
    try:
        maze = Maze(env)
        stepper = Stepper(env, Spec.from_spaces(env.observation_space, env.action_space))
        while taken < flags.steps:
            seed = EPISODES * (flags.seed + 1) + count
            path = flags.out / f"episode_{count:06d}{SUFFIX}"
            made = episode(stepper, maze, flags.reach, flags.noise, seed)
            if not path.exists():
                write_episode(path, replace(made, meta={**meta, "seed": seed}))
            count, taken, reached = count + 1, taken + len(made), reached + made.succeeded
    finally:
        env.close()
    print(f"{flags.out}: {count} episodes, {taken} steps; {reached} episodes reach the goal")
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=100_000, metavar="N", help="at least so many, in whole episodes")
    parser.add_argument("--reach", type=int, default=1000, metavar="CELLS", help="longest path of an episode")
    parser.add_argument("--noise", type=float, default=0.5, metavar="SIGMA", help="of actions, which are in [-1, 1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the episodes")


if __name__ == "__main__":
    cli.run(main)
