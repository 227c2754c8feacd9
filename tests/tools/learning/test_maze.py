"""Demonstrations of a waypoint controller in a maze: whole episodes with the task's rewards, the same for a seed."""

import types

import gymnasium
import numpy as np
import pytest

from agent.data.episode_file import read_episodes
from agent.env_record import EnvRecord
from agent.spec import UserError
from tools.learning import maze

ROWS = [[1, 1, 1, 1, 1], [1, "g", 0, 0, 1], [1, 1, 1, 0, 1], [1, "r", 0, 0, 1], [1, 1, 1, 1, 1]]


def centre(cell):
    return np.array([cell[1] + 0.5 - 2.5, 2.5 - cell[0] - 0.5])


class PointMass(gymnasium.Env):
    """A point that moves freely, with the interface that PointMaze's goals and cells have."""

    observation_space = gymnasium.spaces.Dict({"observation": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self):
        self.maze = types.SimpleNamespace(maze_map=ROWS, cell_rowcol_to_xy=centre)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.starts = [*getattr(self, "starts", []), tuple(options["reset_cell"])]
        self.place, self.speed, self.steps = centre(options["reset_cell"]), np.zeros(2), 0
        return self.seen(), {}

    def seen(self):
        return {"observation": np.concatenate([self.place, self.speed]).astype(np.float32)}

    def step(self, action):
        self.speed = np.clip(self.speed + action * 0.2, -5, 5)
        self.place = self.place + self.speed * 0.01
        self.steps += 1
        success = bool(np.linalg.norm(self.place - centre((1, 1))) < 0.45)
        return self.seen(), float(success), success, self.steps >= 300, {"success": success}


@pytest.fixture
def env(monkeypatch):
    made = PointMass()
    monkeypatch.setattr(maze, "make_env", lambda name, options: made)
    return made


def collect(out, *flags):
    return maze.main(["--env", "gym:CartPole-v1", "--out", str(out), "--steps", "400", *flags])


def test_a_shortest_path_goes_around_the_wall(env):
    path = maze.Maze(env).path((3, 1), (1, 1))
    assert path == [(3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]


def test_episodes_are_whole_and_have_the_tasks_own_rewards(env, tmp_path):
    assert collect(tmp_path / "demos", "--reach", "3") == 0
    episodes = list(read_episodes([tmp_path / "demos"]))
    assert sum(map(len, episodes)) >= 400 > sum(map(len, episodes[:-1]))
    assert any(episode.succeeded for episode in episodes) and not all(episode.succeeded for episode in episodes)
    for episode in episodes:
        assert EnvRecord.of_episode(episode.meta).name == "gym:CartPole-v1"
        assert episode.rewards.tolist() == episode.success.tolist()  # of the task's goal
        assert episode.terminated[-1] == episode.succeeded and episode.truncated[-1] != episode.succeeded
        assert not episode.terminated[:-1].any() and not episode.truncated[:-1].any()
        assert np.linalg.norm(np.diff(episode.observations["observation"][:, :2], axis=0), axis=1).max() < 0.06
    assert (1, 1) not in env.starts  # where an episode would be over with its first step


def test_no_episode_is_sent_further_than_its_reach(env, tmp_path):
    collect(tmp_path / "near", "--reach", "1", "--noise", "0")
    for episode in read_episodes([tmp_path / "near"]):
        places = episode.observations["observation"][:, :2]
        assert np.linalg.norm(places[-1] - places[0]) < 1.0 + maze.Point.ARRIVED_M


def test_a_seed_gives_the_same_episodes_and_another_one_others(env, tmp_path):
    actions = {}
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        collect(tmp_path / name, "--seed", seed)
        actions[name] = np.concatenate([episode.actions for episode in read_episodes([tmp_path / name])])
    assert np.array_equal(actions["a"], actions["b"]) and not np.array_equal(actions["a"][:99], actions["c"][:99])


def test_actions_have_the_noise_that_was_asked_for():
    walker = maze.Point()
    at_rest = {"observation": np.float32([1.97, 2, 0, 0])}  # 0.3 of the controller's own, so that nothing is clipped
    act = maze.controller(walker, [np.array([2.0, 2.0])], 0.2, np.random.default_rng(0))
    actions = np.array([act(at_rest) for _ in range(2000)])
    np.testing.assert_allclose(actions.mean(0), walker.action(at_rest, np.array([0.03, 0.0])), atol=0.02)
    np.testing.assert_allclose(actions.std(0), 0.2, rtol=0.1)


def test_what_was_made_already_is_left_when_an_interrupted_run_is_repeated(env, tmp_path):
    collect(tmp_path / "demos")
    paths = sorted((tmp_path / "demos").iterdir())
    before = [path.stat().st_mtime_ns for path in paths[1:]]
    whole = paths[0].read_bytes()
    paths[0].unlink()
    collect(tmp_path / "demos")
    assert [path.stat().st_mtime_ns for path in paths[1:]] == before and len(paths[0].read_bytes()) == len(whole)


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--reach", "0"], ["--noise", "-1"], ["--seed", "-1"]])
def test_flags_that_cannot_be_meant_are_refused(env, tmp_path, flags):
    with pytest.raises(UserError, match=flags[0]):
        collect(tmp_path / "demos", *flags)


def test_an_environment_without_a_maze_is_refused(tmp_path):
    with pytest.raises(UserError, match="no maze"):
        maze.main(["--env", "fake", "--out", str(tmp_path / "demos")])


def test_the_real_point_maze_is_walked(tmp_path):
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    flags = ["--config", "configs/tasks/point_maze_medium.yaml", "--steps", "2000", "--out", str(tmp_path / "demos")]
    assert maze.main(flags) == 0
    episodes = list(read_episodes([tmp_path / "demos"]))
    assert any(episode.succeeded for episode in episodes)
    assert EnvRecord.of_episode(episodes[0].meta).meaning.kind == "normalized"


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_the_real_ant_walks_upright_to_where_it_is_sent(tmp_path):
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    flags = ["--config", "configs/tasks/antmaze.yaml", "--steps", "400", "--reach", "2", "--noise", "0.2"]
    assert maze.main([*flags, "--out", str(tmp_path / "demos")]) == 0
    for episode in read_episodes([tmp_path / "demos"]):
        places, (x, y) = episode.observations["achieved_goal"], episode.observations["observation"][:, 2:4].T
        assert len(episode) < 700 and np.linalg.norm(places[-1] - places[0]) > 1.5
        assert (1 - 2 * (x**2 + y**2)).min() > 0  # of its back, upwards
        assert episode.truncated[-1] != episode.succeeded and episode.actions.shape[1] == 8


def test_a_body_that_no_controller_walks_is_refused(env, tmp_path):
    env.observation_space = gymnasium.spaces.Dict({"observation": gymnasium.spaces.Box(-1, 1, (5,), np.float32)})
    with pytest.raises(UserError, match="no controller for 5 numbers"):
        collect(tmp_path / "demos")
