"""What a dying run is told by, and that a healthy one is left alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.config import CalQLConfig
from agent.run import health
from agent.run.health import EPISODES, GONE, NEVER, REPEATS, Health, complaints
from agent.run.log import RunLog

CONFIG = CalQLConfig(gamma=0.9, target_rate=0.1)  # Q has travelled after 100 updates
REWARDS = (-1.0, 0.0)  # so returns lie within 10 of each other
WELL = {
    "updates": 1000, "q_data": -4.0, "return_to_go": -5.0, "bound_rate_current": [0.2, 0.4], "entropy": -3.0,
    "alpha_prime": 2.0,
}  # fmt: skip


def found(config=CONFIG, rewards=REWARDS, **changed):
    return set(complaints({**WELL, **changed}, config, rewards, actions=3))


def test_a_healthy_record_has_no_complaint():
    assert found() == set()


@pytest.mark.parametrize(
    ("key", "changed", "still_well"),
    [
        ("q", {"q_data": 1.1}, {"q_data": 0.9}),  # beyond [-10, 0] by more than a tenth
        ("q", {"q_data": -11.1}, {"q_data": -10.9}),
        ("q", {"q_data": 0.9, "return_to_go": -9.2}, {"q_data": 0.9, "return_to_go": -9.0}),  # more than 10 apart
        ("bound low", {"bound_rate_current": [0.0, 0.0]}, {"bound_rate_current": [0.0, 0.01]}),
        ("bound high", {"bound_rate_current": [1.0, 1.0]}, {"bound_rate_current": [1.0, 0.99]}),
        ("multiplier", {"alpha_prime": 1e6}, {"alpha_prime": 9e5}),
        ("entropy", {"entropy": -12.1}, {"entropy": -11.9}),
    ],
)
def test_each_complaint_begins_where_it_says(key, changed, still_well):
    assert found(**changed) == {key} and found(**still_well) == set()


@pytest.mark.parametrize(
    ("rewards", "lowest", "highest"),
    [
        ((-1.0, 0.0), -11.0, 1.0),
        ((-5.0, 5.0), -60.0, 60.0),  # a success may be paid for again and again
        ((1.0, 2.0), 0.0, 21.0),  # an episode may end with its first reward
        ((-3.0, -2.0), -31.0, -1.0),
    ],
)
def test_q_is_told_where_no_return_can_be(rewards, lowest, highest):
    for edge, inwards in ((lowest, 0.1), (highest, -0.1)):
        near = edge + 5 * inwards
        assert found(rewards=rewards, q_data=edge + inwards, return_to_go=near) == set()
        assert found(rewards=rewards, q_data=edge - inwards, return_to_go=near) == {"q"}


@pytest.mark.parametrize("q", [-25.8, 5.0])
def test_values_worse_than_the_worst_return_and_better_than_the_best_are_told(q):
    record = {**WELL, "q_data": q, "return_to_go": -14.5}
    line = complaints(record, CalQLConfig(gamma=0.95), REWARDS, actions=3)["q"]
    assert f"({q:.4g})" in line and "(-14.5)" in line and "calql.cql_weight" in line and "\n" not in line


def test_with_entropy_in_the_backup_q_may_be_above_every_return():
    soft = CalQLConfig(gamma=0.9, target_rate=0.1, entropy_backup=True)
    assert found(soft, q_data=4.9) == set() and found(soft, q_data=5.1) == {"q"}


def test_bounds_are_looked_at_when_calibrating_and_once_q_has_had_time_to_get_there():
    assert found(bound_rate_current=[1.0], updates=99) == set()
    assert found(bound_rate_current=[1.0], updates=101) == {"bound high"}
    assert found(CalQLConfig(gamma=0.9, target_rate=0.1, calibrate=False), bound_rate_current=[1.0]) == set()


def test_without_two_rewards_nothing_can_be_said_of_q():
    assert found(rewards=(0.0, 0.0), q_data=100.0) == set()


def test_updates_without_a_conservative_term_or_an_actor_are_read_too():
    assert complaints({"updates": 9, "q_data": 90.0, "return_to_go": 0.0}, CONFIG, REWARDS, 3).keys() == {"q"}


@pytest.fixture
def told():
    lines = []
    return lines, Health(CONFIG, 3, lines.append)


def test_a_warning_comes_once_and_again_only_after_it_had_been_over(told):
    lines, run = told
    for _ in range(REPEATS - 1):
        run.update({**WELL, "entropy": -20.0}, REWARDS)
    run.update(WELL, REWARDS)
    assert lines == []
    for _ in range(5 * REPEATS):
        run.update({**WELL, "entropy": -20.0}, REWARDS)
    assert len(lines) == 1 and "entropy -20" in lines[0] and "calql.temperature_lr to 1e-2" in lines[0]
    run.update(WELL, REWARDS)
    for _ in range(REPEATS):
        run.update({**WELL, "entropy": -20.0}, REWARDS)
    assert len(lines) == 2


def test_two_warnings_do_not_hide_each_other(told):
    lines, run = told
    for _ in range(REPEATS):
        run.update({**WELL, "q_data": 99.0, "alpha_prime": 1e6}, REWARDS)
    assert len(lines) == 2


def test_success_that_never_was_is_told_once_and_not_of_tasks_without_it(told):
    lines, run = told
    for _ in range(NEVER - 1):
        run.episode(False)
    assert lines == []
    for _ in range(NEVER):
        run.episode(False)
    assert len(lines) == 1 and f"none of the first {NEVER} episodes succeeded" in lines[0]
    assert "take over" in lines[0]
    dense = Health(CONFIG, 3, lines.append, sparse=False)
    late = Health(CONFIG, 3, lines.append)
    late.episode(True)
    for _ in range(2 * NEVER):
        dense.episode(False)
        late.episode(False)
    assert len(lines) == 1


def test_success_that_is_gone_is_told(told):
    lines, run = told
    for won in [True] * EPISODES + [False] * 12:
        run.episode(won)
    assert lines == []  # 8 of 20: Wilson's interval of 99.7 % ends at 0.703, that of 20 of 20 begins at 0.694
    for won in [False] * 20 + [True] * 13 + [False] * 20:  # it is not back before there are 14
        run.episode(won)
    assert len(lines) == 1 and f"35% of the last {EPISODES} episodes succeeded, and 100% of as many had" in lines[0]
    for won in [True] * 14 + [False] * 20:
        run.episode(won)
    assert len(lines) == 2


def test_a_success_rate_that_was_half_is_gone_after_forty_failures(told):
    lines, run = told
    for number in range(EPISODES):
        run.episode(number % 2 == 1)
    for _ in range(GONE - 1):
        run.episode(False)
    assert lines == []
    for _ in range(GONE):
        run.episode(False)
    assert len(lines) == 1 and f"0% of the last {EPISODES} episodes succeeded, and 50% of as many had" in lines[0]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9])
def test_a_rate_that_stays_as_it_is_is_seldom_called_gone(rate):
    rng, told = np.random.default_rng(1), 0
    for _ in range(50):
        lines = []
        run = Health(CONFIG, 3, lines.append)
        for won in rng.random(400) < rate:
            run.episode(bool(won))
        told += any("had: resume" in line for line in lines)
    assert told <= 3


def test_every_complaint_has_a_line_that_names_a_field_of_the_config():
    fields = [word.strip(",") for line in health.LINES.values() for word in line.split() if word.count(".") == 1]
    named = [word.split(".")[1].strip(":()") for word in fields if word.startswith("calql.")]
    assert len(named) >= len(health.LINES) and all(hasattr(CalQLConfig, name) for name in named)


def test_a_warning_is_said_and_written(tmp_path, logged):
    log = RunLog(tmp_path)
    log.warn("it is dead", 30, 4)
    log.close()
    assert "it is dead" in logged()
    record = json.loads((tmp_path / "log.jsonl").read_text())
    assert (record["kind"], record["line"], record["env_steps"], record["updates"]) == ("warning", "it is dead", 30, 4)


def test_runs_that_collapsed_are_told_and_no_published_one_of_the_default_that_ended_well():
    def told(successes):
        lines = []
        health = Health(CONFIG, 3, lines.append)
        for success in successes:
            health.episode(success)
        return [line for line in lines if "had: resume" in line]

    published = (Path(__file__).parents[3] / "docs/learning").glob("*/*.json")
    runs = {path: json.loads(path.read_text()) for path in published}
    well = [p for p, run in runs.items() if run["preset"] == "robot" and run["evaluations"][-1]["success"] > 0.8]
    assert len(well) > 10
    for path in well:
        assert not told(bool(success) for _, success in runs[path]["training"]), path
    # Earlier runs of Lift without cameras: in training from 16 to 4 of 20, and from 20 to 5 of 20.
    collapsed = json.loads((Path(__file__).parent / "collapsed.json").read_text())
    assert len(collapsed) == 2 and all(told(digit == "1" for digit in digits) for digits in collapsed.values())
