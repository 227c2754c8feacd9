"""What learning runs came to: the figures by hand, the table and the plot."""

import json
import math
from pathlib import Path

import pytest

from agent.spec import UserError
from tools.learning import report as learning_report
from tools.learning.report import interval
from tools.learning.results import Run, grouped, in_training, largest_drop, read, regret, robot_minutes, steps_to

ROOT = Path(__file__).parents[3]

CURVE = [(0.0, 0.5), (100.0, 0.1), (200.0, 0.4), (1000.0, 1.0)]


def test_regret_is_the_area_above_the_curve():
    # 100 * (0.5 + 0.9) / 2 + 100 * (0.9 + 0.6) / 2 + 800 * (0.6 + 0) / 2 = 70 + 75 + 240
    assert regret(CURVE) == pytest.approx(0.385)
    assert regret([(0, 1.0), (10, 1.0)]) == 0 and regret([(0, 0.0), (10, 0.0)]) == 1


def test_the_drop_is_that_of_the_first_fifth_and_never_below_nothing():
    assert largest_drop(CURVE, 1000) == pytest.approx(0.4)
    assert largest_drop([(0, 0.5), (190, 0.6), (400, 0.0)], 1000) == 0
    assert largest_drop([(0, 0.5), (224, 0.2), (1000, 1)], 1000) == pytest.approx(0.3)  # the checkpoint nearest to 200
    assert largest_drop([(0, 0.5), (230, 0.2)], 1000) is None
    assert largest_drop([(0, 0.5)], 1000) is None


def test_steps_to_a_goal_are_those_of_the_first_evaluation_that_reaches_it():
    assert steps_to(0.4, CURVE) == 0 and steps_to(0.9, CURVE) == 1000
    assert steps_to(0.9, [(0, 0.2), (10, 0.9), (20, 0.3), (30, 1.0)]) == 10
    assert steps_to(0.9, CURVE[:3]) is None


def test_robot_minutes_are_steps_at_the_tasks_rate_and_resets():
    sim = {"made_of": {"env": ["sim", {"control_hz": 10.0}]}}
    run = Run.of(result(training=[[60, 1], [300, 0], [600, 1]], **sim))
    assert robot_minutes(run, 600, 10.0) == pytest.approx((60 + 3 * 10) / 60)  # the third ended there
    assert robot_minutes(run, 0, 10.0) == 0
    assert robot_minutes(Run.of(result(**sim, env_steps=600)), 600, 0) == 1
    slower = Run.of(result(made_of={**sim["made_of"], "robot": {"hz": 5.0}}))
    assert robot_minutes(slower, 600, 0) == 2
    assert robot_minutes(Run.of(result()), 600, 10.0) is None


def test_robot_minutes_of_a_row_are_the_median_runs():
    sim = {"made_of": {"env": ["sim", {"control_hz": 10.0}]}, "training": []}
    quick, slow, never = [(0, 0.0), (600, 0.95), (1000, 1)], [(0, 0.0), (600, 0.5), (1000, 1)], [(0, 0.0), (1000, 0.5)]
    runs = [Run.of(result(seed=seed, curve=curve, **sim)) for seed, curve in enumerate((slow, quick, never))]
    assert learning_report.minutes_to_goal(runs, 0) == f"{1000 / 600:.0f}"
    assert learning_report.minutes_to_goal(runs[1:], 0) == "" and learning_report.minutes_to_goal(runs[2:], 0) == ""
    assert learning_report.minutes_to_goal([*runs, Run.of(result(seed=9))], 0) == ""


def test_success_in_training_is_that_of_each_tenth_of_the_steps():
    run = Run.of(result(training=[[50, 1], [100, 0], [150, 1], [190, 0], [199, 0], [990, 1], [1000, 0]]))
    steps, success = in_training(run)
    assert steps.tolist() == [50, 150, 950] and success.tolist() == [1, 0.25, 0.5]


def test_the_interval_of_one_run_is_wilsons():
    # p = 0.8, n = 10, z = 1.95996: centre (0.8 + 0.192) / 1.384 = 0.7167, half 0.2266
    assert interval([0.8], 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_the_interval_of_several_runs_is_the_wider_one():
    # Student's: mean 0.5, standard deviation 0.3, 4.3027 * 0.3 / sqrt(3) = 0.745, so all there is
    assert interval([0.2, 0.5, 0.8], 50) == (0.0, 1.0)
    # mean 0.5, standard deviation 0.01: 4.3027 * 0.01 / sqrt(3) = 0.025, less than Wilson's 0.079 of 150 episodes
    low, high = interval([0.49, 0.5, 0.51], 50)
    assert (low, high) == pytest.approx((0.421, 0.579), abs=1e-3)
    # 0.9, 0.94, 0.98: 4.3027 * 0.04 / sqrt(3) = 0.0994
    assert interval([0.9, 0.94, 0.98], 50) == pytest.approx((0.94 - 0.0994, 1.0), abs=1e-3)


def result(preset="calql", seed=0, curve=CURVE, **changed):
    evaluations = [{"env_steps": steps, "success": success, "episodes": 10} for steps, success in curve]
    return {
        "task": "lift", "preset": preset, "seed": seed, "env_steps": 1000, "evaluations": evaluations, "died": None,
        "died_at": 250, "training": [[20, 1], [40, 0], [60, 0], [80, 1]], "warnings": [], "minutes": 1.0, **changed,
    }  # fmt: skip


def test_the_table_has_a_row_for_each_preset_and_names_what_went_wrong(tmp_path, capsys):
    flat = [(0.0, 0.2)]
    results = [
        result(), result(seed=1, warnings=["too sure"]), result("cql", died="diverged"), result("bc", curve=flat)
    ]  # fmt: skip
    for number, content in enumerate(results):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    learning_report.main([str(tmp_path)])
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("| calql"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["calql", "2"] and cells[2].startswith("50% (30 to 70)") and cells[3].startswith("100%")
    assert cells[4:] == ["0.39", "0.50", "40%, at most 40% (of 2)", "1,000 (2 of 2)", ""]
    assert "| bc | 1 | 20% (6 to 51) |  |  |  |  |  |  |" in said
    assert "- calql, seed 1: too sure" in said and "- cql, seed 0: diverged" in said
    assert (tmp_path / "lift.png").stat().st_size > 5000


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json: not a result"):
        read([tmp_path])
    with pytest.raises(UserError, match="no results"):
        read([tmp_path / "none"])


def test_a_run_that_diverged_has_no_success_from_there_on(tmp_path):
    run = Run.of(result(curve=CURVE[:2], died="learning has diverged", died_at=150))
    assert run.died and run.points == [*CURVE[:2], (151.0, 0.0), (1000.0, 0.0)] and run.lived == 0.15
    assert largest_drop(run.points, 1000) == 0.5 and regret(run.points) > 0.9
    cells = learning_report.row("robot", [run, Run.of(result(seed=1))])
    assert cells[5] == f"{(1 - 0.15 * 0.5 + 0.5) / 2:.2f}" and cells[6] == "45%, at most 50% (of 2)"
    assert cells[7] == "not reached (1 of 2)"  # the median run


def test_of_several_folders_runs_of_one_name_are_kept_apart(tmp_path):
    for name, changed in (("small", {}), ("large", {"env_steps": 2000})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lift.json").write_text(json.dumps(result(**changed)))
    both = grouped(read([tmp_path / "small", tmp_path / "large"]))
    assert list(both) == ["small-lift", "large-lift"]
    with pytest.raises(UserError, match="lift, calql: runs of other lengths"):
        grouped([Run.of(result()), Run.of(result(env_steps=2000))])


def test_a_run_counts_once():
    with pytest.raises(UserError, match="lift, calql: two results of seed 0"):
        grouped([Run.of(result()), Run.of(result())])


def test_a_report_of_some_presets_and_where_it_cannot_be_written(tmp_path, capsys):
    for preset in ("calql", "cql"):
        (tmp_path / f"{preset}.json").write_text(json.dumps(result(preset)))
    learning_report.main([str(tmp_path), "--presets", "cql"])
    said = capsys.readouterr().out
    assert "| cql | 1 |" in said and "| calql |" not in said
    with pytest.raises(UserError, match="cal: no such preset in these results; there are calql, cql"):
        learning_report.main([str(tmp_path), "--presets", "cal"])
    with pytest.raises(UserError, match=r"cql.json/lift.png: cannot write"):
        learning_report.main([str(tmp_path), "--out", str(tmp_path / "cql.json")])


def test_a_title_says_task_and_size_in_words():
    made_of = {"env": ["sim", {"task": "Lift", "cameras": ["a", "b"], "image_size": 64}]}
    runs = [
        Run.of(result(seed=seed, made_of=made_of, offline_updates=updates)) for seed, updates in ((0, 500), (1, 2000))
    ]
    size = "500 to 2,000 offline updates, 1,000 online steps; 2 seeds, 10 episodes each"
    assert learning_report.title({"robot": runs}) == f"Lift from 2 cameras, 64 px\n{size}"
    assert learning_report.title({"robot": [Run.of(result())]}).startswith(
        "Lift\nno offline updates, 1,000 online steps; 1 seed,"
    )


def test_the_plot_has_a_thin_line_for_each_seed_and_names_as_people_say_them(tmp_path, monkeypatch):
    lines, labels = [], []
    plain = learning_report.Figure.subplots

    def subplots(figure):
        axes = plain(figure)
        draw = axes.plot

        def note(*given, **how):
            lines.append((how["color"], how["linewidth"]))
            labels.append(how.get("label"))
            return draw(*given, **how)

        axes.plot = note
        return axes

    monkeypatch.setattr(learning_report.Figure, "subplots", subplots)
    presets = {name: [Run.of(result(name, seed)) for seed in range(3)] for name in ("robot", "cql")}
    learning_report.plot(presets, tmp_path / "lift.png")
    for colour in ("#0072B2", "#D55E00"):
        assert lines.count((colour, 0.8)) == 3 and lines.count((colour, 2.2)) == 1
    assert [label for label in labels if label] == ["Cal-QL", "CQL"]


def test_a_run_is_read_as_it_was_written():
    run = Run.of(result(seed=3))
    assert run.points == CURVE and run.episodes == 10 and run.seed == 3 and not run.died
    assert math.isclose(sum(won for _, won in run.training), 2)
