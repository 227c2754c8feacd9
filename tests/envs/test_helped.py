"""The scripted expert in a person's place, on the real simulator."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import envs
from agent.spec import UserError
from envs.helped import Helped
from robot_server import __main__ as robot_server


@pytest.fixture
def lift():
    env = envs.make("sim", task="Lift", cameras=[], horizon=60, placement_m=0.02)
    yield env
    env.close()


def test_the_expert_takes_over_and_what_it_did_is_recorded_as_a_persons(lift):
    env = Helped(lift, 5)
    for seed in (1, 2):  # the second episode begins with the policy again
        env.reset(seed=seed)
        steps = []
        while not steps or not (steps[-1][2] or steps[-1][3]):
            steps.append(env.step(np.full(4, -0.5, np.float32)))
        helped = [info.get("intervention", False) for *_, info in steps]
        assert helped == [False] * 5 + [True] * (len(steps) - 5)
        assert steps[-1][2] and steps[-1][4]["success"]  # a hand that closes nowhere near never lifts the cube
        actions = np.array([info["action"] for *_, info in steps[5:]])
        assert actions.shape == (len(steps) - 5, 4) and actions.dtype == np.float32
        assert not np.any(np.all(actions == -0.5, axis=1)) and np.abs(actions).max() <= 1


class Still(gymnasium.Env):
    """What it is asked for; `success` from that step on."""

    observation_space = gymnasium.spaces.Dict({})
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, success=100):
        self.success, self.resets, self.actions = success, [], []

    def reset(self, *, seed=None, options=None):
        self.resets.append((seed, options))
        self.actions.clear()
        return {}, {}

    def step(self, action):
        self.actions.append(float(action[0]))
        return {}, 0.0, False, False, {"success": len(self.actions) >= self.success, "more": 1}


class Counting:
    def reset(self):
        self.said = 0

    def act(self, observation):
        self.said += 1
        return np.array([0.1 * self.said], np.float32)


@pytest.mark.parametrize(("success", "helped"), [(100, [0, 0, 1, 1]), (2, [0, 0, 0, 0])])
def test_each_episode_is_passed_on_and_taken_over_once(monkeypatch, success, helped):
    """Unless it has succeeded by then."""
    monkeypatch.setattr("envs.helped.make", lambda env: Counting())
    inner = Still(success)
    env = Helped(inner, 2)
    for seed in (3, 4):
        env.reset(seed=seed, options={"task": 1})
        steps = [env.step(np.array([-1.0], np.float32)) for _ in range(4)]
        assert inner.resets[-1] == (seed, {"task": 1})
        assert inner.actions == pytest.approx([-1, -1, 0.1, 0.2] if helped[-1] else [-1] * 4)
        infos = [info for *_, info in steps]
        assert [info.get("intervention", False) for info in infos] == list(map(bool, helped))
        assert all(info["more"] == 1 for info in infos)
        assert [float(info["action"][0]) for info in infos if "action" in info] == pytest.approx(
            [0.1, 0.2] if helped[-1] else []
        )


@pytest.mark.parametrize(
    ("env", "why"),
    [(["sim", "--task", "Bread", "--cameras", "[]"], "no scripted expert for 'Bread'"), (["mock"], "a person helps")],
    ids=["no expert", "an arm"],
)
def test_where_no_expert_can_help_the_robot_server_does_not_start(env, why):
    with pytest.raises(UserError, match=why):
        robot_server.main(["--env", *env, "--help-after", "5", "--control", ""])
