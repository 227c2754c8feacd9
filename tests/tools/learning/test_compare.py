"""Paired statistics, against scipy's own tests, a simulation of the power, and results made up here."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from agent.config import FELL_BACK
from agent.spec import UserError
from tools.learning import compare
from tools.learning import report as learning_report
from tools.learning.results import Run

FLAT = {"env_steps": 1000, "died": None, "died_at": None, "warnings": [], "minutes": 1.0}


def result(preset, seed, points, training=((20, 1), (40, 0)), task="lift", **changed):
    evaluations = [{"env_steps": steps, "success": success, "episodes": 10} for steps, success in points]
    made_of = {"calql": {"calibrate": preset == "robot", "gamma": 0.95}, "seed": seed}
    same = {"task": task, "preset": preset, "seed": seed, "evaluations": evaluations, "training": list(training)}
    return FLAT | same | {"made_of": made_of} | changed


def line(start, end):
    return [(0, start), (100, start), (1000, end)]


def keep(folder: Path, *results):
    folder.mkdir(exist_ok=True)
    for each in results:
        (folder / f"{each['task']}-{each['preset']}-{each['seed']}.json").write_text(json.dumps(each))
    return folder


def test_the_interval_and_p_are_those_of_the_paired_t_test():
    one, two = np.random.default_rng(1).normal(size=(2, 12))
    low, high, p = compare.t_interval(one - two)
    test = stats.ttest_rel(one, two)
    half = stats.t.ppf(0.975, 11) * np.std(one - two, ddof=1) / 12**0.5
    assert p == pytest.approx(test.pvalue)
    assert (low, high) == pytest.approx(((one - two).mean() - half, (one - two).mean() + half))


def test_the_bootstrap_holds_the_mean_as_often_as_it_says():
    random = np.random.default_rng(2)
    held = [low < 1.0 < high for low, high in (compare.bootstrap_interval(random.normal(1, 1, 40)) for _ in range(300))]
    assert 0.90 < np.mean(held) < 0.98
    drawn = random.normal(size=9)
    assert compare.bootstrap_interval(drawn) == compare.bootstrap_interval(drawn)


def test_the_pairs_needed_find_the_difference_four_times_of_five():
    assert compare.pairs_needed(0.05) == 10  # an effect of 1: Cohen's tables
    assert compare.pairs_needed(0.1) == 34  # of 0.5
    count = compare.pairs_needed(0.1)
    drawn = np.random.default_rng(3).normal(0.05, 0.1, (4000, count))
    assert np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.02)


def test_the_figures_of_a_pair():
    one = Run.of(result("robot", 0, line(0.6, 1.0)))
    two = Run.of(result("cql", 0, [(0, 0.5), (100, 0.1), (1000, 0.9)], training=[(20, 0), (40, 0)]))
    found = {figure.name: compare.by_figure([(one, two)], figure).tolist() for figure in compare.FIGURES}
    regrets = (100 * 0.4 + 900 * 0.2) / 1000, (100 * 0.7 + 900 * 0.5) / 1000
    assert found == {
        "regret": [pytest.approx(regrets[0] - regrets[1])],
        "failures in training": [0.5 - 1.0],
        "drop in the first tenth": [0.0 - 0.4],
        "lowest success in the first tenth": [0.6 - 0.1],
        "success offline": [pytest.approx(0.1)],
        "success at the end": [pytest.approx(0.1)],
    }
    assert [figure.better for figure in compare.FIGURES] == [-1, -1, -1, 1, 1, 1]


def test_a_run_without_a_figure_is_in_no_pair_of_it():
    offline = Run.of(result("bc", 0, [(0, 0.4)], training=[]))
    late = Run.of(result("robot", 0, [(0, 0.6), (200, 0.7), (1000, 1.0)]))
    counts = [len(compare.by_figure([(late, offline)], figure)) for figure in compare.FIGURES]
    assert counts == [0, 0, 0, 0, 1, 0]
    assert len(compare.by_figure([(late, late)], compare.FIGURES[2])) == 0  # nobody looked in the first tenth


def test_runs_are_paired_by_folder_task_and_seed_and_the_others_named(tmp_path, capsys):
    one = keep(
        tmp_path / "one",
        *(result("robot", seed, line(0.5, 0.9 + 0.01 * seed)) for seed in (2, 0, 1)),
        *(result("cql", seed, line(0.4, 0.7 + 0.03 * seed)) for seed in (1, 2, 7)),
    )
    two = keep(tmp_path / "two", result("robot", 0, line(0.5, 0.5)), result("cql", 0, line(0.6, 0.8)),
               result("robot", 3, line(0.5, 0.5), task="can"))  # fmt: skip
    learning_report.main([str(one), str(two), "--compare", "robot", "cql"])
    said = capsys.readouterr().out
    assert said.startswith("robot (Cal-QL) less cql (CQL), pairs: 3; settings that differ: calql.calibrate\n")
    end = next(row for row in said.splitlines() if row.startswith("| success at the end"))
    cells = [cell.strip() for cell in end.strip("|").split("|")]
    assert cells[1:3] == ["3", f"{np.mean([0.91 - 0.73, 0.92 - 0.76, 0.5 - 0.8]):+.3f}"]
    assert cells[7] == "2 / 1 / 0" and cells[8] == f"{compare.pairs_needed(np.std([0.18, 0.16, -0.3], ddof=1)):,}"
    regret = next(row for row in said.splitlines() if row.startswith("| regret (lower"))
    assert "| 2 / 1 / 0 |" in regret and "| -0." in regret  # fewer failures are a win
    left = [row for row in said.splitlines() if row.startswith("- left out")]
    assert [row.split(": ")[1] for row in left] == [
        "one-lift, robot, seed 0",
        "one-lift, cql, seed 7",
        "two-can, robot, seed 3",
    ]
    assert "| one-lift: robot, cql | 2 |" in said and "| two-lift: robot, cql | 1 |" in said
    assert not list(tmp_path.rglob("*.png"))


def test_pairs_of_several_comparisons_count_together(tmp_path, capsys):
    runs = [result(name, 0, line(0.5, end)) for name, end in (("robot", 0.9), ("cql", 0.8), ("a", 0.7), ("b", 0.8))]
    both = ["--compare", "robot", "cql", "--compare", "a", "b", "--compare", "robot", "cql"]
    learning_report.main([str(keep(tmp_path / "x", *runs)), *both])
    said = capsys.readouterr().out
    assert "a (a) less b (b), pairs: 1" in said
    assert "| success at the end (higher is better) | 2 | +0.000 |" in said and "| 1 / 1 / 0 |" in said


def test_one_pair_or_equal_ones_have_no_interval():
    assert compare.row(compare.FIGURES[0], np.array([0.1]))[2:] == ["+0.100", "", "", "", "", "0 / 1 / 0", ""]
    assert compare.row(compare.FIGURES[4], np.zeros(4))[2:] == ["+0.000", "", "", "", "", "0 / 0 / 4", ""]
    assert compare.row(compare.FIGURES[0], np.array([]))[1:] == ["0", *[""] * 7]


def test_holms_p_is_that_of_the_procedure_step_by_step():
    assert compare.holm([0.01, 0.04]) == pytest.approx([0.02, 0.04])
    assert compare.holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])  # the larger is no surer than the smaller
    assert compare.holm([0.9, 0.8]) == [1.0, 1.0]
    assert compare.holm([None, 0.02]) == [None, pytest.approx(0.04)]  # one that cannot be tested is a test all the same
    p = np.random.default_rng(4).uniform(0, 0.1, 6)
    for level in (0.01, 0.05, 0.2):
        order, rejected = np.argsort(p), np.zeros(6, bool)
        for rank, place in enumerate(order):
            if p[place] > level / (6 - rank):
                break
            rejected[place] = True
        assert ((np.array(compare.holm(p.tolist())) <= level) == rejected).all()


def test_primary_figures_are_marked_and_have_holms_p(tmp_path, capsys):
    runs = [result("robot", seed, [(0, 0.6), (100, 0.6 - 0.01 * seed), (1000, 1.0)]) for seed in range(4)]
    runs += [result("cql", seed, [(0, 0.6), (100, 0.3 + 0.01 * seed), (1000, 0.9)]) for seed in range(4)]
    learning_report.main([str(keep(tmp_path / "x", *runs)), "--compare", "robot", "cql"])
    said = capsys.readouterr().out.splitlines()
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in said if row.startswith("|")]
    found = {cells[0]: cells for cells in table[: 2 + len(compare.FIGURES)]}
    primary = [name for name in found if "primary" in name]
    assert primary == ["regret (lower is better, primary)", "drop in the first tenth (lower is better, primary)"]
    place = found["figure"].index("p (Holm)")
    pairs, _ = compare.pairs(map(Run.of, runs), "robot", "cql")
    p = [compare.t_p(compare.by_figure(pairs, compare.FIGURES[number])) for number in (0, 2)]
    assert [found[name][place] for name in primary] == [f"{value:.3f}" for value in compare.holm(p)]
    assert all(not found[name][place] for name in found if "is better)" in name and "primary" not in name)


def test_the_primary_figures_can_be_others():
    runs = [Run.of(result(name, seed, line(0.5, 0.8 + 0.01 * seed))) for name in ("robot", "cql") for seed in range(2)]
    said = compare.report(runs, [("robot", "cql")], ["failures", "regret"])
    names = ["regret (lower is better, primary)", "failures in training (lower is better, primary)"]
    assert [line.split(" | ")[0].strip("| ") for line in said.splitlines() if "primary)" in line] == names


@pytest.mark.parametrize(
    ("comparisons", "says"),
    [
        ([("robot", "cql"), ("robot", "paper")], "lift, robot, seed 0 is in two comparisons"),
        ([("robot", "cql"), ("cql", "robot")], "lift, cql, seed 0 is in two comparisons"),
        ([("robot", "robot")], "needs two presets"),
        ([("robot", "long")], "1,000 env steps, 10 episodes against 2,000 env steps, 10 episodes"),
        ([("robot", "seen")], "1,000 env steps, 10 episodes against 1,000 env steps, 50 episodes"),
    ],
)
def test_pairs_that_are_not_independent_or_not_alike_are_refused(comparisons, says):
    runs = [Run.of(result(name, 0, line(0.5, 0.9))) for name in ("robot", "cql", "paper")]
    runs.append(Run.of(result("long", 0, line(0.5, 0.9), env_steps=2000)))
    points = [{"env_steps": steps, "success": 0.5, "episodes": 50} for steps in (0, 1000)]
    runs.append(Run.of(result("seen", 0, [], evaluations=points)))
    with pytest.raises(UserError, match=says):
        compare.report(runs, comparisons)


@pytest.mark.parametrize(
    ("made_of", "says"),
    [
        ({"at": [0.5, 1.0]}, r"lift, seed 0: no pair: at: \[0.1, 1.0\] against \[0.5, 1.0\]"),
        ({"data": {"maze": ["--steps", "100"]}}, "lift, seed 0: no pair: data.maze"),
    ],
)
def test_pairs_evaluated_elsewhere_or_from_other_demonstrations_are_refused(made_of, says):
    same = {"calql": {"gamma": 0.95}, "at": [0.1, 1.0], "data": {"maze": ["--steps", "40"]}}
    runs = [result("robot", 0, line(0.5, 1), made_of=same), result("cql", 0, line(0.5, 1), made_of=same | made_of)]
    with pytest.raises(UserError, match=says):
        compare.report([Run.of(each) for each in runs], [("robot", "cql")])


def test_pairs_that_differ_in_other_settings_than_the_rest_are_refused():
    runs = [Run.of(result(preset, seed, line(0.5, 0.9))) for preset in ("robot", "cql") for seed in range(2)]
    assert "differ: calql.calibrate" in compare.report(runs, [("robot", "cql")])
    other = {"calql": {"calibrate": False, "gamma": 0.99}, "seed": 0}
    runs += [Run.of(result("robot", 0, line(0.5, 0.9), task="maze"))]
    runs += [Run.of(result("cql", 0, line(0.5, 0.9), task="maze", made_of=other))]
    words = r"robot cql: not one change of settings but 2: lift \(calql.calibrate\) against maze \(calql.cal"
    with pytest.raises(UserError, match=words):
        compare.report(runs, [("robot", "cql")])


def test_demonstrations_that_an_older_file_does_not_tell_are_no_reason_to_refuse():
    made_of = {"calql": {"gamma": 0.95}}
    runs = [result("robot", 0, line(0.5, 1), made_of=made_of)]
    runs += [result("cql", 0, line(0.5, 1), made_of=made_of | {"data": {"maze": ["--steps", "40"]}})]
    said = compare.report([Run.of(each) for each in runs], [("robot", "cql")])
    assert "settings that differ: none that is recorded" in said


def test_runs_of_one_preset_with_other_settings_are_no_mean():
    settings = {"calql": {"gamma": 0.5}, "seed": 1, "data": {"seed": 1}}
    runs = [result("robot", 0, line(0.5, 1)), result("robot", 1, line(0.5, 1), made_of=settings)]
    with pytest.raises(UserError, match=r"lift, robot: seeds 0 and 1 have other settings \(calql.gamma: 0.95, 0.5\)"):
        compare.pairs(map(Run.of, runs), "robot", "cql")


def test_pairs_of_two_commits_are_counted():
    runs = [result(name, seed, line(0.5, 1)) for name in ("robot", "cql") for seed in (0, 1)]
    runs[0]["machine"], runs[2]["machine"] = {"commit": "abc"}, {"commit": "def"}
    said = compare.report([Run.of(each) for each in runs], [("robot", "cql")])
    assert "calql.calibrate; runs of different commits in 1 of 2 pairs\n" in said


def test_pairs_of_two_precisions_are_counted():
    runs = [result(name, seed, line(0.5, 1)) for name in ("robot", "cql") for seed in (0, 1, 2)]
    for number in (0, 1, 3):  # both runs of seed 0, one of seed 1
        runs[number]["warnings"] = [f"learner.bf16 is 'all', but this CPU is slower in it: {FELL_BACK}"]
    said = compare.report([Run.of(each) for each in runs], [("robot", "cql")])
    assert "calql.calibrate; one run in float32 that asked for bfloat16 in 1 of 3 pairs\n" in said


def test_a_comparison_of_some_tasks(tmp_path, capsys):
    good, bad, rows = line(0.5, 1), line(0.5, 0.6), []
    for task, robot, cql in (("lift", good, bad), ("can", bad, good)):
        rows += [result("robot", seed, robot, task=task) for seed in (0, 1)]
        rows += [result("cql", seed, cql, task=task) for seed in (0, 1)]
    folder = str(keep(tmp_path / "x", *rows))
    learning_report.main([folder, "--tasks", "can", "--compare", "robot", "cql"])
    said = capsys.readouterr().out
    assert "| can: robot, cql | 2 |" in said and "lift" not in said
    with pytest.raises(UserError, match="cans: no such task in these results; there are can, lift"):
        learning_report.main([folder, "--tasks", "cans"])


def test_what_cannot_be_compared_is_refused(tmp_path):
    folder = str(keep(tmp_path / "x", result("robot", 0, line(0.5, 1)), result("cql", 1, line(0.5, 1))))
    with pytest.raises(UserError, match="no task has both with the same seed"):
        learning_report.main([folder, "--compare", "robot", "cql"])
    with pytest.raises(UserError, match="cq: no such preset in these results; there are robot, cql"):
        learning_report.main([folder, "--compare", "robot", "cq"])
