"""Learning runs: the figures by hand, the suites, and one whole small run in slices."""

import json
import math
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from agent.episode_file import read_episodes
from agent.returns import rewards_and_returns
from agent.spec import UserError
from tools.bench import learning, learning_data, learning_report, learning_run, learning_suite
from tools.bench.learning_report import Run, interval, largest_drop, regret, steps_to
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
        "training": [[20, 1], [40, 0], [60, 0], [80, 1]], "warnings": [], "minutes": 1.0, **changed,
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
    assert cells[4:] == ["0.39", "0.50", "40%, at most 40%", "1,000 (2 of 2)"]
    assert "| bc | 1 | 20% (6 to 51) |  |  |  |  |  |" in said
    assert "- calql, seed 1: too sure" in said and "- cql, seed 0: diverged" in said
    assert (tmp_path / "lift.png").stat().st_size > 5000


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json: not a result"):
        learning_report.read([tmp_path])
    with pytest.raises(UserError, match="no results"):
        learning_report.read([tmp_path / "none"])


def test_a_run_that_diverged_ends_without_success():
    run = Run.of(result(curve=CURVE[:2], died="learning has diverged"))
    assert run.died and run.points == [*CURVE[:2], (1000.0, 0.0)]


def test_a_run_is_read_as_it_was_written():
    run = Run.of(result(seed=3))
    assert run.points == CURVE and run.episodes == 10 and run.seed == 3 and not run.died
    assert math.isclose(sum(won for _, won in run.training), 2)


@pytest.mark.parametrize("name", learning_suite.names())
def test_every_suite_can_be_read_with_all_its_configs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    suite = learning_suite.read(name)
    for job in learning_suite.jobs(suite):
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
        ("tasks: {a: {config: []}}\npresets: {p: []}", "did you mean 'configs'"),
    ],
)
def test_a_suite_that_cannot_be_meant_is_refused(tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        learning_suite.read(str(tmp_path / "mine.yaml"))


def test_an_unknown_suite_task_or_preset_is_named():
    with pytest.raises(UserError, match="did you mean 'smoke'"):
        learning.main(["--suite", "smoky"])
    with pytest.raises(UserError, match="--presets calq: there are"):
        learning.main(["--suite", "smoke", "--presets", "calq"])


def test_tasks_without_their_data_are_left_out_and_named(tmp_path, capsys):
    suite = Suite({"maze": Task([], "convert"), "lift": Task([])}, {"cql": []}, seeds=2)
    jobs = learning.wanted(suite, {"tasks": [], "presets": []}, {})
    assert [job.name for job in jobs] == ["lift-cql-0", "lift-cql-1"]
    assert "--source maze=PATH" in capsys.readouterr().out
    assert len(learning.wanted(suite, {"tasks": [], "presets": []}, {"maze": tmp_path})) == 4


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
    means = learning_run.Means(threading.Event(), 1)
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
    suite = Suite({"reach": Task([str(tmp_path / "tiny.yaml")])}, {"robot": []}, 1, episodes=2, at=[1.0])
    root = tmp_path / "results"

    def call(stop):
        means = learning_run.Means(stop, 1, "cpu")
        return learning.run_all(suite, learning_suite.jobs(suite), {}, root, 1, means, keep=False)

    def stop_online(stop):
        while not list((root / "work").glob("*/online/episodes/*.hdf5")):
            if stop.wait(0.02):
                return
        stop.set()

    stopped = threading.Event()
    stopped.set()
    assert call(stopped).stopped == 2 and not list(root.rglob("*.hdf5"))
    stop = threading.Event()
    threading.Thread(target=stop_online, args=(stop,), daemon=True).start()
    outcome = call(stop)
    assert outcome.stopped == 1 and not outcome.failed and not list(root.glob("*.json")), capsys.readouterr().out
    assert call(threading.Event()).failed == []
    found = json.loads((root / "reach-robot-0.json").read_text())
    assert found["evaluations"][0]["env_steps"] == 0 and len(found["evaluations"]) == 2
    assert found["evaluations"][-1]["env_steps"] >= 190 and found["training"][-1][0] >= 200
    assert found["died"] is None and "q_data" in found["offline"] and found["minutes"] > 0
    assert not (root / "work" / "reach-robot-0").exists()
    before = (root / "reach-robot-0.json").stat().st_mtime_ns
    assert call(threading.Event()).failed == [] and (root / "reach-robot-0.json").stat().st_mtime_ns == before
    assert "1 of 1 results are there" in capsys.readouterr().out
