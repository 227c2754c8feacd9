"""Demonstrations in PointMaze and AntMaze by a controller that walks to random places, for suites such as point_maze.

  python -m tools.learning.maze --config configs/tasks/point_maze_medium.yaml --steps 100000 --out demos --seed 0
  python -m tools.learning.maze --config configs/tasks/antmaze.yaml --reach 3 --noise 0.2 --out demos

Each episode starts in a random free cell and follows the shortest path to a random free cell at most --reach cells
away, with Gaussian noise on its actions; it ends there, or at the environment's time limit. The reward is that of the
task's own goal, which the controller does not know of: few episodes pass it, none leads from the task's start to it
when --reach is shorter than that path, so a policy has to be put together from parts of episodes ("stitching", Fu et
al. 2020, D4RL). The ant walks by a policy that tools.learning.ant_policy trained; its goal is smaller than its cell, so
a walk to this cell ends at the goal. Needs `pip install gymnasium-robotics`.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import gymnasium
import numpy as np

from agent import cli
from agent.data.episode_file import SUFFIX, write_episode
from agent.spec import Episode, Observation, Spec, Transition, UserError
from envs.base import action_meaning
from robot_server.stepper import Stepper
from tools.common.rollout import Act, env_options, env_record, make_env
from tools.learning import ant_walker
from tools.learning.adroit_policy import read

Cell = tuple[int, int]
ANT = Path(__file__).parent / "ant_policy.npz"
EPISODES = 1_000_000  # between the seeds of two --seed, above those of evaluations


class Walker(Protocol):
    """ARRIVED_M, PASSED_M: from the last waypoint and from others. TO_GOAL: it ends walks to the goal's cell there."""

    ARRIVED_M: float
    PASSED_M: float
    TO_GOAL: bool

    def place(self, observation: Observation) -> np.ndarray:
        """(2,) metres."""

    def action(self, observation: Observation, offset: np.ndarray) -> np.ndarray:
        """(A,) towards the waypoint at `offset` ((2,), m), not clipped."""


class Point:
    """A spring and a damper."""

    ARRIVED_M, PASSED_M, TO_GOAL = 0.2, 0.35, False
    GAIN, DAMPING = 10.0, 1.0  # force per metre to the waypoint, and per m/s

    def place(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation["observation"][:2], np.float64)

    def action(self, observation: Observation, offset: np.ndarray) -> np.ndarray:
        return np.asarray(self.GAIN * offset - self.DAMPING * observation["observation"][2:].astype(np.float64))


class Ant:
    ARRIVED_M, PASSED_M, TO_GOAL = 0.4, 1.4, True

    def __init__(self) -> None:
        self._mean = read(ANT)

    def place(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation["achieved_goal"], np.float64)

    def action(self, observation: Observation, offset: np.ndarray) -> np.ndarray:
        seen, quarter = ant_walker.features(observation["observation"][None].astype(np.float64), offset[None])
        action: np.ndarray = ant_walker.action(self._mean(seen[0])[None], quarter)[0]
        return action


WALKERS: dict[int, type[Point] | type[Ant]] = {4: Point, 27: Ant}  # numbers in "observation"


class Maze:
    """The free cells of an environment and the ways between them."""

    def __init__(self, env: gymnasium.Env) -> None:
        try:
            self._maze = env.unwrapped.maze  # type: ignore[attr-defined]
            rows = self._maze.maze_map
        except AttributeError:
            raise UserError(
                "the environment has no maze; expected gym:gymnasium_robotics:PointMaze_... or AntMaze_..."
            ) from None
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


def walker_of(env: gymnasium.Env) -> Walker:
    spaces = env.observation_space.spaces  # type: ignore[attr-defined]
    (size,) = spaces["observation"].shape
    if size not in WALKERS:
        raise UserError(f"no controller for {size} numbers in `observation`: neither a point nor an ant of 27")
    return WALKERS[size]()


def controller(walker: Walker, waypoints: list[np.ndarray], noise: float, random: np.random.Generator) -> Act:
    """Along `waypoints` ((2,), m), with noise; actions (A,) in [-1, 1]."""
    left = deque(waypoints)

    def act(observation: Observation) -> np.ndarray:
        place = walker.place(observation)
        while len(left) > 1 and np.linalg.norm(left[0] - place) < walker.PASSED_M:
            left.popleft()
        action = walker.action(observation, left[0] - place)
        return np.clip(action + noise * random.standard_normal(action.shape), -1, 1).astype(np.float32)

    return act


def episode(stepper: Stepper, maze: Maze, walker: Walker, reach: int, noise: float, seed: int) -> Episode:
    """It ends at the task's goal, terminated, or where it was sent or at the time limit, truncated."""
    random = np.random.default_rng(seed)
    starts = [cell for cell in maze.cells if cell not in maze.goals]
    start = starts[random.integers(len(starts))]
    paths = [path for cell in maze.cells if 1 < len(path := maze.path(start, cell)) <= reach + 1]
    path = paths[random.integers(len(paths))]
    waypoints = [maze.centre(cell) for cell in path]
    observation = stepper.reset(seed, {"reset_cell": np.array(start)})
    if walker.TO_GOAL and path[-1] in maze.goals:
        waypoints[-1] = observation["desired_goal"].astype(np.float64)
    act = controller(walker, waypoints, noise, random)
    steps: list[Transition] = []
    while not (steps and steps[-1].last) and not arrived(walker, observation, waypoints[-1]):
        steps.append(stepper.step(act(observation)))
        observation = stepper.observation
    ended = replace(steps[-1], truncated=not steps[-1].terminated)
    return Episode.from_transitions([*(replace(step, final_observation=None) for step in steps[:-1]), ended])


def arrived(walker: Walker, observation: Observation, waypoint: np.ndarray) -> bool:
    return bool(np.linalg.norm(walker.place(observation) - waypoint) <= walker.ARRIVED_M)


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options=env_options, prog="python -m tools.learning.maze")
    flags, (name, options) = arguments.flags, arguments.env()
    if flags.steps < 1 or flags.reach < 1 or not 0 <= flags.noise < np.inf or flags.seed < 0:
        raise UserError("--steps and --reach must be at least 1, --noise and --seed at least 0")
    env = make_env(name, options)
    record = replace(env_record(name, options), actions=action_meaning(env))
    meta = {"env": record.to_dict(), "policy": "waypoints"}
    flags.out.mkdir(parents=True, exist_ok=True)
    count = taken = reached = 0
    try:
        maze, walker = Maze(env), walker_of(env)
        stepper = Stepper(env, Spec.from_spaces(env.observation_space, env.action_space))
        while taken < flags.steps:
            seed = EPISODES * (flags.seed + 1) + count
            path = flags.out / f"episode_{count:06d}{SUFFIX}"
            made = episode(stepper, maze, walker, flags.reach, flags.noise, seed)
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
