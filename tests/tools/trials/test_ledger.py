"""The folder of an evaluation: nothing is counted twice or lost, and nothing else continues it."""

import contextlib
import json
import os
import resource

import pytest
from trial_parts import evaluate, settings

from agent.spec import UserError
from tools.trials.ledger import EPISODES, KILLED, RESULT_JSON, RESULT_TABLE, SETTINGS, Ledger, read_settings


@pytest.fixture
def whole(tmp_path, desk, keys, quick_disk):
    """The bytes of an evaluation that has ended, of 2 x 2 episodes."""
    evaluate(tmp_path / "whole", desk, (1.0, 0.0), verdict="signal")
    return tmp_path / "whole"


def test_killed_in_any_line_it_resumes_with_what_was_whole(tmp_path, whole, desk, keys):
    data = (whole / EPISODES).read_bytes()
    lines = data.splitlines(keepends=True)
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / SETTINGS).write_bytes((whole / SETTINGS).read_bytes())
    ends = [data.index(line) + len(line) for line in lines]
    for cut in sorted({0, *ends, *(end - 1 for end in ends), *(end - 9 for end in ends)}):
        (folder / EPISODES).write_bytes(data[:cut])
        made, trials = evaluate(folder, desk, (1.0, 0.0), verdict="signal")
        counted = [trial for trial in trials if trial.counts]
        assert sorted(trial.episode for trial in counted) == [0, 1, 2, 3], cut
        written = [line for line in lines if data.index(line) + len(line) <= cut]
        results = [json.loads(line) for line in written if b"result" in line]
        assert [vars(trial) for trial in counted[: len(results)]] == results
        voids = [trial.reason for trial in trials if not trial.counts]
        assert voids == [KILLED] * (len(written) - 2 * len(results)), cut
        with contextlib.closing(Ledger(folder, made)) as again:
            assert again.trials == trials and not again.remaining


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"episodes": 3}, "episodes: 2 against 3"),
        ({"seed": 6}, "seed: 5 against 6"),
        ({"verdict": "person"}, "verdict: signal against person"),
        ({"stochastic": True}, "stochastic: False against True"),
        ({"env": {"name": "other"}}, "env: arm against other"),
        ({"env": {"name": "arm", "options": {"horizon": 9}}}, "env option horizon: None against 9"),
    ],
)
def test_other_settings_do_not_continue_it(whole, change, says):
    with pytest.raises(UserError, match=says) as error:
        Ledger(whole, settings("0", "1", **{"verdict": "signal", **change}))
    assert str(whole) in str(error.value) and "\n" not in str(error.value)


def test_other_checkpoints_do_not_continue_it(whole):
    with pytest.raises(UserError, match="checkpoints: 0, 1 against 1, 0"):
        Ledger(whole, settings("1", "0", verdict="signal"))
    changed = settings("0", "1", verdict="signal")
    changed.checkpoints[1]["sha256"] = "another"
    with pytest.raises(UserError, match="checkpoint 1: its content has changed"):
        Ledger(whole, changed)


def test_its_order_stays_unless_another_is_asked_for(whole):
    other = settings("0", "1", verdict="signal", order_seed=7)
    with contextlib.closing(Ledger(whole, other)) as ledger:
        assert ledger.settings.order_seed == 0
    with pytest.raises(UserError, match="order_seed: 0 against 7"):
        Ledger(whole, other, same_order=True)


def test_two_processes_do_not_share_it(whole):
    mine = settings("0", "1", verdict="signal")
    with contextlib.closing(Ledger(whole, mine)), pytest.raises(UserError, match="is running there"):
        Ledger(whole, mine)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], b"nonsense\n", *lines[1:]],
        lambda lines: [*lines, lines[1]],  # a result without a beginning
        lambda lines: [*lines, *(line.replace(b'"attempt": 3', b'"attempt": 9') for line in lines[-2:])],
        lambda lines: [lines[0], b"[]\n"],
    ],
)  # fmt: skip
def test_a_damaged_file_is_not_counted_from(whole, damage):
    path = whole / EPISODES
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(UserError, match=f"{EPISODES}: line \\d+ is damaged"):
        Ledger(whole, settings("0", "1", verdict="signal"))


def test_a_full_disk_counts_nothing_and_leaves_the_file_whole(tmp_path, desk, keys):
    path = tmp_path / EPISODES
    with contextlib.closing(Ledger(tmp_path, settings("0", "1"))) as ledger:
        ledger.start()
        ledger.begin(0)
        before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        try:
            with pytest.raises(UserError, match="cannot be written"):
                ledger.begin(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before


def test_each_line_is_synced_before_the_arm_moves_on(tmp_path, desk, keys, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file)))
    with contextlib.closing(Ledger(tmp_path, settings("0", "1"))) as ledger:
        ledger.start()
        synced.clear()
        ledger.begin(0)
        assert synced == [(tmp_path / EPISODES).stat().st_size]


@pytest.mark.parametrize("name", [SETTINGS, RESULT_JSON, RESULT_TABLE])
def test_files_of_something_else_are_left_as_they_are(tmp_path, name):
    (tmp_path / name).write_text('{"editor.fontSize": 12}')
    with pytest.raises(UserError, match=f"has a {name} of something else; choose another --out"):
        Ledger(tmp_path, settings("0", "1"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"editor.fontSize": 12}'


def test_one_that_was_killed_before_its_first_episode_may_begin_with_other_settings(tmp_path):
    with contextlib.closing(Ledger(tmp_path, settings("0", "1"))) as killed:
        killed.start()
        os.truncate(tmp_path / EPISODES, 0)
        (tmp_path / "keep").touch()
        saved = (tmp_path / SETTINGS).read_bytes()
    (tmp_path / SETTINGS).write_bytes(saved)
    with contextlib.closing(Ledger(tmp_path, settings("2", "3"))) as ledger:
        ledger.start()
        ledger.begin(0)
        assert read_settings(tmp_path).names == ["2", "3"]
