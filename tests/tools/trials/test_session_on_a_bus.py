"""Evaluations of a real arm's environment, its servos on an emulated bus: a fault of the arm, and STOP."""

import contextlib

import gymnasium
import numpy as np
import pytest
from trial_parts import evaluate

import envs
from envs.real.bus.bus import Bus
from envs.real.bus.protocol import FEETECH
from tools.trials.report import summary

AXES = {name: {"low": 90, "high": 270, "speed": 60, "lag": 40, "home": 180} for name in "abcdef"}
STEPS = 8


@pytest.fixture
def bus():
    with Bus(FEETECH) as made:
        made.place(180.0)
        yield made


class Stepped(gymnasium.Wrapper):
    """on_step(number): called before each step of all, from 0."""

    def __init__(self, env, on_step):
        super().__init__(env)
        self.on_step, self.count, self.resets = on_step, 0, 0

    def reset(self, **given):
        observation = self.env.reset(**given)
        self.resets += 1
        return observation

    def step(self, action):
        self.on_step(self.count)
        self.count += 1
        return self.env.step(np.full(6, action[0], np.float32))  # a Coin has two


@pytest.fixture
def opened(bus):
    with contextlib.ExitStack() as stack:

        def make(on_step=lambda number: None):
            arm = {"arm": "envs.real.bus.client:BusArm", "arm_options": {"port": str(bus.port)}}
            paces = {"watchdog_s": 1.0, "coast_s": 0.1, "reset_speed": 1.0}  # the machine that tests may be busy
            env = envs.make("real", **arm, axes=AXES, horizon=STEPS, realtime=False, **paces)
            return Stepped(stack.enter_context(contextlib.closing(env)), on_step)

        yield make


def person(desk, keys, looks=lambda: True):
    """Who calls each episode a success, and releases a stopped arm once `looks()`."""

    def acts():
        if desk.stopped and desk.shown != "ended":
            keys.pressed += ["R"] * bool(looks())
        elif desk.shown in ("ended", "confirm"):
            keys.pressed.append("y" if desk.shown == "ended" else "enter")

    keys.person = acts


def counted(made, trials):
    """Episodes, successes and void attempts in the table."""
    (row,) = summary(made, trials)["checkpoints"]
    return row["episodes"], row["successes"], sum(row["void"].values())


def test_an_episode_that_a_dead_servo_ends_is_void_once_and_comes_again_when_it_was_inspected(
    tmp_path, desk, keys, bus, opened
):
    def on_step(number):
        if number == STEPS + 1:  # the second step of the second episode
            bus.servos[3].dead = True

    places = []

    def looks():
        places.append(bus.servos[1].position)
        bus.servos[3].dead = len(places) < 20
        return not bus.servos[3].dead

    person(desk, keys, looks)
    made, trials = evaluate(tmp_path, desk, (1.0,), opened(on_step), episodes=3)
    assert [(trial.episode, trial.result) for trial in trials] == [
        (0, "success"),
        (1, "void"),
        (1, "success"),
        (2, "success"),
    ]
    assert "servo 3" in trials[1].reason and trials[1].judged_by == "" and trials[1].steps < STEPS
    assert counted(made, trials) == (3, 3, 1)
    assert np.ptp(places[10:]) < 0.5  # it stood, until a person had looked


def test_after_stop_the_episode_has_one_verdict_and_nothing_moves_before_the_release(tmp_path, desk, keys, bus, opened):
    def on_step(number):
        if number == 1:
            keys.pressed.append("space")

    places, resets = [], []

    def looks():
        places.append(bus.servos[1].position)
        resets.append(env.resets)
        return len(places) > 20

    person(desk, keys, looks)
    env = opened(on_step)
    made, trials = evaluate(tmp_path, desk, (1.0,), env)
    assert [(trial.episode, trial.result, trial.judged_by) for trial in trials] == [
        (0, "success", "person"),
        (1, "success", "person"),
    ]
    assert trials[0].steps < STEPS and counted(made, trials) == (2, 2, 0)
    assert set(resets) == {1} and np.ptp(places[10:]) < 0.5


def test_what_ended_by_a_fault_is_counted_once_after_the_evaluation_was_resumed(tmp_path, desk, keys, bus, opened):
    """A fault, and nobody there to look: it is stopped, and resumed with the arm connected anew."""

    def on_step(number):
        if number == STEPS + 1:
            bus.servos[3].dead = True

    waits = []

    def looks():
        waits.append(1)
        return False

    person(desk, keys, looks)
    env = opened(on_step)
    _, trials = evaluate(tmp_path, desk, (1.0,), env, stop=lambda: len(waits) > 5)
    assert [trial.result for trial in trials] == ["success", "void"]
    env.close()
    bus.servos[3].dead = False
    desk.stopped = False  # a new process
    person(desk, keys)
    made, trials = evaluate(tmp_path, desk, (1.0,), opened())
    assert [(trial.episode, trial.result) for trial in trials] == [(0, "success"), (1, "void"), (1, "success")]
    assert counted(made, trials) == (2, 2, 1)
