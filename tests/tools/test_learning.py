"""Learning runs: the figures by hand, the suites, and one whole small run in slices."""

import json
import math
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from agent import checkpoint
from agent.episode_file import read_episodes
from agent.returns import rewards_and_returns
from agent.spec import UserError
from tools.bench import (
    learning,
    learning_data,
    learning_process,
    learning_report,
    learning_run,
    learning_settings,
    learning_suite,
    surprise,
)
from tools.bench.learning_report import Run, interval, largest_drop, regret, steps_to
from tools.bench.learning_settings import write
from tools.bench.learning_suite import Suite, Task

ROOT = Path(__file__).parents[2]
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


def test_success_in_training_is_that_of_each_tenth_of_the_steps():
    run = Run.of(result(training=[[50, 1], [100, 0], [150, 1], [190, 0], [199, 0], [990, 1], [1000, 0]]))
    steps, success = learning_report.in_training(run)
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
    assert cells[4:] == ["0.39", "0.50", "40%, at most 40% (of 2)", "1,000 (2 of 2)"]
    assert "| bc | 1 | 20% (6 to 51) |  |  |  |  |  |" in said
    assert "- calql, seed 1: too sure" in said and "- cql, seed 0: diverged" in said
    assert (tmp_path / "lift.png").stat().st_size > 5000


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json: not a result"):
        learning_report.read([tmp_path])
    with pytest.raises(UserError, match="no results"):
        learning_report.read([tmp_path / "none"])


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
    both = learning_report.grouped(learning_report.read([tmp_path / "small", tmp_path / "large"]))
    assert list(both) == ["small-lift", "large-lift"]
    with pytest.raises(UserError, match="lift, calql: runs of other lengths"):
        learning_report.grouped([Run.of(result()), Run.of(result(env_steps=2000))])


@pytest.mark.parametrize(
    ("steps", "at", "spacing"),
    [
        (6000, [0.2, 0.5, 1], 600),
        (6000, [1], 6000),
        (20_000, [0.025, 0.05, 0.2, 1], 500),
        (20_000, [0.005, 1], 100),
        (20_000, [1 / 3, 1], 200),
        (20, [0.01], 1),
    ],
)
def test_there_is_a_checkpoint_at_every_part_of_a_run_that_is_evaluated(steps, at, spacing):
    assert learning_run.spacing(steps, at) == spacing


def test_a_run_counts_once():
    with pytest.raises(UserError, match="lift, calql: seed 0 is there twice"):
        learning_report.grouped([Run.of(result()), Run.of(result())])


def test_a_report_of_some_presets_and_where_it_cannot_be_written(tmp_path, capsys):
    for preset in ("calql", "cql"):
        (tmp_path / f"{preset}.json").write_text(json.dumps(result(preset)))
    learning_report.main([str(tmp_path), "--presets", "cql"])
    said = capsys.readouterr().out
    assert "| cql | 1 |" in said and "| calql |" not in said
    with pytest.raises(UserError, match="--presets cal: there are calql, cql"):
        learning_report.main([str(tmp_path), "--presets", "cal"])
    with pytest.raises(UserError, match=r"cql.json/lift.png: cannot write"):
        learning_report.main([str(tmp_path), "--out", str(tmp_path / "cql.json")])


def test_no_two_of_many_presets_look_alike(tmp_path, monkeypatch):
    looks = []
    presets = {f"p{number}": [Run.of(result())] for number in range(17)}
    plain = learning_report.Figure.subplots

    def subplots(figure):
        axes = plain(figure)
        draw = axes.plot

        def note(*given, **how):
            if "marker" in how:
                looks.append((how["color"], how["marker"]))
            return draw(*given, **how)

        axes.plot = note
        return axes

    monkeypatch.setattr(learning_report.Figure, "subplots", subplots)
    learning_report.plot("lift", presets, tmp_path / "lift.png")
    assert len(looks) == len(set(looks)) == 17


def test_a_run_is_read_as_it_was_written():
    run = Run.of(result(seed=3))
    assert run.points == CURVE and run.episodes == 10 and run.seed == 3 and not run.died
    assert math.isclose(sum(won for _, won in run.training), 2)


@pytest.mark.parametrize("name", ["state_lift", "lift_small", "lift_6000", "can_small", "can_30000"])
def test_the_results_in_docs_are_those_of_the_suite_as_it_is(name, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    suite = learning_suite.read(name)
    kept = ROOT / "docs" / "learning" / name
    found = [job for job in learning_suite.jobs(suite, tmp_path) if learning.done_before(job, suite, kept, {})]
    assert {f"{job.name}.json" for job in found} == {path.name for path in kept.glob("*.json")}


@pytest.mark.parametrize(("ablation", "of"), [("ablation_lift", "lift_small"), ("ablation_can", "can_small")])
def test_an_ablation_begins_with_the_runs_of_its_suite(ablation, of, monkeypatch):
    monkeypatch.chdir(ROOT)
    changed, plain = learning_suite.read(ablation), learning_suite.read(of)
    assert changed.tasks == plain.tasks and changed.presets["robot"] == plain.presets["robot"]
    assert (changed.seeds, changed.episodes) == (plain.seeds, plain.episodes)


@pytest.mark.parametrize("task", ["can", "door", "square"])
def test_rlpd_and_wsrl_look_as_far_ahead_as_the_task_wants(task, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    jobs = {job.preset: job for job in learning_suite.jobs(learning_suite.read(task), tmp_path) if job.seed == 0}
    wanted = learning_run.settings(jobs["robot"].configs)["calql"].gamma
    assert all(learning_run.settings(jobs[name].configs)["calql"].gamma == wanted for name in ("rlpd", "wsrl"))


@pytest.mark.parametrize("name", learning_suite.names())
def test_every_suite_can_be_read_with_all_its_configs(name, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    suite = learning_suite.read(name)
    for job in learning_suite.jobs(suite, tmp_path):
        learning_run.settings(job.configs)
    for task in suite.tasks.values():
        if task.rollouts:
            learning_run.settings((*task.configs, *task.rollouts.configs))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tasks: {a: {configs: []}}", "at least one task, preset"),
        ("tasks: {a: {configs: [], demonstrations: magic}}\npresets: {p: []}", "scripted or convert, not magic"),
        ("tasks: {a: {configs: []}}\npresets: {p: []}\nat: [0.5, 0.2]", "in their order"),
        (
            "tasks: {a: {configs: []}}\npresets: {p: configs/cql.yaml}",
            "presets: p: a list of config files or mappings",
        ),
        (
            "tasks: {a: {configs: []}}\npresets: {p: [configs/cql.yaml, 3]}",
            r"presets: p: .*not \['configs/cql.yaml', 3\]",
        ),
        ("tasks: {a: {config: []}}\npresets: {p: []}", "did you mean 'configs'"),
        ("- a", "mine.yaml: expected `key: value` lines"),
        ("tasks: {a: 3}\npresets: {p: []}", "mine.yaml: a: expected `key: value` lines, not 3"),
        ("tasks: {a: {configs: []}}\npresets: {no: []}", "False: a name is"),
        ("tasks: {a: {configs: []}}\npresets: {a/b: []}", "'a/b': a name is"),
    ],
)
def test_a_suite_that_cannot_be_meant_is_refused(tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        learning_suite.read(str(tmp_path / "mine.yaml"))


def test_a_suite_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"tasks: {caf\xe9: {}}")
    with pytest.raises(UserError, match="not YAML"):
        learning_suite.read(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("minutes", ["inf", "nan", "-1"])
def test_a_slice_has_an_end(minutes):
    with pytest.raises(UserError, match="--minutes"):
        learning.main(["--suite", "smoke", "--minutes", minutes])


def test_a_source_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "maze.hdf5").touch()
    suite = Suite({"maze": Task([], "convert")}, {"robot": []})
    assert learning.sources(["maze=~/maze.hdf5"], suite) == {"maze": tmp_path / "maze.hdf5"}
    with pytest.raises(UserError, match="expected TASK=PATH"):
        learning.sources(["maze=~/none.hdf5"], suite)


def test_a_preset_may_be_written_out_in_the_suite(tmp_path):
    suite = Suite(
        {"lift": Task([str(ROOT / "configs/lift.yaml")])},
        {
            "robot": [],
            "calm": {"calql": {"gamma": 0.5}},
            "both": [
                str(ROOT / "configs/cql.yaml"),
                {"calql": {"gamma": 0.6, "cql_actions": 7}},
                {"calql": {"gamma": 0.7}},
            ],
        },
        1,
    )
    robot, calm, both = (learning_run.settings(job.configs)["calql"] for job in learning_suite.jobs(suite, tmp_path))
    assert robot.gamma == 0.95 and calm.gamma == 0.5 and calm.bc_weight == robot.bc_weight
    assert robot.calibrate and not both.calibrate and both.gamma == 0.7 and both.cql_actions == 7
    suite.presets["calm"] = {"calql": {"gama": 0.5}}
    with pytest.raises(UserError, match=r"calm\.yaml.*gamma"):
        learning_run.settings(learning_suite.jobs(suite, tmp_path)[1].configs)


def test_an_unknown_suite_task_or_preset_is_named():
    with pytest.raises(UserError, match="did you mean 'smoke'"):
        learning.main(["--suite", "smoky"])
    with pytest.raises(UserError, match="--presets calq: there are"):
        learning.main(["--suite", "smoke", "--presets", "calq"])


def test_tasks_without_their_data_are_left_out_and_named(tmp_path, capsys):
    suite = Suite({"maze": Task([], "convert"), "lift": Task([])}, {"cql": []}, seeds=2)
    jobs = learning.wanted(suite, {"tasks": [], "presets": []}, {}, tmp_path)
    assert [job.name for job in jobs] == ["lift-cql-0", "lift-cql-1"]
    assert "--source maze=PATH" in capsys.readouterr().out
    assert len(learning.wanted(suite, {"tasks": [], "presets": []}, {"maze": tmp_path}, tmp_path)) == 4


def test_seeds_have_their_own_demonstrations_unless_they_are_a_given_files(tmp_path):
    suite = Suite({"maze": Task([], "convert"), "lift": Task([])}, {"cql": []})
    assert learning_data.place(tmp_path, suite, "lift", 2) == tmp_path / "data" / "lift-2"
    assert learning_data.place(tmp_path, suite, "maze", 2) == tmp_path / "data" / "maze"


def test_the_checkpoints_nearest_to_those_wanted_are_taken_once(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for steps in (60, 120, 190, 1003):
        (tmp_path / "checkpoints" / f"{steps:08d}.pt").touch()
    assert list(learning_run.nearest_checkpoints(tmp_path, [50, 100, 110, 200, 1000])) == [60, 120, 190, 1003]
    assert learning_run.nearest_checkpoints(tmp_path / "none", [1]) == {}


def test_what_a_resumed_learner_went_back_over_counts_once(tmp_path):
    lines = [{"kind": "episode", "env_steps": steps, "success": 0} for steps in (10, 20, 30, 20, 35)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "epi')
    assert [record["env_steps"] for record in learning_run.records(tmp_path, "episode")] == [10, 20, 20, 35]


def minari(path, lengths, at_goal):
    """A folder as Minari's D4RL AntMaze is: nested observations of T + 1 rows, the reward stays 1 at the goal."""
    rng = np.random.default_rng(0)
    (path / "data").mkdir(parents=True)
    with h5py.File(path / "data" / "main_data.hdf5", "w") as file:
        for number, (steps, first) in enumerate(zip(lengths, at_goal)):
            episode = file.create_group(f"episode_{number}")
            for key, size in (("achieved_goal", 2), ("desired_goal", 2), ("observation", 27)):
                episode[f"observations/{key}"] = rng.normal(size=(steps + 1, size))
            episode["actions"] = rng.uniform(-1, 1, (steps, 8)).astype(np.float32)
            reached = np.arange(steps) >= first if first is not None else np.zeros(steps, bool)
            episode["rewards"], episode["infos/success"] = reached.astype(float), np.append(False, reached)
            episode["terminations"], episode["truncations"] = np.zeros(steps, bool), np.arange(steps) == steps - 1
    (path / "data" / "metadata.json").write_text(json.dumps({"dataset_id": "D4RL/antmaze/test-v0"}))


def test_a_dataset_in_minaris_format_becomes_demonstrations_of_the_task(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    minari(tmp_path / "umaze-v1", lengths=[9, 7], at_goal=[4, None])
    suite = learning_suite.read("antmaze")
    folder = tmp_path / "results" / "data" / "umaze"
    means = learning_process.Means(threading.Event(), 1)
    learning_data.prepare(folder, "umaze", suite.tasks["umaze"], 0, {"umaze": tmp_path / "umaze-v1"}, means)
    reached, failed = read_episodes([folder])
    assert reached.rewards.tolist() == [0, 0, 0, 0, 1] and reached.terminated[-1] and reached.succeeded
    assert len(failed) == 7 and failed.truncated[-1] and not failed.succeeded
    assert reached.meta["env"]["name"] == "gym:gymnasium_robotics:AntMaze_UMaze-v4"
    assert reached.meta["env"]["options"]["binary"] is True
    config = learning_run.settings((*suite.tasks["umaze"].configs, *suite.presets["paper"]))
    rewards, returns = rewards_and_returns(reached, config["reward"], 0.99)
    assert rewards.tolist() == [-5, -5, -5, -5, 5]  # calql.md's AntMaze: R_0 = -500 (1 - g^4) + 5 g^4
    assert returns[0] == pytest.approx(-500 * (1 - 0.99**4) + 5 * 0.99**4, rel=1e-5)
    assert rewards_and_returns(failed, config["reward"], 0.99)[1] == pytest.approx(-500)
    with pytest.raises(UserError, match="--source umaze=PATH"):
        learning_data.prepare(tmp_path / "other", "umaze", suite.tasks["umaze"], 0, {}, means)


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    """A run whose stages are functions of ours: (job, what was called, go on with it)."""
    (tmp_path / "tiny.yaml").write_text("online: {env_steps: 2000}\n")
    job, called = learning_suite.Job("reach", "robot", 0, (str(tmp_path / "tiny.yaml"),)), []

    def stage(name):
        def work(*given):
            called.append(f"{name} {given[2]}" if name == "evaluate" else name)
            if called[-1] in outcomes:
                raise outcomes[called[-1]]
            return {"env_steps": given[2], "success": 0.5, "episodes": 5}

        return work

    outcomes: dict = {}
    for name in ("train_offline", "fine_tune", "evaluate"):
        monkeypatch.setattr(learning_run, name, stage(name))
    (tmp_path / "work/online/checkpoints").mkdir(parents=True)
    (tmp_path / "work/online/checkpoints/00001000.pt").touch()
    (tmp_path / "work/online/log.jsonl").write_text('{"kind": "update", "env_steps": 1250}{"kind": "epi\n')
    with open(tmp_path / "work/online/log.jsonl", "a") as log:
        log.write('{"kind": "update", "env_steps": 1300}\n')

    def go_on(**settings):
        given = {"episodes": 5, "at": [0.5], "keep": True} | settings
        means = learning_process.Means(threading.Event(), 1)
        learning_run.run(job, tmp_path / "work", tmp_path, tmp_path / "result.json", means, **given)
        return json.loads((tmp_path / "result.json").read_text())

    return called, outcomes, go_on


def test_a_run_that_diverged_online_stays_so_when_its_evaluations_go_on_later(stubbed):
    called, outcomes, go_on = stubbed
    outcomes["fine_tune"] = UserError("learner ended: learning has diverged: the critic's parameters are not finite")
    outcomes["evaluate 1000"] = learning_process.Stopped()
    with pytest.raises(learning_process.Stopped):
        go_on()
    outcomes.clear()
    found = go_on()
    assert "diverged" in found["died"] and found["died_at"] == 1300 and called.count("fine_tune") == 1
    assert [e["env_steps"] for e in found["evaluations"]] == [0, 1000]


def test_a_run_that_diverges_offline_has_a_result_without_success(stubbed):
    called, outcomes, go_on = stubbed
    outcomes["train_offline"] = UserError("pretrain ended: learning has diverged: the actor's parameters")
    found = go_on()
    assert "diverged" in found["died"] and [e["success"] for e in found["evaluations"]] == [0.0]
    assert called == ["train_offline"] and Run.of(found).points[-1] == (2000.0, 0.0)


def test_any_other_error_of_a_stage_is_no_result(stubbed, tmp_path):
    _, outcomes, go_on = stubbed
    outcomes["fine_tune"] = UserError("learner ended with exit code 2: no such file")
    with pytest.raises(UserError, match="no such file"):
        go_on()
    assert not (tmp_path / "result.json").exists()


def test_a_run_is_not_gone_on_with_when_its_settings_have_changed(stubbed, tmp_path):
    _, _, go_on = stubbed
    go_on()
    (tmp_path / "result.json").unlink()
    with pytest.raises(UserError, match=r"made with other settings \(episodes: 5, now 6\)"):
        go_on(episodes=6)
    (tmp_path / "tiny.yaml").write_text("online: {env_steps: 3000}\n")
    with pytest.raises(UserError, match=r"work.made_of.json.*online.env_steps: 2000, now 3000.*another --out"):
        go_on()


def test_a_result_does_not_say_where_its_folder_lay(tmp_path):
    given = ["configs/lift.yaml", str(tmp_path / "presets/robot/0.yaml")]
    assert learning_run.named(given, tmp_path) == ["configs/lift.yaml", "presets/robot/0.yaml"]
    kept = json.dumps(
        [json.loads(path.read_text()).get("configs") for path in (ROOT / "docs/learning").glob("*/*.json")]
    )
    assert '"presets/te2_max.yaml' in kept and '"/' not in kept and "runs/" not in kept


def test_a_result_of_other_settings_is_not_taken_for_this_suites(tmp_path):
    (tmp_path / "tiny.yaml").write_text("online: {env_steps: 2000}\n")
    suite = Suite({"reach": Task([str(tmp_path / "tiny.yaml")])}, {"robot": []}, seeds=1)
    (job,) = learning_suite.jobs(suite, tmp_path)
    assert not learning.done_before(job, suite, tmp_path, {})
    parts = learning_run.depends_on(job, suite.episodes, suite.at)
    (tmp_path / "reach-robot-0.json").write_text(json.dumps(result(made_of=parts)))
    assert learning.done_before(job, suite, tmp_path, {})
    suite.episodes = 7
    with pytest.raises(UserError, match=r"reach-robot-0.json: made with other settings \(episodes: 50, now 7\)"):
        learning.done_before(job, suite, tmp_path, {})


def test_a_result_of_other_demonstrations_is_not_taken_for_this_suites(tmp_path):
    source = tmp_path / "people.hdf5"
    source.write_bytes(b"one")
    suite = Suite({"maze": Task([], "convert"), "lift": Task([])}, {"robot": []}, seeds=1)
    maze, lift = learning_suite.jobs(suite, tmp_path)
    for job in (maze, lift):
        data = learning_data.depends_on(suite.tasks[job.task], 0, source if job is maze else None)
        parts = {**learning_run.depends_on(job, suite.episodes, suite.at), "data": data}
        write(tmp_path / f"{job.name}.json", {"made_of": parts})
    assert all(learning.done_before(job, suite, tmp_path, {"maze": source}) for job in (maze, lift))
    (tmp_path / "noisy.yaml").write_text("collect: {noise: 0.9}\n")
    suite.tasks["lift"] = Task([str(tmp_path / "noisy.yaml")])
    with pytest.raises(UserError, match=r"data.collect.noise: 0.0, now 0.9"):
        learning.done_before(lift, suite, tmp_path, {})
    (tmp_path / "moved").mkdir()
    source = source.rename(tmp_path / "moved/people.hdf5")
    assert learning.done_before(maze, suite, tmp_path, {"maze": source})  # the same, elsewhere
    source.write_bytes(b"two")
    learning_data.digest.cache_clear()
    with pytest.raises(UserError, match=r"data.source.sha256"):
        learning.done_before(maze, suite, tmp_path, {"maze": source})


def test_what_a_folder_of_the_users_is_known_by(tmp_path):
    def digest():
        learning_data.digest.cache_clear()
        return learning_data.digest(tmp_path)

    seen = [digest()]
    for name, text in (("b", "x"), ("a", "y"), ("a", "z")):
        (tmp_path / name).write_text(text)
        seen.append(digest())
    (tmp_path / "a").rename(tmp_path / "c")
    seen.append(digest())
    assert len(set(seen)) == 5
    (tmp_path / "c").rename(tmp_path / "a")
    assert digest() == seen[3]


def test_seeds_can_be_added_to_those_that_share_a_given_file(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_data, "converted", lambda folder, *given: folder.mkdir())
    (tmp_path / "people.hdf5").write_bytes(b"one")
    suite = Suite({"maze": Task([], "convert")}, {"robot": []})
    means, have = learning_process.Means(threading.Event(), 1), {"maze": tmp_path / "people.hdf5"}
    for seed in (0, 2):
        learning_data.prepare(tmp_path / "data/maze", "maze", suite.tasks["maze"], seed, have, means)


def test_runs_wait_for_all_of_their_data(tmp_path, monkeypatch):
    """Somebody else's signal ended what makes them: no run begins on a part."""

    def prepare(folder, name, *rest):
        if name == "cut":
            raise learning_process.Stopped

    made = []
    monkeypatch.setattr(learning_data, "prepare", prepare)
    monkeypatch.setattr(learning_run, "run", lambda job, *given, **more: made.append(job.name))
    suite = Suite({"cut": Task([]), "whole": Task([])}, {"robot": []}, seeds=1)
    means = learning_process.Means(threading.Event(), 1)
    outcome = learning.run_all(suite, learning_suite.jobs(suite, tmp_path), {}, tmp_path, 1, means, keep=False)
    assert made == ["whole-robot-0"] and outcome.stopped == 2 and not outcome.failed


def test_settings_that_are_not_finite_are_json_all_the_same(tmp_path):
    parts = learning_run.made_of([], ["calql"])
    assert parts["calql"]["cql_clip_high"] == "Infinity"
    write(tmp_path / "new.json", parts)
    (tmp_path / "old.json").write_text((tmp_path / "new.json").read_text().replace('"Infinity"', "Infinity"))
    for name in ("new", "old"):
        learning_settings.same(tmp_path / name, learning_settings.read(tmp_path / f"{name}.json"), parts)
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "bad.json", {"loss": math.nan})
    for path in (ROOT / "docs/learning").glob("*/*.json"):
        json.loads(path.read_text(), parse_constant=lambda word, path=path: pytest.fail(f"{word} in {path}"))


def test_a_damaged_result_is_named(tmp_path):
    suite = Suite({"reach": Task([])}, {"robot": []}, seeds=1)
    (job,) = learning_suite.jobs(suite, tmp_path)
    (tmp_path / "reach-robot-0.json").write_text('{"made_of": ')
    with pytest.raises(UserError, match=r"reach-robot-0.json: not what .* writes"):
        learning.done_before(job, suite, tmp_path, {})


def test_two_calls_make_a_run_once(stubbed, tmp_path):
    called, _, go_on = stubbed
    go_on()
    before = list(called)
    go_on()
    assert called == before


def test_one_tasks_missing_data_leave_the_other_tasks_alone(tmp_path, monkeypatch, capsys):
    made = []

    def prepare(folder, name, *rest):
        if name == "bad":
            raise UserError("its file is damaged")

    monkeypatch.setattr(learning_data, "prepare", prepare)
    monkeypatch.setattr(learning_run, "run", lambda job, *given, **more: made.append(job.name))
    suite = Suite({"bad": Task([]), "good": Task([])}, {"robot": []}, seeds=2)
    means = learning_process.Means(threading.Event(), 1)
    outcome = learning.run_all(suite, learning_suite.jobs(suite, tmp_path), {}, tmp_path, 1, means, keep=False)
    assert made == ["good-robot-0", "good-robot-1"] and outcome.failed == ["data bad-0", "data bad-1"]
    assert "its file is damaged" in capsys.readouterr().out


SHARING = {
    "robot": ([], True),
    "w_1_online": ({"calql": {"cql_weight_online": 1.0}}, True),
    "share": ({"online": {"offline_share": -1, "utd": 0.25}}, True),
    "w_1": ({"calql": {"cql_weight": 0.7}}, False),
    "shorter": ({"offline": {"updates": 7}}, False),
    "narrow": ({"network": {"critics": 3}}, False),
}


def test_parts_of_a_preset_are_no_other_presets(tmp_path):
    presets = {
        "cloning": [{"calql": {"gamma": 0.5}}, {"calql": {"gamma": 0.6}}],
        "cloning_1": {"calql": {"gamma": 0.7}},
    }
    found = [
        learning_run.settings(job.configs)["calql"].gamma
        for job in learning_suite.jobs(Suite({"lift": Task([])}, presets, 1), tmp_path)
    ]
    assert found == [0.6, 0.7]


def test_presets_that_change_nothing_offline_share_the_offline_training_and_have_their_own_settings_online(
    tmp_path, monkeypatch
):
    trained, online, inside = [], {}, []

    def fine_tune(folder, ckpt, configs, seed, means, *flags):
        online[folder.name] = yaml.safe_load(learning_run.online_settings(folder / "o.yaml", configs).read_text()), ckpt

    def train_offline(folder, *given):
        assert folder not in inside  # two at once
        inside.append(folder)
        time.sleep(0.05)
        if folder not in trained:
            trained.append(folder)
        inside.remove(folder)

    monkeypatch.setattr(learning_run, "train_offline", train_offline)
    monkeypatch.setattr(learning_run, "fine_tune", fine_tune)
    monkeypatch.setattr(learning_run, "evaluate", lambda folder, ckpt, steps, *given: {"env_steps": steps})
    monkeypatch.setattr(learning_data, "prepare", lambda *given: None)
    suite = Suite({"reach": Task([])}, {name: preset for name, (preset, _) in SHARING.items()}, seeds=2)
    jobs, means = learning_suite.jobs(suite, tmp_path), learning_process.Means(threading.Event(), 1)
    assert not learning.run_all(suite, jobs, {}, tmp_path, 4, means, keep=False).failed
    assert len(trained) == 2 * (1 + sum(not shares for _, shares in SHARING.values()))
    for seed in (0, 1):
        for name, (_, shares) in SHARING.items():
            ckpts = [online[f"reach-{preset}-{seed}"][1] for preset in ("robot", name)]
            assert (ckpts[0] == ckpts[1]) == shares
    assert online["reach-robot-0"][1] != online["reach-robot-1"][1]
    for name, weight, share in (("robot", 0.3, 0.5), ("w_1_online", 1.0, 0.5), ("share", 0.3, -1)):
        found, _ = online[f"reach-{name}-0"]
        assert found["calql"]["cql_weight_online"] == weight and found["online"]["offline_share"] == share


def test_an_offline_part_goes_when_no_run_of_the_suite_needs_it_any_more(tmp_path):
    suite = Suite({"reach": Task([])}, {name: preset for name, (preset, _) in SHARING.items()}, seeds=1)
    jobs = learning_suite.jobs(suite, tmp_path)
    data = learning_data.place(tmp_path, suite, "reach", 0)
    places = {job.preset: learning_run.offline_part(job, tmp_path / "work", data, suite.episodes)[0] for job in jobs}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    done = {"robot", "share", "w_1", "narrow"}
    (places["narrow"] / learning_run.KEPT).touch()
    for job in jobs:
        if job.preset in done:
            (tmp_path / f"{job.name}.json").touch()
    learning.forget_offline_parts(suite, [job for job in jobs if job.preset in done], tmp_path)
    assert not places["w_1"].exists()
    assert places["robot"].exists() and places["shorter"].exists()  # one is needed, one not ours
    assert places["narrow"].exists()  # --keep


def test_an_offline_part_is_of_these_demonstrations_alone(tmp_path):
    (job,) = learning_suite.jobs(Suite({"reach": Task([])}, {"robot": []}, 1), tmp_path)
    places = []
    for noise in (0.1, 0.2):
        write(tmp_path / "data/reach-0-work/made_of.json", {"collect": {"noise": noise}})
        places.append(learning_run.offline_part(job, tmp_path / "work", tmp_path / "data/reach-0", 50)[0])
    assert places[0] != places[1]


def test_who_waits_for_an_offline_part_can_be_stopped(tmp_path):
    means = learning_process.Means(threading.Event(), 1)
    with learning_process.alone(tmp_path / "a", means), learning_process.alone(tmp_path / "b", means):
        threading.Timer(0.1, means.stop.set).start()
        with pytest.raises(learning_process.Stopped), learning_process.alone(tmp_path / "a", means):
            pytest.fail("two at once")
    with learning_process.alone(tmp_path / "a", means):
        pass


def test_minutes_are_those_of_all_slices_and_of_the_shared_part(stubbed, tmp_path):
    _, _, go_on = stubbed
    assert go_on()["minutes"] == 0
    (tmp_path / "result.json").unlink()
    write(tmp_path / "work/minutes.json", {"minutes": 30.0})
    (offline,) = tmp_path.glob("offline-*")
    assert (offline / learning_run.KEPT).exists()
    write(offline / "minutes.json", {"minutes": 12.0})
    assert go_on()["minutes"] == 42


@pytest.mark.parametrize("said", ["the learner's run is over\n", "episode 3: 12 steps\n"])
def test_a_robot_that_somebody_else_stopped_ends_the_slice(tmp_path, monkeypatch, said):
    """Not so one that the learner has sent home, as long as the learner takes to end."""
    looks = {"learner": 5}

    class Process(Ended):
        def __init__(self, folder, name, *words):
            super().__init__(folder, name, *words)
            self.name = name

        def ended(self):
            looks["learner"] -= self.name == "learner"
            return self.name == "robot" or looks["learner"] < 0

        def finish(self, means):
            return said if self.name == "robot" else "finished: 2000 env steps"

    monkeypatch.setattr(learning_run, "Process", Process)
    monkeypatch.setattr(learning_run, "POLL_S", 0.001)
    given = (tmp_path, tmp_path / "offline.pt", [], 0, learning_process.Means(threading.Event(), 1))
    if "over" in said:
        assert learning_run.fine_tune(*given) == tmp_path / "online"
    else:
        with pytest.raises(learning_process.Stopped):
            learning_run.fine_tune(*given)


class Ended:
    """In place of learning_run.Process: a command that has ended well, and said so much."""

    said = ""

    def __init__(self, folder, name, *words):
        self.words, self.process = words, type("", (), {"returncode": 0})
        started.append(list(map(str, words)))

    def ended(self):
        return True

    def finish(self, means):
        return Ended.said

    def end(self):
        pass


started: list = []


def test_a_learner_that_somebody_else_stopped_has_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_run, "Process", Ended)
    means, online, ckpt = learning_process.Means(threading.Event(), 1), tmp_path / "online", tmp_path / "offline.pt"
    Ended.said = "fine-tuning offline.pt on cpu\nstopped: 36 env steps, 3 episodes"
    with pytest.raises(learning_process.Stopped):
        learning_run.fine_tune(tmp_path, ckpt, [], 0, means)
    assert not (tmp_path / "online.done").exists()
    Ended.said = "finished: 2000 env steps, 100 episodes"
    assert learning_run.fine_tune(tmp_path, ckpt, [], 0, means) == online and (tmp_path / "online.done").exists()


def test_a_learner_that_was_stopped_before_its_first_checkpoint_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_run, "Process", Ended)
    Ended.said = "finished: 2000 env steps"
    (tmp_path / "online").mkdir()
    (tmp_path / "online/log.jsonl").touch()  # the learner would refuse a folder that has one
    ckpt = tmp_path / "offline.pt"
    learning_run.fine_tune(tmp_path, ckpt, [], 0, learning_process.Means(threading.Event(), 1))
    learner, robot = started[-2:]
    assert learner[:3] == ["agent.learner", "--ckpt", str(ckpt)] and not (tmp_path / "online").exists()
    own = ["--config", str(tmp_path / "online.yaml")]
    assert learner[learner.index("--config") :][:2] == own
    assert robot[robot.index("--robot.seed") + 1] == "1000000"
    (tmp_path / "online.done").unlink()
    (tmp_path / "online/episodes").mkdir(parents=True)
    (tmp_path / "online/episodes/a.hdf5").touch()
    (tmp_path / "online/latest.pt").touch()
    learning_run.fine_tune(tmp_path, ckpt, [], 1, learning_process.Means(threading.Event(), 1))
    learner, robot = started[-2:]
    assert learner[:3] == ["agent.learner", "--resume", str(tmp_path / "online")]
    assert learner[learner.index("--config") :][:2] == own
    assert robot[robot.index("--robot.seed") + 1] == "2000001"  # no scene that it had before


def test_offline_training_that_somebody_else_stopped_has_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_run, "Process", Ended)
    (tmp_path / "tiny.yaml").write_text("offline: {updates: 30}\n")
    for updates in (20, 30):
        counters = type("", (), {"counters": {"offline_updates": updates}})
        monkeypatch.setattr(learning_run.checkpoint, "load", lambda path, found=counters: found)
        means = learning_process.Means(threading.Event(), 1)
        train = (tmp_path, [str(tmp_path / "tiny.yaml")], tmp_path / "data", 4, means)
        if updates < 30:
            with pytest.raises(learning_process.Stopped):
                learning_run.train_offline(*train)
            (tmp_path / "offline.pt").touch()
        else:
            assert learning_run.train_offline(*train) == tmp_path / "offline.pt"
    first, second = started[-2:]
    assert first[first.index("--learner.seed") + 1] == "4" and second[1] == "--resume"


def test_evaluations_have_scenes_of_their_own_and_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_run, "Process", Ended)
    Ended.said = json.dumps({"success": 0.5, "low": 0, "high": 1, "episodes": 5, "return": 0, "length": 9, "x": 1})
    given = (tmp_path, tmp_path / "offline.pt", 70, 5, learning_process.Means(threading.Event(), 1))
    found = learning_run.evaluate(*given)
    assert found["env_steps"] == 70 and found["success"] == 0.5 and "x" not in found
    assert started[-1][started[-1].index("--seed") + 1] == "100000"
    count = len(started)
    assert learning_run.evaluate(*given) == found and len(started) == count


@pytest.mark.parametrize("seeds", ["11", "-1"])
def test_seeds_whose_demonstrations_would_be_the_evaluations_scenes_are_refused(seeds):
    with pytest.raises(UserError, match=f"--seeds {seeds}: 1 to 10"):
        learning.main(["--suite", "smoke", "--seeds", seeds])


TINY = """
env: {name: fake, horizon: 12, image_size: 12}
collect: {episodes: 4, noise: 0.3}
network: {channels: [4], strides: [4], features: 8, state_features: 8, critics: 2, actor_hidden: [8]}
offline: {updates: 20, batch: 16}
online: {env_steps: 200, utd: 0.2, batch: 16}
"""


def test_runs_are_made_in_slices_and_never_twice(tmp_path, capsys):
    """The smallest suite through the real processes: stopped at once, stopped online, finished; then left alone."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    presets = {"robot": [], "share": {"online": {"offline_share": 0.25}}}
    suite = Suite({"reach": Task([str(tmp_path / "tiny.yaml")])}, presets, 1, episodes=2, at=[1.0])
    root = tmp_path / "results"

    def call(stop, keep=False):
        means = learning_process.Means(stop, 1, "cpu")
        return learning.run_all(suite, learning_suite.jobs(suite, root), {}, root, 1, means, keep)

    def stop_online(stop):
        while not list((root / "work").glob("*/online/episodes/*.hdf5")):
            if stop.wait(0.02):
                return
        stop.set()

    stopped = threading.Event()
    stopped.set()
    assert call(stopped).stopped == 3 and not list(root.rglob("*.hdf5"))
    stop = threading.Event()
    threading.Thread(target=stop_online, args=(stop,), daemon=True).start()
    outcome = call(stop)
    assert outcome.stopped == 2 and not outcome.failed and not list(root.glob("*.json")), capsys.readouterr().out
    assert call(threading.Event(), keep=True).failed == []
    assert len(list((root / "work").glob("offline-*"))) == 1
    shares = {
        name: checkpoint.load(root / f"work/reach-{name}-0/online/latest.pt").section("online").offline_share
        for name in presets
    }
    assert shares == {"robot": 0.5, "share": 0.25}
    found = json.loads((root / "reach-robot-0.json").read_text())
    assert found["evaluations"][0]["env_steps"] == 0 and len(found["evaluations"]) == 2
    assert found["evaluations"][-1]["env_steps"] >= 190 and found["training"][-1][0] >= 200
    assert found["died"] is None and "q_data" in found["offline"] and found["minutes"] > 0
    before = (root / "reach-robot-0.json").stat().st_mtime_ns
    assert call(threading.Event()).failed == [] and (root / "reach-robot-0.json").stat().st_mtime_ns == before
    assert "2 of 2 results are there" in capsys.readouterr().out
    (offline,) = root.glob("work/offline-*/offline.pt")
    online = root / "work/reach-robot-0/online"
    surprise.main(["--ckpt", str(offline), "--run", str(online), "--updates", "4", "--draws", "1", "--clip", "2"])
    said = capsys.readouterr().out
    assert "gradient_clip 2: longest gradient / usual" in said and "nan" not in said
    next((online / "episodes").iterdir()).unlink()
    with pytest.raises(UserError, match=r"online: \d+ episodes in its log, \d+ files"):
        surprise.main(["--ckpt", str(offline), "--run", str(online)])
