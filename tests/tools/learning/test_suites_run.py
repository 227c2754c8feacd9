"""Learning runs side by side and in slices: whose result is taken, who waits for whom, one whole small suite."""

import json
import threading
import time
from pathlib import Path

import pytest
import yaml

from agent.run import checkpoint
from agent.spec import UserError
from tools.learning import __main__ as learning
from tools.learning import data as learning_data
from tools.learning import process as learning_process
from tools.learning import run as learning_run
from tools.learning import suite as learning_suite
from tools.learning.settings import write
from tools.learning.suite import Suite, Task

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("minutes", ["inf", "nan", "-1", "1e9"])
def test_a_slice_has_an_end(minutes):
    with pytest.raises(UserError, match="--minutes"):
        learning.main(["--suite", "smoke", "--minutes", minutes])


def test_a_source_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "maze.hdf5").touch()
    suite = Suite({"maze": Task([], "convert")}, {"robot": []})
    assert learning.sources(["maze=~/maze.hdf5"], suite) == {"maze": tmp_path / "maze.hdf5"}
    for given in (
        "maze=~/none.hdf5",
        "maze=",
        "maze=~nobody-of-that-name/x",
        "maze",
        f"maze={'x' * 5000}",
        "lift=~/maze.hdf5",
    ):
        with pytest.raises(UserError, match="expected TASK=PATH"):
            learning.sources([given], suite)


def test_an_unknown_suite_task_or_preset_is_named():
    with pytest.raises(UserError, match="did you mean 'smoke'"):
        learning.main(["--suite", "smoky"])
    with pytest.raises(UserError, match="--presets calq: there are"):
        learning.main(["--suite", "smoke", "--presets", "calq"])


def test_a_result_of_other_settings_is_not_taken_for_this_suites(tmp_path):
    (tmp_path / "tiny.yaml").write_text("online: {env_steps: 2000}\n")
    suite = Suite({"reach": Task([str(tmp_path / "tiny.yaml")])}, {"robot": []}, seeds=1)
    (job,) = learning_suite.jobs(suite, tmp_path)
    assert not learning.done_before(job, suite, tmp_path, {})
    parts = learning_run.depends_on(job, suite.episodes, suite.at)
    write(tmp_path / "reach-robot-0.json", {"made_of": parts})
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


def test_a_damaged_result_is_named(tmp_path):
    suite = Suite({"reach": Task([])}, {"robot": []}, seeds=1)
    (job,) = learning_suite.jobs(suite, tmp_path)
    (tmp_path / "reach-robot-0.json").write_text('{"made_of": ')
    with pytest.raises(UserError, match=r"reach-robot-0.json: not what .* writes"):
        learning.done_before(job, suite, tmp_path, {})


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


def test_presets_that_change_nothing_offline_share_the_offline_training_and_have_their_own_settings_online(
    tmp_path, monkeypatch
):
    trained, online, inside = [], {}, []

    def fine_tune(folder, ckpt, configs, seed, means, *flags):
        data = tmp_path / f"data/reach-{seed}"  # wherever the checkpoint had them
        assert yaml.safe_load(flags[-1].read_text()) == {"offline": {"data": [str(data)]}} and flags[-2] == "--config"
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


def test_runs_are_made_in_slices_and_never_twice(tmp_path, capsys, forked_commands):
    """The smallest suite through all of its processes: stopped at once, stopped online, finished; then left alone."""
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
