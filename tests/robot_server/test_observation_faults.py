"""What the robot server does about observations that are not finite: never act on them, never blame the policy."""

from types import SimpleNamespace

import numpy as np
import pytest

from envs.clock import Clock
from robot_server import session
from robot_server.actor import run_episode
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.history import History
from robot_server.stepper import ObservationFault


@pytest.fixture
def link(bench):
    mailbox, link = bench.pair()
    mailbox.offer(1, {"w": np.array(0.5, np.float32)})
    bench.turn(lambda: link.weights.received == 1)
    return link


@pytest.fixture
def nan_at(tiny_env, monkeypatch):
    """nan_at({1: 2}): in episode 1 (of the environment) the observation after step 2 has NaN."""
    see = tiny_env.see

    def apply(faults):
        def seen():
            observation = see()
            if faults.get(len(tiny_env.seeds) - 1) == tiny_env.made:
                observation["state"][1] = np.nan
            return observation

        monkeypatch.setattr(tiny_env, "see", seen)

    return apply


@pytest.fixture
def act(tiny_env, tiny_policy, link, monkeypatch, bench):
    """act(episodes=3) runs the robot server's loop on the tiny environment."""

    def run(control=None, **robot):
        monkeypatch.setattr(session, "first_policy", lambda *_: tiny_policy)
        session.act(tiny_env, link, RobotConfig(seed=5, **robot), lambda: False, control)

    return run


def test_nan_ends_the_episode_before_it_and_the_policy_never_sees_it(bench, link, tiny_env, tiny_policy, nan_at, empty):
    nan_at({0: 3})
    with pytest.raises(ObservationFault, match="observation 'state' has NaN at step 3 of the episode with seed 42"):
        run_episode(tiny_env, tiny_policy, link, Clock(0), seed=42)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    assert len(episode) == 2 and episode.truncated[-1] and not episode.terminated.any()
    assert np.isfinite(episode.observations["state"]).all() and tiny_policy.acted == 3


def test_a_simulation_goes_on_with_the_next_episode(act, bench, link, nan_at, empty, logged):
    nan_at({0: 3, 1: 0, 3: 1})
    act(episodes=6)
    bench.turn(lambda: empty(link))
    assert [len(episode) for episode in bench.episodes] == [2, 5, 5, 5]
    lines = [line for line in logged() if line.startswith("the episode ends")]
    assert [line.split(": ")[1] for line in lines] == [
        "observation 'state' has NaN at step 3 of the episode with seed 5",
        "observation 'state' has NaN after the reset",
        "observation 'state' has NaN at step 1 of the episode with seed 8",
    ]


def test_a_simulation_that_answers_nothing_else_ends_the_robot_server(act, nan_at):
    nan_at({0: 1, 1: 1, 2: 1})
    with pytest.raises(ObservationFault, match="'state' has NaN"):
        act(episodes=6)


def test_what_moves_in_wall_clock_time_is_held_until_a_person_has_looked(act, nan_at, tiny_env, monkeypatch, logged):
    nan_at({0: 2})
    held, turns = [], []
    tiny_env.hold = lambda: held.append(len(turns))
    tiny_env.paced, tiny_env.clock, tiny_env.clear, tiny_env.realtime_denied = True, Clock(200.0), lambda: None, False

    class Fake(SimpleNamespace):
        latch_stop = Control.latch_stop

    control = Fake(
        stopped=False, hold_reason="", fault="", running=False, about=None, numbers={"stop": 0, "pause": 0},
        waiting=False, serve=lambda: None, read=lambda: None, drop_events=lambda: None, show=lambda *_: None,
        history=History(),
    )  # fmt: skip

    def serve(link, control, timeout_s, until):
        turns.append((control.stopped, control.fault))
        control.stopped = len(turns) < 3

    monkeypatch.setattr(session, "serve", serve)
    act(control, episodes=2, hz=200.0)
    assert held == [0] and len(tiny_env.seeds) == 2  # the next reset waited for the person
    assert len(turns) == 3 and all(stopped and "'state' has NaN at step 2" in fault for stopped, fault in turns)
    assert "the arm is held: observation 'state' has NaN" in "".join(logged())
