"""Observations that are not finite, as the tools report them: one line that names the observation, not the policy."""

import gymnasium
import numpy as np
import pytest

from agent import cli
from agent.data.episode_file import read_episode
from agent.data.state_statistics import StateStatistics
from agent.spec import UserError
from robot_server.command import Command, Device
from tools import evaluate
from tools.collect import Session, by_hand
from tools.common.rollout import make_env, rollout
from tools.recording.config import CollectConfig
from tools.recording.writer import Writer

ID = "test/Broken-v0"


class Broken(gymnasium.Env):
    """Its third observation has NaN."""

    observation_space = gymnasium.spaces.Dict({"ee_pos": gymnasium.spaces.Box(-9, 9, (3,), np.float64)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return {"ee_pos": np.zeros(3)}, {}

    def step(self, action):
        assert np.isfinite(action).all()
        self.steps += 1
        return {"ee_pos": np.array([0, np.nan if self.steps == 3 else 0, 0])}, 0.0, False, self.steps == 9, {}


gymnasium.register(ID, Broken, disable_env_checker=True)
WHAT = r"observation 'ee_pos' has NaN at step 3 of the episode with seed"


def test_evaluate_names_the_observation_in_one_line():
    with pytest.raises(UserError, match=f"^{WHAT} 100000") as caught:
        evaluate.main(["--policy", "random", "--env", f"gym:{ID}", "--episodes", "2"])
    assert "\n" not in str(caught.value)


def test_collect_keeps_what_came_before_it(tmp_path):
    class Hand(Device):
        def read(self):
            return Command(motion=np.full(6, 0.5, np.float32), enabled=True)

        def drop_events(self):
            pass

    class Display:
        def show(self, *_):
            pass

        say = close = show

    env = make_env(f"gym:{ID}", {})
    with Writer() as writer:
        session = Session(tmp_path, 0, 1, {"seed": 4}, writer, StateStatistics({"ee_pos": 3}))
        with pytest.raises(UserError, match=f"^episode 0 ended there; the steps before are saved: {WHAT} 4"):
            by_hand(env, Hand(), Display(), session, CollectConfig(hz=1e6), cli.Stop())
    assert len(read_episode(tmp_path / "episode_000000.hdf5")) == 2


def test_a_policy_that_answers_nan_is_called_that():
    with pytest.raises(UserError, match=r"^the policy returned \[nan nan\]"):
        list(rollout(make_env(f"gym:{ID}", {}), lambda seed: lambda seen: np.full(2, np.nan), 0))
