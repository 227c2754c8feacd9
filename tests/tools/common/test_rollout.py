"""What the tools make of environments."""

import gymnasium
import numpy as np
import pytest

import envs
from agent.spec import UserError
from tools.common.rollout import make_env, rollout


class Arm(gymnasium.Env):
    paced = True
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-1, 1, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, good_steps):
        self.left = good_steps

    def _see(self):
        if self.left < 0:
            raise envs.base.RobotFault("axis 'x' stands")
        self.left -= 1
        return {"state": np.zeros(2, np.float32)}

    def reset(self, *, seed=None, options=None):
        return self._see(), {}

    def step(self, action):
        return self._see(), 0.0, False, False, {}


@pytest.mark.parametrize("good_steps", [-1, 0, 3])
def test_the_fault_of_an_arm_is_one_line(monkeypatch, good_steps):
    monkeypatch.setattr(envs, "make", lambda name, **options: Arm(good_steps))
    env, done = make_env("mock", {}), []
    with pytest.raises(UserError, match=r"^the arm is held: axis 'x' stands$"):
        for transition in rollout(env, lambda seed: lambda seen: np.zeros(1), 0):
            done.append(transition)
    assert len(done) == max(0, good_steps)


def test_a_simulation_is_as_it_is():
    env = make_env("fake", {})
    assert not hasattr(env.unwrapped, "paced")
    env.close()
