"""The tasks of gymnasium-robotics as configs/ has them; left out where it is not installed."""

from pathlib import Path

import numpy as np
import pytest

import envs
from agent import cli
from agent.spec import Spec

CONFIGS = Path(__file__).parents[2] / "configs" / "tasks"


@pytest.fixture
def task():
    """task("antmaze"): the environment that this file asks for."""
    pytest.importorskip("gymnasium_robotics")
    made = []

    def make(name):
        asked, options = cli.parse(["--config", str(CONFIGS / f"{name}.yaml")], "", [], env_options=envs.options).env()
        made.append(envs.make(asked, **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.mark.filterwarnings("ignore")
def test_antmaze_has_one_goal_and_one_start_as_its_dataset(task):
    env = task("antmaze")
    maze = env.unwrapped.maze
    seen = [env.reset(seed=seed)[0] for seed in range(100_000, 100_004)]
    goals, starts = (
        {tuple(maze.cell_xy_to_rowcol(o[key]).tolist()) for o in seen} for key in ("desired_goal", "achieved_goal")
    )
    assert goals == {(1, 1)} and starts == {(3, 1)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("removed", [True, False])
def test_kitchens_reward_is_the_number_of_tasks_completed_and_all_of_them_are_a_success(task, removed):
    env = task("kitchen")
    kitchen = env.unwrapped
    kitchen.remove_task_when_completed = removed
    env.reset(seed=0)
    still, goals = np.zeros(env.action_space.shape), dict(kitchen.goal)
    assert len(goals) == 4
    for count, name in enumerate(goals, 1):
        achieved = kitchen._get_obs(kitchen.robot_env._get_obs())["achieved_goal"]
        kitchen.goal[name] = achieved[name].copy()  # it is done where it stands
        _, reward, terminated, _, info = env.step(still)
        assert (reward, terminated, info["success"]) == (count, count == 4, count == 4)
        kitchen.goal[name] = goals[name] + 100  # and undone: what counts is that it has been


@pytest.mark.filterwarnings("ignore")
def test_kitchens_names_can_be_kept_in_a_file(task):
    env = task("kitchen")
    states = Spec.from_spaces(env.observation_space, env.action_space).states
    assert states["desired_goal.slide_cabinet"] == 1 and states["achieved_goal.light_switch"] == 2 and len(states) == 9
    observation, _ = env.reset(seed=0)
    assert observation.keys() == states.keys()
