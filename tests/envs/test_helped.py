"""The scripted expert in a person's place, on the real simulator."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("env", "why"),
    [(["sim", "--task", "Bread", "--cameras", "[]"], "no scripted expert for 'Bread'"), (["mock"], "a person helps")],
    ids=["no expert", "an arm"],
)
def test_where_no_expert_can_help_the_robot_server_does_not_start(env, why):
    with pytest.raises(UserError, match=why):
        robot_server.main(["--env", *env, "--help-after", "5", "--control", ""])
