"""The figures of an evaluation on an arm."""

import pytest
from scipy.stats import binomtest, multinomial
from trial_parts import settings

from agent.run.statistics import mcnemar, paired_difference, wilson
from tools.trials.ledger import Trial
from tools.trials.report import summary, table


@pytest.mark.parametrize("pairs", [10, 20, 30])
@pytest.mark.parametrize(("first", "second"), [(0.3, 0.3), (0.9, 0.5), (0.7, 0.1), (0.9, 0.8)])
def test_the_interval_of_a_paired_difference_covers_it(pairs, first, second):
    """Exactly: summed over all that may come out."""
    wins, losses, covered = first * (1 - second), second * (1 - first), 0.0
    for won in range(pairs + 1):
        for lost in range(pairs + 1 - won):
            low, high = paired_difference(won, lost, pairs)
            if low <= first - second <= high:
                rest = [won, lost, pairs - won - lost]
                covered += multinomial.pmf(rest, pairs, [wins, losses, 1 - wins - losses])
    assert 0.95 < covered < 0.99


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 9), (9, 3), (5, 5), (0, 6)])
def test_mcnemar_is_the_sign_test(wins, losses):
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected)


def trial(number, episode, result, **more):
    return Trial(
        number, episode, result, judged_by="person", steps=10, reset_s=2.0, episode_s=3.0, verdict_s=1.0, **more
    )


def test_the_table_has_each_checkpoint_and_the_difference():
    made = settings("base.pt", "tuned.pt", episodes=4)
    order = made.order()
    results = {0: ["failure", "success", "failure", "failure"], 1: ["success", "success", "success", "success"]}
    trials = [
        trial(number, number, results[policy][number // 2], by_hand=3 if number == order.index(1) else 0)
        for number, policy in enumerate(order)
    ]
    trials.insert(3, trial(9, order.index(0), "void", reason="axis 'x' is stuck"))
    found = summary(made, trials[:-1])  # the last block has one episode only
    base, tuned = found["checkpoints"]
    missing = order[-1]
    assert (base["successes"], base["episodes"]) == (1, 4 - (missing == 0))
    assert (tuned["successes"], tuned["episodes"]) == (3 - (missing == 1), 4 - (missing == 1))
    assert (base["low"], base["high"]) == wilson(1, base["episodes"])
    (difference,) = found["differences"]
    assert (difference["pairs"], difference["wins"], difference["losses"]) == (3, 1, 0)
    assert difference["difference"] == pytest.approx(1 / 3)
    assert base["void"] == {"axis 'x' is stuck": 1} and not tuned["void"]
    lines = table(found).splitlines()
    assert lines[2].startswith(f"| base.pt | {base['success']:.2f} |") and "| 2.0 | 3.0 | 1.0 |" in lines[2]
    assert any(line.startswith("| tuned.pt less base.pt | 3 | +0.333 |") for line in lines)
    assert "- tuned.pt: a person took over 0 times for 3 steps; 1 of 1 such episode ended as a success" in lines
    assert "- base.pt: 1 void: axis 'x' is stuck" in lines


def test_one_checkpoint_has_no_difference():
    found = summary(settings("a.pt", episodes=1), [trial(0, 0, "success")])
    assert found["differences"] == [] and "paired difference" not in table(found)


def test_nothing_counted_yet_is_no_rate():
    found = summary(settings("a.pt", "b.pt", episodes=1), [trial(0, 0, "void", reason="r")])
    assert [each["success"] for each in found["checkpoints"]] == [None, None] and "a.pt" in table(found)
