"""An arm that succeeds by a coin, an operator's place with a keyboard of a test, and evaluations made of them."""

import contextlib
import os

import gymnasium
import numpy as np
import pytest

from envs.base import RobotFault
from envs.clock import Clock
from tools.trials import desk as desk_module
from tools.trials.desk import Desk
from tools.trials.ledger import Ledger, Settings
from tools.trials.session import Trials

STEPS = 3


class Arm(gymnasium.Env):
    """Paced, but as fast as it can. An episode is a success where its first action is positive. on_step(step, env) is
    called in each step, and may raise.
    """

    paced, realtime_denied, clock = True, False, Clock(0)
    observation_space = gymnasium.spaces.Dict({"proprio": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, on_step=lambda step, env: None):
        self.on_step, self.calls, self.seeds, self.info = on_step, [], [], {}
        self.success, self.steps = False, 0

    def reset(self, *, seed=None, options=None):
        self.calls.append("reset")
        self.seeds.append(seed)
        self.success, self.steps = False, 0
        return {"proprio": np.zeros(1, np.float32)}, {}

    def step(self, action):
        self.calls.append("step")
        self.success = self.success if self.steps else bool(action[0] > 0)
        self.steps += 1
        self.info = {"success": self.success and self.steps == STEPS}
        self.on_step(self.steps, self)
        seen = {"proprio": np.full(1, self.steps, np.float32)}
        return seen, 0.0, False, self.steps == STEPS, self.info

    def hold(self):
        self.calls.append("hold")

    def clear(self):
        self.calls.append("clear")


class Coin:
    """A policy with this success rate."""

    def __init__(self, rate, seed=0):
        self.rate, self.draw, self.acted = rate, np.random.default_rng(seed), 0

    def act(self, observation, deterministic=False):
        self.acted += 1
        return np.full(2, 1.0 if self.draw.random() < self.rate else -1.0, np.float32)

    def load_weights(self, weights):
        raise AssertionError


class Keys:
    """A terminal's keys: what was pressed since the last look."""

    def __init__(self):
        self.pressed, self.looked = [], 0
        self.person = lambda: None  # called at each look

    def keys(self):
        self.looked += 1
        self.person()
        found, self.pressed = self.pressed, []
        return found

    def close(self):
        pass


class FastDesk(Desk):
    """A Desk that doesn't wait for its socket. shown: the state that it shows."""

    shown = ""

    def show(self, observation, status):
        super().show(observation, status)
        self.shown = status.get("state", "")

    def wait(self, timeout_s):
        self.serve()


@pytest.fixture
def keys(monkeypatch):
    """The terminal of every Desk."""
    found = Keys()
    monkeypatch.setattr(desk_module, "terminal_if_any", lambda: found)
    return found


@pytest.fixture
def desk(tmp_path, keys):
    with contextlib.closing(FastDesk(f"ipc://{tmp_path}/d.sock")) as made:
        yield made


def settings(*names, episodes=2, order_seed=0, **more):
    made = [{"file": name, "sha256": name[::-1]} for name in names]
    more = {"verdict": "person", "stochastic": False, "seed": 5, "env": {"name": "arm"}, **more}
    return Settings(made, episodes=episodes, order_seed=order_seed, **more)


def evaluate(folder, desk, rates, env=None, stop=lambda: False, **more):
    """Settings and trials of policies with these rates, after what one process did of them."""
    with contextlib.closing(Ledger(folder, settings(*map(str, range(len(rates))), **more))) as ledger:
        ledger.start()
        policies = [rate if isinstance(rate, Coin) else Coin(rate, k) for k, rate in enumerate(rates)]
        Trials(env or Arm(), policies, ledger, desk, stop).run()
        return ledger.settings, ledger.trials


@pytest.fixture
def quick_disk(monkeypatch):
    """For tests of arithmetic."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def fault_at(number):
    """An on_step that fails once, in the step `number` of all."""
    steps = []

    def on_step(step, env):
        steps.append(step)
        if len(steps) == number:
            raise RobotFault("axis 'x' is stuck")

    return on_step
