"""Suites of learning runs: what can be written, and that those of the repository are what its results are of."""

import json
import math
from pathlib import Path

import pytest

from agent.spec import UserError
from tools.learning import run as learning_run
from tools.learning import settings as learning_settings
from tools.learning import suite as learning_suite
from tools.learning.settings import write
from tools.learning.suite import Suite, Task

ROOT = Path(__file__).parents[3]
ELSEWHERE = {("lift_small", "max_backup"), ("lift_small", "cql_max_backup")}  # at 2,400, as docs/results.md says


@pytest.mark.parametrize(
    "name",
    [
        "state_lift",
        "lift_small",
        "lift_6000",
        "door_small",
        "square_small",
        "stack_small",
        "can_small",
        "can_30000",
        "adroit_small",
        "point_maze",
        "adroit_pairs",
        "adroit_pairs_door",
        "ablation_lift",
        "ablation_can",
    ],
)
def test_the_results_in_docs_are_those_of_the_suite_as_it_is(name, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    suite = learning_suite.read(name)
    kept = ROOT / "docs" / "learning" / name
    found = [job for job in learning_suite.jobs(suite, tmp_path) if (kept / f"{job.name}.json").exists()]
    assert {f"{job.name}.json" for job in found} == {path.name for path in kept.glob("*.json")}
    for job in found:
        run = json.loads((kept / f"{job.name}.json").read_text())
        before = {key: value for key, value in run["made_of"].items() if key != "data"}
        now = learning_run.depends_on(job, suite.episodes, suite.at)
        learning_settings.same(kept / job.name, before, now)
        seen = [evaluation["env_steps"] / run["env_steps"] for evaluation in run["evaluations"][1:]]
        # Where two have the same checkpoint there are fewer, and each belongs to the one that it is nearest to.
        nearest = [min(suite.at, key=lambda wanted: abs(share - wanted)) for share in seen]
        for wanted, share in zip(suite.at if len(seen) == len(suite.at) else nearest, seen, strict=True):
            assert abs(share - wanted) < (0.1 if (name, job.preset) in ELSEWHERE else 0.05), job.name


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
        (
            "tasks: {a: {configs: [], demonstrations: magic}}\npresets: {p: []}",
            "demonstrations is .magic.; it must be one of scripted, convert",
        ),
        ("tasks: {a: {configs: []}}\npresets: {p: []}\nat: [0.5, 0.2]", "in their order"),
        (
            "tasks: {a: {configs: []}}\npresets: {p: configs/presets/cql.yaml}",
            "presets: p: a list of config files or mappings",
        ),
        (
            "tasks: {a: {configs: []}}\npresets: {p: [configs/presets/cql.yaml, 3]}",
            r"presets: p: .*not \['configs/presets/cql.yaml', 3\]",
        ),
        ("tasks: {a: {config: []}}\npresets: {p: []}", "did you mean 'configs'"),
        ("- a", "mine.yaml: expected `key: value` lines"),
        ("tasks: {a: 3}\npresets: {p: []}", "mine.yaml: a: expected `key: value` lines, not 3"),
        ("tasks: {a: {rollouts: 3}}\npresets: {p: []}", "a: rollouts"),
        ("tasks: {a: {configs: []}}\npresets: {no: []}", "key `no` is False in YAML; put it in quotes"),
        ("tasks: {a: {}, a-b: {}}\npresets: {b-c: [], c: []}", "two runs would be a-b-c"),
        ("tasks: {a: {}, a-0: {}}\npresets: {b: []}", "a-0: that is a seed's folder of the task a"),
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


def test_a_preset_may_be_written_out_in_the_suite(tmp_path):
    suite = Suite(
        {"lift": Task([str(ROOT / "configs/lift.yaml")])},
        {
            "robot": [],
            "calm": {"calql": {"gamma": 0.5}},
            "both": [
                str(ROOT / "configs/presets/cql.yaml"),
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


def test_a_run_of_before_a_setting_existed_had_its_default(tmp_path):
    now = learning_run.made_of([], ["network"])
    before = {"network": {key: value for key, value in now["network"].items() if key != "init"}}
    learning_settings.same(tmp_path, before, now)
    now["network"]["init"] = "orthogonal"
    with pytest.raises(UserError, match=r"network\.init: None, now 'orthogonal'"):
        learning_settings.same(tmp_path, before, now)


def test_settings_that_are_not_finite_are_json_all_the_same(tmp_path):
    parts = learning_run.made_of([], ["calql"])
    assert parts["calql"]["cql_clip_high"] == "Infinity"
    write(tmp_path / "new.json", parts)
    (tmp_path / "old.json").write_text((tmp_path / "new.json").read_text().replace('"Infinity"', "Infinity"))
    for name in ("new", "old"):
        learning_settings.same(tmp_path / name, learning_settings.read(tmp_path / f"{name}.json"), parts)
    write(tmp_path / "diverged.json", {"offline": {"q_data": math.nan}})
    assert json.loads((tmp_path / "diverged.json").read_text()) == {"offline": {"q_data": "NaN"}}
    for path in (ROOT / "docs/learning").glob("*/*.json"):
        json.loads(path.read_text(), parse_constant=lambda word, path=path: pytest.fail(f"{word} in {path}"))
