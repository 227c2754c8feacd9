import dataclasses
import time

import numpy as np
import pytest
import torch

import robot_server.session
import robot_server.tally
from agent.spec import SpecError, UserError
from envs.clock import Clock
from envs.reward_classifier import ClassifierReward, SuccessClassifier, network
from robot_server.actor import run_episode
from robot_server.config import RobotConfig


@pytest.fixture
def bench_pair(bench):
    bench.acknowledge = True
    return bench.pair()


def offer(bench, mailbox, link, version):
    """Weights `version` reach the link's hands."""
    mailbox.offer(version, {"w": np.array(version / 10, np.float32)})
    bench.turn(lambda: link.weights.received == version)


def test_an_episode_as_it_was_acted(bench, bench_pair, tiny_env, tiny_policy, empty):
    mailbox, link = bench_pair
    offer(bench, mailbox, link, 3)
    summary = run_episode(tiny_env, tiny_policy, link, Clock(0), seed=42)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    assert len(episode) == summary.steps == 5
    # what was seen before each action, though the env writes into the same arrays again and again
    np.testing.assert_array_equal(episode.observations["state"], [[t, 42, 0.5] for t in range(6)])
    np.testing.assert_array_equal(episode.observations["front"][:, 0, 0, 0], range(6))
    np.testing.assert_array_equal(episode.actions, np.full((5, 2), 0.3, np.float32))
    np.testing.assert_array_equal(episode.rewards, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(episode.policy_versions, 3)
    assert episode.terminated[-1] and not episode.truncated[-1] and episode.succeeded
    assert (np.diff(episode.times_s) >= 0).all() and episode.times_s[0] > 1.7e9
    assert episode.meta["seed"] == 42 and episode.meta["number"] == 0
    assert (summary.episode_return, summary.success, summary.policy_version, summary.cut) == (1.0, True, 3, False)
    assert str(summary) == "episode 0: 5 steps, return 1, success, policy 3"


def test_an_episode_has_the_names_of_its_states_numbers(bench, bench_pair, tiny_env, tiny_policy, empty):
    """The page of recorded episodes, tools.inspect and tools.convert read them there, without the env."""
    _, link = bench_pair
    for names in ({"state": ["x", "y", "z"]}, {"state": ["x" * 9000]}, {}):  # the second is more than a message takes
        tiny_env.state_names = names
        run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    bench.turn(lambda: empty(link))
    assert [episode.meta.get("state_names") for episode in bench.episodes] == [{"state": ["x", "y", "z"]}, None, None]


def test_newer_weights_are_swapped_in_between_two_steps(bench, bench_pair, tiny_env, tiny_policy, empty):
    mailbox, link = bench_pair
    offer(bench, mailbox, link, 1)
    bench.turn(lambda: mailbox.robots[0].version == 1)
    tiny_env.on_step = lambda step: offer(bench, mailbox, link, 2) if step == 2 else None
    run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    bench.turn(lambda: empty(link))
    np.testing.assert_array_equal(bench.episodes[0].policy_versions, [1, 1, 1, 2, 2])
    np.testing.assert_array_equal(bench.episodes[0].actions[:, 0], np.float32([0.1, 0.1, 0.1, 0.2, 0.2]))
    assert tiny_policy.loaded == [(0, pytest.approx(0.1)), (3, pytest.approx(0.2))]


@pytest.mark.parametrize("mode", ["act", "wait"])
def test_a_robot_that_waits_while_the_learner_is_away(bench, bench_pair, monkeypatch, logged, mode):
    mailbox, link = bench_pair
    monkeypatch.setattr(robot_server.session, "AWAY_S", 0.2)
    robot, turns = RobotConfig(while_away=mode), []
    bench.close(mailbox)
    deadline_s = time.monotonic() + 0.3
    while time.monotonic() < deadline_s:
        link.wait(0.05)

    def over():
        turns.append(link.silent_s)
        if len(turns) == 3:
            bench.mailbox(mailbox.address)
        bench.work()
        return False

    assert robot_server.session.may_act(link, robot, over)
    assert (any("the learner is away" in line for line in logged())) == (mode == "wait")
    assert (len(turns) > 3) == (mode == "wait") and (link.silent_s < 0.2) == (mode == "wait")


def test_it_goes_on_while_the_learner_is_away(bench, bench_pair, tiny_env, tiny_policy, empty):
    mailbox, link = bench_pair
    offer(bench, mailbox, link, 1)
    bench.close(mailbox)
    for seed in range(3):
        assert run_episode(tiny_env, tiny_policy, link, Clock(0), seed=seed).steps == 5
    bench.mailbox(mailbox.address)
    bench.turn(lambda: empty(link))
    assert [e.meta["seed"] for e in bench.episodes] == [0, 1, 2]
    np.testing.assert_array_equal(bench.episodes[2].policy_versions, 1)


def test_a_simulation_waits_once_too_many_steps_could_not_be_sent(bench, bench_pair, tiny_env, tiny_policy, empty):
    mailbox, link = bench_pair
    offer(bench, mailbox, link, 1)
    bench.close(mailbox)
    bench.turn(lambda: link.connection_error)  # it is known to be gone
    assert run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0, max_backlog=7).steps == 5
    asked = []

    def stop():
        asked.append(link.backlog)
        return len(asked) > 20

    assert run_episode(tiny_env, tiny_policy, link, Clock(0), seed=1, stop=stop, max_backlog=7).cut
    assert max(asked) == 8 and asked.count(8) > 5  # it waited, with one step more than that
    bench.mailbox(mailbox.address)
    bench.turn(lambda: empty(link))
    assert link.backlog == 0


def test_an_action_that_is_not_finite_is_never_made(bench_pair, tiny_env, tiny_policy):
    _, link = bench_pair
    tiny_policy.weight = float("nan")
    with pytest.raises(UserError, match="stopped before moving"):
        run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    assert tiny_env.actions == []


def test_stop_makes_the_step_under_way_the_last(bench, bench_pair, tiny_env, tiny_policy, empty):
    _, link = bench_pair
    stopped = []
    tiny_env.on_step = lambda step: stopped.append(True) if step == 1 else None
    summary = run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0, stop=lambda: bool(stopped))
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    assert summary.cut and summary.steps == len(episode) == 2
    np.testing.assert_array_equal(episode.truncated, [False, True])
    assert not episode.terminated.any()
    np.testing.assert_array_equal(episode.observations["state"][:, 0], [0, 1, 2])
    run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0, stop=lambda: False)  # the link is ready for the next


def test_stopped_before_its_first_step_an_episode_never_was(bench, bench_pair, tiny_env, tiny_policy, empty):
    _, link = bench_pair
    assert run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0, stop=lambda: True).steps == 0
    assert tiny_env.actions == []
    run_episode(tiny_env, tiny_policy, link, Clock(0), seed=1)
    bench.turn(lambda: empty(link))
    assert [e.meta["seed"] for e in bench.episodes] == [1]


@pytest.mark.parametrize("error", [RuntimeError("the arm is gone"), KeyboardInterrupt()])
def test_an_exception_truncates_the_episode(bench, bench_pair, tiny_env, tiny_policy, empty, error):
    _, link = bench_pair

    def fail(step):
        if step == 3:
            bench.turn(lambda: bench.mailboxes[0].steps == 3)  # its end has been sent already, as if it went on
            raise error

    tiny_env.on_step = fail
    with pytest.raises(type(error)):
        run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    np.testing.assert_array_equal(episode.truncated, [False, False, True])
    np.testing.assert_array_equal(episode.observations["state"][:, 0], [0, 1, 2, 3])


def test_an_observation_that_is_not_finite_ends_the_episode_before_it(bench, bench_pair, tiny_env, tiny_policy, empty):
    _, link = bench_pair
    see = tiny_env.see
    tiny_env.see = lambda: {**see(), "state": np.full(3, np.nan)} if tiny_env.made == 3 else see()
    with pytest.raises(SpecError, match="observation 'state' has NaN at step 3"):
        run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    np.testing.assert_array_equal(episode.observations["state"][:, 0], [0, 1, 2])
    assert episode.truncated[-1]


def test_images_are_not_cast(bench, bench_pair, tiny_env, tiny_policy):
    see = tiny_env.see
    tiny_env.see = lambda: {**see(), "front": np.zeros((8, 8, 3), np.float32)}
    with pytest.raises(SpecError, match="observation"):
        run_episode(tiny_env, tiny_policy, bench_pair[1], Clock(0), seed=0)


def test_the_action_as_executed_and_the_intervention_are_recorded(bench, bench_pair, tiny_env, tiny_policy, empty):
    _, link = bench_pair
    tiny_env.info = {"action": np.array([-1.0, 0.25]), "intervention": True}
    run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    bench.turn(lambda: empty(link))
    np.testing.assert_array_equal(bench.episodes[0].actions, [[-1, 0.25]] * 5)
    assert bench.episodes[0].interventions.all()


def test_an_action_beyond_its_range_is_clipped_before_the_env_gets_it(bench, bench_pair, tiny_env, tiny_policy, empty):
    _, link = bench_pair
    tiny_policy.weight = 1.5
    run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)
    bench.turn(lambda: empty(link))
    np.testing.assert_array_equal(np.array(tiny_env.actions), 1)
    np.testing.assert_array_equal(bench.episodes[0].actions, 1)


def test_weights_that_do_not_fit_are_a_user_error(bench, bench_pair, tiny_env, tiny_policy):
    mailbox, link = bench_pair
    mailbox.offer(7, {"other": np.zeros(1)})
    bench.turn(lambda: link.weights.received == 7)
    with pytest.raises(UserError, match=r"version 7 .*other names"):
        run_episode(tiny_env, tiny_policy, link, Clock(0), seed=0)


class Held:
    """A link of whose lease three waits are left."""

    def __init__(self, link):
        self._link, self.left, self.waits = link, 3, 0

    def __getattr__(self, name):
        return getattr(self._link, name)

    @property
    def hold_s(self):
        return 0.01 * self.left

    def wait(self, timeout_s):
        self.waits += 1
        self.left -= self.left > 0


def test_a_lease_holds_a_simulation(bench, bench_pair, tiny_env, tiny_policy):
    held = Held(bench_pair[1])
    run_episode(tiny_env, tiny_policy, held, Clock(0), seed=0)
    assert held.waits == 3


def test_a_lease_does_not_hold_a_robot(bench, bench_pair, tiny_env, tiny_policy):
    held = Held(bench_pair[1])
    clock = Clock(1000, now=lambda: 0.0, sleep=lambda seconds: None)
    clock.wait = lambda idle=None: None
    run_episode(tiny_env, tiny_policy, held, clock, seed=0)
    assert held.waits == 0 and held.left == 3


def test_the_summary_names_the_outcome(bench, bench_pair, tiny_env, tiny_policy):
    tiny_env.info = {"success": False}
    summary = run_episode(tiny_env, tiny_policy, bench_pair[1], Clock(0), seed=0)
    assert "failure" in str(summary)
    assert "cut short" in str(dataclasses.replace(summary, cut=True))


def test_what_a_classifier_calls_a_success_is_sent_and_what_truly_was_one_is_said(
    bench, bench_pair, tiny_env, tiny_policy, empty
):
    mailbox, link = bench_pair
    offer(bench, mailbox, link, 1)
    tally = robot_server.tally.Tally("robot", link)
    said = []
    for answer in (9.0, -9.0):
        net = network({"front": (8, 8, 3)})
        torch.nn.init.zeros_(net.head[-1].weight)
        torch.nn.init.constant_(net.head[-1].bias, answer)
        env = ClassifierReward(tiny_env, SuccessClassifier(net, {"front": (8, 8, 3)}))
        summary = run_episode(env, tiny_policy, link, Clock(0), seed=0)
        tally.count(summary)
        said.append(str(summary))
    bench.turn(lambda: empty(link))
    assert said == [
        "episode 0: 3 steps, return 1, success (environment: failure), policy 1",
        "episode 1: 5 steps, return 0, failure (environment: success), policy 1",
    ]
    assert tally.verdicts() == "classifier: 1 of 2 episodes called a success, 1 of them wrongly; 1 successes missed"
    called, missed = bench.episodes
    assert (called.rewards.tolist(), called.success.tolist()) == ([0, 0, 1], [False, False, True])
    assert called.terminated[-1] and not called.truncated[-1]
    assert not missed.rewards.any() and not missed.success.any() and missed.truncated[-1]
