"""The demonstrations that learning runs start from, and what they are known by."""

import json
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from agent.data.episode_file import read_episodes
from agent.data.returns import rewards_and_returns
from agent.spec import UserError
from tools.learning import __main__ as learning
from tools.learning import data as learning_data
from tools.learning import process as learning_process
from tools.learning import run as learning_run
from tools.learning import suite as learning_suite
from tools.learning.suite import Suite, Task

ROOT = Path(__file__).parents[3]


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


def test_every_seed_has_episodes_of_its_own_by_a_given_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sizes = {"0.weight": (4, 45), "0.bias": 4, "1.weight": (4, 4), "1.bias": 4, "2.weight": (24, 4), "2.bias": 24}
    sizes |= {"in_shift": 45, "in_scale": 45, "out_shift": 24, "out_scale": 24}
    np.savez(tmp_path / "pen.npz", **{key: np.ones(size) for key, size in sizes.items()})
    suite, have = learning_suite.read("adroit_pairs"), {"pen": tmp_path / "pen.npz"}
    task, means = suite.tasks["pen"], learning_process.Means(threading.Event(), 1)
    task.policy = [*task.policy, "--episodes", "2", "--steps", "4"]
    folders = [learning_data.place(tmp_path, suite, "pen", seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        learning_data.prepare(folder, "pen", task, seed, have, means)
    first, second = ([episode.actions for episode in read_episodes([folder])] for folder in folders)
    assert first[0].shape[1:] == (24,) and sum(map(len, first)) <= 8
    assert not np.array_equal(first[0], second[0])
    known = [learning_data.depends_on(task, seed, have["pen"]) for seed in (0, 1)]
    assert known[0]["seed"] == 0 and known[1]["seed"] == 1 and known[0]["policy"] == task.policy
    with pytest.raises(UserError, match="--source pen=PATH"):
        learning_data.prepare(tmp_path / "other", "pen", task, 0, {}, means)


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
