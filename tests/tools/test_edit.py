"""Editing recorded episodes: exact, undoable, and never half done."""

import dataclasses
import fcntl
import os
import shutil

import numpy as np
import pytest

from agent.data.episode_file import episode_paths, read_episode
from agent.spec import STEP_COLUMNS
from agent.verdict import COLUMNS, with_verdict
from tools import edit
from tools.collect import recording_folder


@pytest.fixture
def folder(tmp_path, demos):
    return shutil.copytree(demos, tmp_path / "demos")


@pytest.fixture
def run(folder, capsys):
    def run(*words):
        edit.main([str(folder), *words])
        return capsys.readouterr().out

    return run


def number(folder, k):
    return folder / f"episode_{k:06d}.hdf5"


def pick(folder, succeeded):
    """The longest such episode."""
    found = {k: read_episode(number(folder, k)) for k in range(6)}
    return max((k for k in found if found[k].succeeded == succeeded), key=lambda k: len(found[k]))


def contents(folder):
    return {path.name: path.read_bytes() for path in episode_paths([folder])}


def test_everything_can_be_undone_to_the_byte(folder, run):
    before = contents(folder)
    good, bad = pick(folder, True), pick(folder, False)
    other = next(k for k in range(6) if k not in (good, bad))
    run("--failure", str(good), "--cut", f"{other}:0:2")
    run("--cut", f"{bad}:0:2", "--success", str(bad), "--drop", f"{good},{other}")
    assert set(before) - set(contents(folder)) == {number(folder, good).name, number(folder, other).name}
    lines = run()
    assert (
        f"episode_{good:06d}.hdf5: dropped" in lines and f"episode_{bad:06d}.hdf5: marked success, cut to 0:2" in lines
    )
    run("--undo", f"{good},{bad},episode_{other:06d}")
    assert contents(folder) == before and run() == "nothing has been edited\n"


def test_a_mark_is_a_persons_word(folder, run):
    good, bad = number(folder, pick(folder, True)), number(folder, pick(folder, False))
    run("--failure", good.stem, "--success", bad.name)
    failed, succeeded = read_episode(good), read_episode(bad)
    assert not failed.succeeded and failed.truncated[-1] and not failed.terminated[-1] and failed.episode_return == 0
    assert succeeded.success[-1] and succeeded.terminated[-1] and not succeeded.truncated[-1]
    assert succeeded.rewards.tolist() == [0] * (len(succeeded) - 1) + [1]
    assert (failed.meta["marked"], failed.meta["env_success"]) == ("failure", True)
    assert (succeeded.meta["marked"], succeeded.meta["env_success"]) == ("success", False)


def columns(path):
    episode = read_episode(path)
    return [getattr(episode, name).tolist() for name in COLUMNS]


def test_a_mark_takes_the_place_of_the_one_before(folder, run):
    for succeeded in (True, False):
        path = number(folder, pick(folder, succeeded))
        run("--failure", path.stem)
        failed = columns(path)
        run("--success", path.stem)
        marked = columns(path)
        run("--failure", path.stem)
        assert columns(path) == failed
        run("--success", path.stem)
        assert columns(path) == marked and read_episode(path).meta["env_success"] is succeeded
        run("--undo", path.stem)
        if succeeded:  # it says what the environment had said
            assert columns(path) == marked


def test_a_success_that_only_a_person_saw_is_rewarded_at_its_end(folder, run):
    """Also where the environment saw one earlier."""
    path = number(folder, pick(folder, False))
    episode = read_episode(path)
    rewards, success = episode.rewards.copy(), episode.success.copy()
    rewards[1], success[1] = 1, True
    marked = with_verdict(dataclasses.replace(episode, rewards=rewards, success=success), "success")
    assert marked.rewards[-1] == 1 and marked.success[-1] and marked.rewards[1] == 1 and marked.terminated[-1]


def test_a_cut_takes_a_marked_success_with_its_end_and_leaves_a_failure(folder, run):
    path = number(folder, pick(folder, False))
    before = columns(path)
    run("--success", path.stem)
    run("--cut", f"{path.stem}:1:3")
    kept = read_episode(path)
    assert "marked" not in kept.meta and not kept.succeeded and kept.truncated[-1] and not kept.rewards.any()
    run("--undo", path.stem)
    assert columns(path) == before
    path = number(folder, pick(folder, True))
    whole = read_episode(path)
    run("--failure", path.stem)
    run("--cut", f"{path.stem}:1:{len(whole)}")
    assert not read_episode(path).succeeded and read_episode(path).meta["marked"] == "failure"
    run("--success", path.stem)  # of the part that is left
    assert read_episode(path).rewards.tolist() == whole.rewards[1:].tolist()


@pytest.mark.parametrize("words", [("failure", "success"), ("success", "failure"), ("failure", "failure", "success")])
def test_marked_again_the_environments_word_is_still_the_environments(folder, words):
    good, bad = number(folder, pick(folder, True)), number(folder, pick(folder, False))
    for path, env_success in ((good, True), (bad, False)):
        for word in words:
            edit.mark(path, word)
        again = read_episode(path)
        assert again.meta["env_success"] is env_success and again.meta["marked"] == words[-1]
        assert again.succeeded == (words[-1] == "success")


def broken_end(episode):
    return dataclasses.replace(episode, truncated=episode.truncated & False, terminated=episode.terminated & False)


def no_steps(episode):
    return dataclasses.replace(episode, **{name: getattr(episode, name)[:0] for name in ("actions", *STEP_COLUMNS)})


def not_finite(episode):
    return dataclasses.replace(episode, actions=episode.actions * np.float32(np.nan))


def other_names(episode):
    return dataclasses.replace(episode, observations={f"{key}2": rows for key, rows in episode.observations.items()})


@pytest.mark.parametrize("breaks", [broken_end, no_steps, not_finite, other_names])
def test_what_could_not_be_read_back_does_not_take_an_episodes_place(folder, breaks):
    before = contents(folder)
    with pytest.raises(edit.UserError):
        edit.change(number(folder, 0), breaks)
    assert contents(folder) == before and not (folder / "originals").exists() and not edit.edited(folder)


def test_a_cut_keeps_the_steps_asked_for(folder, run):
    path = number(folder, pick(folder, True))
    whole = read_episode(path)
    run("--cut", f"{path.stem}:1:3")
    kept = read_episode(path)
    assert len(kept) == 2 and kept.truncated.tolist() == [False, True] and not kept.terminated.any()
    np.testing.assert_array_equal(kept.actions, whole.actions[1:3])
    for key, rows in whole.observations.items():
        np.testing.assert_array_equal(kept.observations[key], rows[1:4])
    run("--cut", f"{path.stem}:1:2")
    np.testing.assert_array_equal(read_episode(path).actions, whole.actions[2:3])
    assert read_episode(path).meta["cut"] == [2, 3]
    run("--undo", path.stem)
    run("--cut", f"{path.stem}:2:{len(whole)}")
    ended = read_episode(path)
    assert ended.terminated[-1] and not ended.truncated.any() and ended.succeeded


def test_a_dropped_number_is_not_taken_again(folder, run):
    run("--drop", "5")
    with recording_folder(folder) as first:
        assert first == 6
    run("--purge")
    assert not (folder / "originals").exists() and len(episode_paths([folder])) == 5


def test_purge_keeps_the_edited(folder, run):
    run("--failure", "0", "--drop", "1")
    edited = contents(folder)
    assert run("--purge") == "2 originals removed\n" and contents(folder) == edited


@pytest.mark.parametrize("fails", ["os.link", "tools.edit.write_episode"])
def test_an_edit_that_is_interrupted_loses_nothing(folder, monkeypatch, fails):
    before = contents(folder)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fails, stop)
        edit.mark(number(folder, 0), "failure")
    assert contents(folder) == before
    if (folder / "originals" / number(folder, 0).name).exists():
        edit.undo(number(folder, 0))
    assert contents(folder) == before and not edit.edited(folder)
    edit.mark(number(folder, 0), "failure")
    edit.undo(number(folder, 0))
    assert contents(folder) == before


def test_a_file_system_without_links(folder, monkeypatch):
    before = contents(folder)

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    edit.drop(number(folder, 2))
    edit.undo(number(folder, 2))
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--drop", "9"], "no episode is called '9'"),
        (["--cut", "0:3"], "EPISODE:FIRST:END"),
        (["--cut", "0:3:2"], "cut 3:2: it has the steps 0 to"),
        (["--cut", "0:0:999"], "cut 0:999: it has the steps 0 to"),
        (["--undo", "0"], "has not been edited"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(folder, refused, words, says):
    before = contents(folder)
    assert says in refused("edit", folder, *words)
    assert contents(folder) == before
    assert "no such folder" in refused("edit", folder / "none")


@pytest.mark.parametrize("deed", ["drop", "undo", "purge"])
def test_what_the_file_system_refuses_is_one_line(folder, run, monkeypatch, deed):
    edit.mark(number(folder, 0), "failure")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(type(folder), "unlink", refuse)
    with pytest.raises(edit.UserError, match=r"episode_000000\.hdf5: Read-only file system$"):
        run(*(["--purge"] if deed == "purge" else [f"--{deed}", "0"]))


def test_a_folder_in_use_is_left_alone(folder, run):
    with recording_folder(folder), pytest.raises(edit.UserError, match="is using it"):
        run("--drop", "0")
    episodes = folder.rename(folder.parent / "run-episodes")
    held = (episodes.parent / "log.jsonl").open("ab")
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(edit.UserError, match="is using it"), edit.claimed(episodes):
        pass
    held.close()
    with edit.claimed(episodes):
        pass
