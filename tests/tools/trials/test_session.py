"""Evaluations on an arm, as they run."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from trial_parts import Arm, Coin, evaluate, fault_at, settings

from agent.spec import UserError
from envs.clock import Clock
from tools.trials import desk as desk_module
from tools.trials import film
from tools.trials.ledger import EPISODES
from tools.trials.report import summary


def judge(desk, keys, env, mistakes=()):
    """A person who looks at what really happened, and confirms. mistakes: keys pressed before, at each verdict."""

    def person():
        if desk.shown == "ended":
            keys.pressed += [*mistakes, "y" if env.success else "n"]
        elif desk.shown == "confirm":
            keys.pressed.append("enter")

    keys.person = person


RATES = (0.3, 0.7)


def test_the_intervals_cover_the_truth(tmp_path, desk, keys, quick_disk):
    """60 evaluations of two policies of known success rates, each judged by a person who looks: 95 % intervals."""
    covered, experiments, env = Counter(), 60, Arm()
    judge(desk, keys, env)
    draws = [Coin(rate, seed) for seed, rate in enumerate(RATES)]
    for number in range(experiments):
        made, trials = evaluate(tmp_path / str(number), desk, draws, env, episodes=14, order_seed=number)
        found = summary(made, trials)
        for rate, each in zip(RATES, found["checkpoints"]):
            assert each["episodes"] == 14
            covered[rate] += each["low"] <= rate <= each["high"]
        (difference,) = found["differences"]
        covered["difference"] += difference["low"] <= RATES[1] - RATES[0] <= difference["high"]
    assert all(covered[what] / experiments >= 0.92 for what in (*RATES, "difference")), covered


def test_each_block_has_every_policy_once_and_its_episodes_start_alike(tmp_path, desk, keys):
    env = Arm()
    judge(desk, keys, env)
    made, trials = evaluate(tmp_path, desk, (0.5, 0.5, 0.5), env, episodes=4)
    order = made.order()
    blocks = [order[k : k + 3] for k in range(0, 12, 3)]
    assert all(sorted(block) == [0, 1, 2] for block in blocks) and len({tuple(block) for block in blocks}) > 1
    assert env.seeds == [seed for seed in range(5, 9) for _ in range(3)]
    assert [trial.episode for trial in trials] == list(range(12))
    assert settings("a", "b", "c", order_seed=1, episodes=4).order() != order  # the seed decides


def test_the_order_is_balanced_wherever_it_stops():
    for seed in range(30):
        order = settings("a", "b", episodes=20, order_seed=seed).order()
        for stop in range(41):
            counted = Counter(order[:stop])
            assert abs(counted[0] - counted[1]) <= 1
    firsts = Counter(settings("a", "b", order_seed=seed).order()[0] for seed in range(200))
    assert 70 < firsts[0] < 130


def test_a_verdict_counts_once_it_is_confirmed(tmp_path, desk, keys):
    """Slips of the finger: a key that is none, Enter without a verdict, the wrong verdict first."""
    env = Arm()
    judge(desk, keys, env, mistakes=["z", "enter", "y", "n", "n"])
    _, trials = evaluate(tmp_path, desk, (1.0, 0.0), env)
    assert len(trials) == 4 and all(trial.judged_by == "person" for trial in trials)
    assert sum(trial.succeeded for trial in trials) == 2
    assert all((trial.result == "success") == trial.signal for trial in trials)


def test_the_arm_is_held_while_a_verdict_is_awaited_and_the_person_is_reminded(
    tmp_path, desk, keys, monkeypatch, logged
):
    monkeypatch.setattr(desk_module, "REMIND_S", 0.02)
    env, held = Arm(), []

    def person():
        if desk.shown == "ended":
            held.append(env.calls[-1])
            if len(held) > 20000 or sum("has ended" in line for line in lines()) >= 3:
                keys.pressed += ["y", "enter"]

    seen = []

    def lines():
        seen.extend(logged())
        return seen

    keys.person = person
    _, trials = evaluate(tmp_path, desk, (1.0,), env, episodes=1)
    assert set(held) == {"hold"} and sum("has ended: y (success)" in line for line in seen) >= 3
    assert [trial.result for trial in trials] == ["success"] and trials[0].verdict_s >= 0.04


def test_an_episode_without_a_verdict_is_void_and_comes_again(tmp_path, desk, keys):
    """The person has gone home: the evaluation is stopped, and continued the next day."""
    looks = itertools.count()
    _, trials = evaluate(tmp_path, desk, (1.0, 0.0), stop=lambda: next(looks) > 200)
    assert [(trial.result, trial.reason) for trial in trials] == [("void", "the evaluation was stopped")]
    env = Arm()
    judge(desk, keys, env)
    made, trials = evaluate(tmp_path, desk, (1.0, 0.0), env)
    assert [trial.episode for trial in trials if trial.counts] == [0, 1, 2, 3]
    first = made.order()[0]
    assert summary(made, trials)["checkpoints"][first]["void"] == {"the evaluation was stopped": 1}


def test_what_ends_the_evaluation_is_the_reason_of_its_last_episode(tmp_path, desk, keys):
    """The table then tells whose policy it was: until the end nothing else does."""

    class Broken(Coin):
        def act(self, observation, deterministic=False):
            return np.full(2, np.nan, np.float32)

    with pytest.raises(UserError, match=r"returned \[nan nan\]: stopped before moving"):
        evaluate(tmp_path, desk, (Broken(0.5),), Arm(), episodes=1)
    (line,) = [json.loads(line) for line in (tmp_path / EPISODES).read_text().splitlines() if "result" in line]
    assert line["result"] == "void" and "returned [nan nan]: stopped before moving" in line["reason"]


def test_a_reading_of_an_arm_that_is_no_number_is_a_fault_and_the_evaluation_goes_on(tmp_path, desk, keys):
    class Moving(Arm):
        clock = Clock(1000.0)

        def step(self, action):
            seen, *rest = super().step(action)
            if len(self.seeds) == 1:
                seen["proprio"][:] = np.nan
            return seen, *rest

    env = Moving()

    def person():
        keys.pressed += ["R"] if desk.hold_reason else {"ended": ["y"], "confirm": ["enter"]}.get(desk.shown, [])

    keys.person = person
    _, trials = evaluate(tmp_path, desk, (1.0,), env, episodes=1)
    assert [trial.result for trial in trials] == ["void", "success"]
    assert "proprio" in trials[0].reason and env.calls.count("clear") == 1


def test_the_operator_may_void_an_episode(tmp_path, desk, keys):
    env, given = Arm(), []

    def person():
        if desk.shown == "ended":
            given.append("backspace" if not given else "y")
            keys.pressed += [given[-1], "enter"]

    keys.person = person
    _, trials = evaluate(tmp_path, desk, (1.0,), env)
    assert [(trial.episode, trial.result) for trial in trials] == [(0, "void"), (0, "success"), (1, "success")]
    assert env.seeds == [5, 5, 6]  # the same start again


@pytest.mark.parametrize("verdict", ["person", "signal"])
def test_a_fault_voids_the_episode_until_the_person_has_looked(tmp_path, desk, keys, logged, verdict):
    env = Arm(fault_at(5))  # in the second episode
    judge(desk, keys, env)
    seen, before = [], keys.person

    def person():
        if desk.stopped:
            seen.append(env.calls[-1])
            keys.pressed += ["R"] if len(seen) > 3 else []
        else:
            before()

    keys.person = person
    made, trials = evaluate(tmp_path, desk, (1.0, 1.0), env, verdict=verdict)
    assert [trial.result for trial in trials] == ["success", "void", "success", "success", "success"]
    assert trials[1].reason == "axis 'x' is stuck" and trials[1].episode == trials[2].episode == 1
    assert env.seeds == [5, 5, 5, 6, 6] and set(seen) == {"hold"}
    assert env.calls.index("clear") < len(env.calls) - 3
    assert sum(sum(each["void"].values()) for each in summary(made, trials)["checkpoints"]) == 1


@pytest.mark.parametrize("verdict", ["person", "signal"])
def test_stop_ends_the_episode_is_judged_and_holds_the_next(tmp_path, desk, keys, verdict):
    stopped, waited = [], []

    def on_step(step, env):
        if not stopped:
            stopped.append(step)
            keys.pressed.append("space")

    env = Arm(on_step)

    def person():
        if desk.running and desk.shown == "ended":
            keys.pressed += ["n", "enter"]
        elif desk.stopped and not desk.running:
            waited.append(len(env.seeds))
            keys.pressed += ["R"] if len(waited) > 5 else []

    keys.person = person
    _, trials = evaluate(tmp_path, desk, (1.0,), env, verdict=verdict)
    assert trials[0].steps == 1 and trials[0].judged_by == "person" and trials[0].result == "failure"
    assert set(waited) == {1}  # no reset before the release
    assert len(trials) == 2


def test_a_verdict_during_the_episode_ends_it(tmp_path, desk, keys):
    def on_step(step, env):
        keys.pressed.append("y")

    def person():
        if desk.shown == "confirm":
            keys.pressed.append("enter")

    keys.person = person
    _, trials = evaluate(tmp_path, desk, (0.0,), Arm(on_step))
    assert [(trial.steps, trial.result, trial.judged_by) for trial in trials] == [(1, "success", "person")] * 2


def test_an_episode_with_an_intervention_counts_as_a_failure(tmp_path, desk, keys):
    def on_step(step, env):
        if len(env.seeds) == 1 and step != 2:
            env.info["intervention"] = True

    made, trials = evaluate(tmp_path, desk, (1.0,), Arm(on_step), verdict="signal", episodes=3)
    assert [(trial.result, trial.by_hand, trial.takeovers) for trial in trials] == [
        ("success", 2, 2),
        ("success", 0, 0),
        ("success", 0, 0),
    ]
    (figures,) = summary(made, trials)["checkpoints"]
    assert figures["successes"] == 2 and figures["episodes"] == 3
    assert (figures["with_intervention"], figures["with_intervention_and_success"]) == (1, 1)


def test_times_are_measured(tmp_path, desk, keys):
    _, trials = evaluate(tmp_path, desk, (1.0,), verdict="signal", episodes=1)
    assert all(0 < getattr(trials[0], name) < 10 for name in ("reset_s", "episode_s", "verdict_s"))


def test_what_is_broken_in_a_simulation_is_an_error(tmp_path, desk):
    class Broken(Arm):
        paced = False

        def step(self, action):
            seen, *rest = super().step(action)
            return {"proprio": seen["proprio"] * float("nan")}, *rest

    with pytest.raises(Exception, match="proprio"):
        evaluate(tmp_path, desk, (1.0,), Broken())


def test_a_video_that_cannot_be_made_costs_no_episode(tmp_path, monkeypatch, logged):
    def missing(*_):
        raise ImportError("No module named 'av'")

    monkeypatch.setattr(film, "mp4", missing)
    films = film.Films(["top"], 10.0)
    films.add(tmp_path / "a.mp4", {}, "step 0")
    films.close()
    assert logged() == ["no video: No module named 'av'"] and not films.busy
