"""The tasks of gymnasium-robotics as configs/ has them; left out where it is not installed."""

from pathlib import Path

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
def test_kitchens_names_can_be_kept_in_a_file(task):
    env = task("kitchen")
    states = Spec.from_spaces(env.observation_space, env.action_space).states
    assert states["desired_goal.bottom_burner"] == states["achieved_goal.light_switch"] == 2 and len(states) == 9
    observation, _ = env.reset(seed=0)
    assert observation.keys() == states.keys()
