"""One learning run, its stages in place of processes: what is gone on with, and what a result says."""

import json
import threading
from pathlib import Path

import pytest

from agent.spec import UserError
from tools.learning import process as learning_process
from tools.learning import run as learning_run
from tools.learning import suite as learning_suite
from tools.learning.results import Run
from tools.learning.settings import differences, not_default, write
from tools.learning.suite import Suite, Task

ROOT = Path(__file__).parents[3]


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
    assert '"presets/max_backup.yaml' in kept and '"/' not in kept and "runs/" not in kept


def test_two_calls_make_a_run_once(stubbed, tmp_path):
    called, _, go_on = stubbed
    go_on()
    before = list(called)
    go_on()
    assert called == before
    with pytest.raises(UserError, match=r"result.json: made with other settings \(episodes: 5, now 6\)"):
        go_on(episodes=6)


def test_a_run_is_not_gone_on_with_from_other_demonstrations(stubbed, tmp_path):
    _, outcomes, go_on = stubbed
    write(tmp_path.with_name(f"{tmp_path.name}-work") / "made_of.json", {"collect": {"noise": 0.1}})
    outcomes["evaluate 1000"] = learning_process.Stopped()
    with pytest.raises(learning_process.Stopped):
        go_on()
    outcomes.clear()
    write(tmp_path.with_name(f"{tmp_path.name}-work") / "made_of.json", {"collect": {"noise": 0.2}})
    with pytest.raises(UserError, match=r"work.made_of.json: made with other settings \(data.collect.noise: 0.1, now"):
        go_on()


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


@pytest.mark.parametrize("fails", ["start", "end"])
def test_a_learner_ends_whatever_becomes_of_its_robot(tmp_path, monkeypatch, fails):
    ended = []

    class Process(Ended):
        def __init__(self, folder, name, *words):
            super().__init__(folder, name, *words)
            self.name = name
            if (name, fails) == ("robot", "start"):
                raise OSError("no process left")

        def end(self):
            ended.append(self.name)
            if (self.name, fails) == ("robot", "end"):
                raise OSError("no terminal left")

    monkeypatch.setattr(learning_run, "Process", Process)
    with pytest.raises(OSError, match="left"):
        learning_run.fine_tune(tmp_path, tmp_path / "a.pt", [], 0, learning_process.Means(threading.Event(), 1))
    assert ended[-1] == "learner"


def test_an_offline_part_keeps_its_folder_when_a_newer_version_has_one_more_setting():
    parts = {"calql": {"gamma": 0.97, "n_step": 1}, "learner": {"mode": "compile"}, "env": ["sim", {"task": "Lift"}]}
    older = {"calql": {"gamma": 0.97}, "learner": {}, "env": ["sim", {"task": "Lift", "privileged": False}]}
    assert not_default(parts) == not_default(older) == {"calql.gamma": 0.97, "env.0": "sim", "env.1.task": "Lift"}
    assert not_default({**parts, "calql": {"gamma": 0.97, "n_step": 3}}) != not_default(parts)


def test_a_setting_that_is_gone_matters_where_it_was_not_at_its_default(tmp_path):
    now = {"network": {"critics": 10}}
    for chunk, differs in ((1, {}), (5, {"network.chunk": (5, None)})):
        before = {"network": {"critics": 10, "policy": "gaussian", "chunk": chunk}}
        assert differences(before, now) == differs
        assert (not_default(before) == not_default(now)) == (not differs)


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

    def report_warnings(self):
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
        monkeypatch.setattr("agent.run.checkpoint.load", lambda path, found=counters: found)
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
