"""Offline training from the command line: what it writes, what it logs, and what it says when something is wrong."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Program

from agent import cli, pretrain
from agent.calql.algorithm import CalQL
from agent.config import CalQLConfig, LearnerConfig, NetworkConfig, OfflineConfig, RewardConfig, RunConfig
from agent.data.episode_file import read_episode, write_episode
from agent.data.prefetch import Prefetch
from agent.data.storage import NoSpace, Storage
from agent.run import checkpoint, device, pretraining
from agent.run.demonstrations import load_demonstrations
from agent.run.device import choose_device
from agent.run.health import Health
from agent.signals import SIGNALS
from agent.spec import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demos(tmp_path, make_episode):
    """Four short episodes, half of them successful."""
    for k in range(4):
        write_episode(tmp_path / "demos" / f"e{k}.hdf5", make_episode(5 + k, seed=k, success=k % 2 == 0))
    return tmp_path / "demos"


@pytest.fixture
def train(tmp_path, demos, tiny_flags):
    """train("--updates", "30") runs agent.pretrain in this process; returns the checkpoint and the log's records."""

    def run(*flags, out="offline.pt", data=demos):
        folder = tmp_path / f"run-{out}"
        where = ["--data", str(data), "--out", str(tmp_path / out), "--run", str(folder)]
        pretrain.main([*where, "--updates", "30", "--log-every", "10", *tiny_flags, *flags])
        records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return checkpoint.load(tmp_path / out), records

    return run


def run_command(monkeypatch, capsys, *argv):
    """Exit code and stderr of `python -m agent.pretrain ARGV`, without a new process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(sys, "argv", ["pretrain", *map(str, argv)])
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as end:
            cli.run(pretrain.main)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return end.value.code, capsys.readouterr().err


def flat(value):
    return [x for item in value for x in flat(item)] if isinstance(value, list) else [value]


def test_thirty_updates_leave_a_checkpoint_and_a_log(train, demos, spec, logged):
    start, records = train()
    assert start.counters["offline_updates"] == 30
    assert start.spec == spec and start.env.to_dict() == {"name": "fake", "options": {}}
    assert start.config["offline"]["data"] == [str(demos)]
    action = start.policy().act({"cam": np.zeros((12, 12, 3), np.uint8), "pos": np.zeros(3, np.float32)})
    assert action.shape == (2,)
    made = "4 demonstrations, 26 steps, 50% successful; cameras cam 12x12; states pos 3; 30 updates on cpu (Cal-QL)"
    assert any(line.startswith(f"{made}; run folder ") for line in logged())
    updates = [r for r in records if r["kind"] == "update"]
    assert [r["updates"] for r in updates] == [10, 20, 30] and all(r["env_steps"] == 0 for r in updates)
    for record in updates:
        losses = {"td_loss", "cql_difference", "actor_loss", "bc_loss"}
        values = {"q_data", "q_policy", "return_to_go", "bound_rate_current", "bound_rate_next"}
        assert losses | values | {"alpha", "entropy", "updates_per_s", "time_s"} <= set(record)
        numbers = [x for value in record.values() for x in flat(value) if isinstance(x, (int, float))]
        assert np.isfinite(numbers).all() and record["updates_per_s"] > 0
        assert len(record["bound_rate_current"]) == 3 and record["stage"] == "offline"
    assert "alpha_prime" not in updates[0]


def test_it_is_called_from_python_as_well(tmp_path, demos, network, capfd):
    learner = LearnerConfig(run=str(tmp_path / "run"), device="cpu")
    config = RunConfig(network=network, offline=OfflineConfig(updates=3, batch=16), learner=learner)
    trained = pretrain.pretrain(config, [demos], tmp_path / "offline.pt")
    assert trained.counters == {"offline_updates": 3} and config.offline.data == []
    written = checkpoint.load(tmp_path / "offline.pt")
    assert equal(trained.agent, written.agent)
    assert written.run_config() == replace(config, offline=replace(config.offline, data=[str(demos)]))
    longer = replace(config, offline=replace(config.offline, updates=5))
    again = pretrain.pretrain(longer, [demos], tmp_path / "longer.pt", start=written)
    assert again.counters == {"offline_updates": 5}
    assert capfd.readouterr() == ("", "")


def test_data_may_be_one_path_and_start_the_path_of_a_checkpoint(tmp_path, demos, network):
    learner = LearnerConfig(run=str(tmp_path / "run"), device="cpu")
    config, out = RunConfig(network=network, learner=learner), tmp_path / "offline.pt"
    for number, (data, start) in enumerate(((Path(demos), None), (str(demos), out), ([demos], str(out))), 1):
        config = replace(config, offline=OfflineConfig(updates=number, batch=16))
        trained = pretrain.pretrain(config, data, out, start)
        assert trained.counters == {"offline_updates": number}
        assert trained.run_config().offline.data == [str(Path(demos).resolve())]
    with pytest.raises(UserError, match=r"offline\.pt: no such file"):
        pretrain.pretrain(config, demos, tmp_path / "new.pt", tmp_path / "nowhere" / "offline.pt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": []}, "^data is empty; it must be folders or files of demonstrations$"),
        ({"data": ()}, "^data is empty"),
        ({"start": 3}, "^start is 3; it must be a checkpoint or the path of one$"),
        ({"config": RunConfig(calql=None)}, "^calql: expected `key: value` lines, not None$"),
        ({"config": RunConfig(network=3)}, "^network: expected"),
        ({"config": RunConfig(network={"critics": 0})}, "^network.critics is 0; it must be 1 or more$"),
        ({"out": Path()}, "^.: is a folder; name a file for the checkpoint$"),
    ],
)
def test_what_python_passes_by_mistake_is_one_line(tmp_path, demos, change, says):
    with pytest.raises(UserError, match=says):
        pretrain.pretrain(**{"config": RunConfig(), "data": demos, "out": tmp_path / "offline.pt", **change})


def test_a_section_may_be_a_mapping():
    assert RunConfig(network={"critics": 3}).checked() == RunConfig(network=NetworkConfig(critics=3))


@pytest.mark.parametrize(
    ("offline", "says"),
    [
        (OfflineConfig(updates=-1), "offline.updates is -1; it must be 0 or more"),
        (OfflineConfig(batch=2.5), "offline.batch is 2.5; it must be a whole number"),
        (CalQLConfig(), "offline.gamma: no such option"),
    ],
)
def test_a_config_made_in_python_is_checked_as_flags_are(tmp_path, demos, offline, says):
    with pytest.raises(UserError, match=says):
        pretrain.pretrain(RunConfig(offline=offline), [demos], tmp_path / "offline.pt")
    assert RunConfig(offline=OfflineConfig(batch=16.0, data="a")).checked().offline == OfflineConfig(["a"], batch=16)


def test_a_call_from_python_destroys_no_checkpoint(tmp_path, demos, network, monkeypatch):
    """Neither an older one of that name, nor by an error before anything was learnt."""
    learner = LearnerConfig(run=str(tmp_path / "run"), device="cpu")
    config = RunConfig(network=network, offline=OfflineConfig(updates=3, batch=16), learner=learner)
    out = tmp_path / "offline.pt"
    pretrain.pretrain(config, [demos], out)
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"offline\.pt"):
        pretrain.pretrain(config, [demos], out)
    longer = replace(config, offline=replace(config.offline, updates=5))
    monkeypatch.setattr(pretraining.Pretraining, "update", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain.pretrain(longer, [demos], out, start=checkpoint.load(out), origin=str(out))
    with pytest.raises(ZeroDivisionError):
        pretrain.pretrain(config, [demos], tmp_path / "new.pt")
    assert out.read_bytes() == before and not (tmp_path / "new.pt").exists()


def test_what_watches_over_a_run_is_shown_each_record_and_the_rewards(train, monkeypatch):
    seen = []
    monkeypatch.setattr(Health, "update", lambda self, record, rewards: seen.append((record, rewards)))
    _, records = train()
    assert [record for record, _ in seen] == records and {rewards for _, rewards in seen} == {(-1.0, 0.0)}


def test_a_run_that_diverges_stops_and_keeps_the_checkpoint_before(train, tmp_path):
    train()
    before = (tmp_path / "offline.pt").read_bytes()
    with pytest.raises(UserError, match="learning has diverged"):
        train("--resume", str(tmp_path / "offline.pt"), "--updates", "60", "--critic-lr", "1e30", "--actor-lr", "1e30")
    assert (tmp_path / "offline.pt").read_bytes() == before


def test_nothing_to_clone_is_said(train, demos, logged):
    for path in sorted(demos.iterdir())[::2]:
        path.unlink()
    train()
    assert "no demonstration succeeded" in "".join(logged())
    train("--bc-filter", "all", out="all.pt")
    assert "no demonstration succeeded" not in "".join(logged())


def test_the_lagrange_form_logs_its_multiplier(train):
    _, records = train("--lagrange-threshold", "0.8")
    values = [record["alpha_prime"] for record in records]
    assert len(set(values)) == 3 and all(v > 0 for v in values)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(train):
    weights = [train("--seed", seed, out=out)[0].agent["policy"] for seed, out in (("1", "a"), ("1", "b"), ("2", "c"))]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())


def test_a_run_that_was_stopped_and_resumed_equals_one_that_never_stopped(train, tmp_path):
    whole, _ = train("--seed", "3", out="whole")
    train("--seed", "3", "--updates", "12", out="parts")
    parts, _ = train("--resume", str(tmp_path / "parts"), "--updates", "30", out="parts")
    assert parts.counters == whole.counters == {"offline_updates": 30}
    for name, value in whole.agent["policy"].items():
        assert torch.equal(value, parts.agent["policy"][name]), name
    assert torch.equal(whole.generators["offline"], parts.generators["offline"])


def equal(one, two):
    """Bit for bit, whatever is nested in what."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(value, two[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def test_a_resumed_run_continues_its_curve(tmp_path, demos, tiny_flags, monkeypatch):
    """In the same folder, without --run: log.jsonl and TensorBoard count on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    flags = ["--data", str(demos), "--log-every", "10", *tiny_flags]
    pretrain.main([*flags, "--updates", "20"])
    pretrain.main(["--resume", "offline.pt", "--updates", "40"])
    (folder,) = (tmp_path / "runs").iterdir()
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [record["updates"] for record in records if record["kind"] == "update"] == [10, 20, 30, 40]
    board = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in board.Scalars("update/td_loss")] == [10, 20, 30, 40]


def test_a_run_that_was_killed_and_resumed_equals_one_in_one_go(tmp_path, demos, tiny_flags):
    """SIGKILL soon after the checkpoint of 60 updates, and long after it; then on to 120.

    The log is a small pipe, which holds the process until its records are read: it cannot get to 120 before.
    """

    def words(out, *flags):
        where = ["--data", demos, "--out", tmp_path / out, "--run", tmp_path / f"run-{out}", "--updates", "120"]
        return [*map(str, where), "--save-every", "60", "--seed", "3", *tiny_flags, *map(str, flags)]

    pretrain.main(words("whole.pt"))
    for beyond in (0, 25):
        out = tmp_path / f"killed-{beyond}.pt"
        pipe = tmp_path / f"run-{out.name}" / "log.jsonl"
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        process = Program("-m", "agent.pretrain", *words(out.name, "--log-every", "2"))
        with open(pipe) as log:
            fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)  # four records or five
            next(line for line in log if json.loads(line)["updates"] > 60 + beyond)
            process.kill()
        assert process.wait(60) == -signal.SIGKILL
        assert checkpoint.load(out).counters == {"offline_updates": 60}
        pipe.unlink()
        pretrain.main(words(out.name, "--resume", out))
    expected = checkpoint.load(tmp_path / "whole.pt")
    assert expected.agent.keys() >= {"policy", "critics", "targets", "optimizers", "log_alpha", "generator"}
    for beyond in (0, 25):
        resumed = checkpoint.load(tmp_path / f"killed-{beyond}.pt")
        assert resumed.counters == expected.counters == {"offline_updates": 120}
        different = [name for name, value in expected.agent.items() if not equal(value, resumed.agent[name])]
        assert not different and equal(expected.generators, resumed.generators)


def test_what_is_changed_on_resume_is_said_recorded_and_kept(train, tmp_path, logged):
    train("--gamma", "0.9")
    logged()
    resume = ("--resume", str(tmp_path / "offline.pt"))
    start, records = train(*resume, "--updates", "40", "--gamma", "0.8")
    said = logged()
    lines = ["calql.gamma: 0.9 -> 0.8", "offline.updates: 30 -> 40"]
    assert [line for line in said if " -> " in line] == lines
    changed = {"calql.gamma": [0.9, 0.8], "offline.updates": [30, 40]}
    (record,) = [record for record in records if record["kind"] == "config"]
    assert record["changed"] == changed and record["updates"] == 30
    assert start.section("calql").gamma == 0.8
    again, records = train(*resume, "--updates", "40")  # nothing new is said again
    assert sum(record["kind"] == "config" for record in records) == 1 and " -> " not in "".join(logged())
    assert again.section("calql").gamma == 0.8


def test_what_no_checkpoint_can_change_is_refused(train, tmp_path, monkeypatch, capsys):
    train("--updates", "1")
    before = (tmp_path / "offline.pt").read_bytes()
    for flags, words in (
        (["--strides", "1"], ["network.strides: [2] -> [1]"]),  # the same shapes, and other features
        (["--critics", "4", "--channels", "5"], ["network.critics: 3 -> 4", "network.channels: [4] -> [5]"]),
        (["--initial-temperature", "0.5"], ["calql.initial_temperature: 0.1 -> 0.5"]),
        (["--seed", "9"], ["learner.seed: 0 -> 9"]),
    ):
        code, errors = run_command(monkeypatch, capsys, "--resume", tmp_path / "offline.pt", "--updates", "2", *flags)
        assert code == 2 and len(errors.splitlines()) == 1 and all(word in errors for word in words), errors
    assert (tmp_path / "offline.pt").read_bytes() == before


def test_a_checkpoint_that_is_there_is_not_written_over(train, demos, tmp_path, monkeypatch, capsys):
    train("--updates", "1")
    out = tmp_path / "offline.pt"
    before = out.read_bytes()
    code, errors = run_command(monkeypatch, capsys, "--data", demos, "--out", out)
    assert code == 2 and len(errors.splitlines()) == 1 and out.read_bytes() == before
    assert f"python -m agent.pretrain --resume {out};" in errors
    assert errors.endswith(f"python -m agent.pretrain --data {demos} --out {tmp_path / 'offline-2.pt'}\n")
    train("--updates", "1", out="other.pt")
    code, errors = run_command(monkeypatch, capsys, "--resume", tmp_path / "other.pt", "--out", out)
    assert code == 2 and out.read_bytes() == before


@pytest.mark.parametrize("storage", ["file", "device"])
def test_where_the_frames_live_changes_no_bit_and_leaves_no_file(train, tmp_path, monkeypatch, storage):
    plain, _ = train()
    monkeypatch.setattr(pretraining, "Prefetch", functools.partial(Prefetch, ahead=True))
    other, _ = train("--storage", storage, out="other.pt")
    assert all(torch.equal(value, other.agent["policy"][name]) for name, value in plain.agent["policy"].items())
    assert torch.equal(plain.generators["offline"], other.generators["offline"])
    names = [
        {path.name.split(".")[0] for path in (tmp_path / f"run-{run}.pt").iterdir()} for run in ("offline", "other")
    ]
    assert names[0] == names[1] and len(names[0]) == 2  # log.jsonl and TensorBoard's


def test_states_are_standardised_by_the_data(train, demos, make_episode):
    start, _ = train("--updates", "1")
    rows = np.concatenate([make_episode(5 + k, seed=k).observations["pos"][:-1] for k in range(4)])
    policy = start.agent["policy"]
    assert policy["encoder.state_mean"].numpy() == pytest.approx(rows.mean(0), rel=1e-3, abs=1e-4)
    assert policy["encoder.state_std"].numpy() == pytest.approx(rows.std(0), rel=1e-3)


def test_states_that_hold_still_are_reported_and_nan_is_refused(train, demos, logged):
    paths = sorted(demos.iterdir())
    for path in paths:
        episode = read_episode(path)
        episode.observations["pos"][:, 2] = 0.25
        write_episode(path, episode)
    start, _ = train("--updates", "1")
    (line,) = [line for line in logged() if "hardly vary" in line]
    assert line.startswith("states that hardly vary in 26 rows: pos[2] = 0.25; ")
    assert start.agent["policy"]["encoder.state_std"][2] == pytest.approx(1 / 20)
    episode.observations["pos"][1, 2] = np.nan
    write_episode(path, episode)
    with pytest.raises(UserError, match=rf"{path.name}: 'pos' has values that are not finite: nan at \[1, 2\]"):
        train("--updates", "1", out="other.pt")


@pytest.mark.parametrize(
    ("env", "differs"),
    [
        ("{name: sim, task: Lift}", "env sim against fake"),
        ("{name: fake, horizon: 12}", "horizon 12 against None"),
        ("{name: fake}", ""),
    ],
)
def test_an_env_in_the_configuration_that_is_not_used_is_reported(train, tmp_path, logged, env, differs):
    (tmp_path / "config.yaml").write_text(f"env: {env}")
    train("--updates", "1", "--config", str(tmp_path / "config.yaml"))
    found = [line for line in logged() if "ignored" in line]
    line = f"env comes from the demonstrations; --config differs and is ignored: {differs}"
    assert found == ([line] if differs else [])


def test_a_resumed_checkpoint_keeps_the_standardisation_that_it_stored(train, tmp_path):
    start, _ = train("--updates", "1")
    for policy in ("policy", "average"):
        start.agent[policy]["encoder.state_std"][:] = 0.01
    start.save(tmp_path / "old.pt")
    pretrain.main(["--resume", str(tmp_path / "old.pt"), "--updates", "2", "--run", str(tmp_path / "again")])
    agent = checkpoint.load(tmp_path / "old.pt").agent
    assert all((agent[policy]["encoder.state_std"] == 0.01).all() for policy in ("policy", "average"))


def test_published_networks_take_states_as_they_are_and_come_back_from_the_checkpoint(train):
    start, _ = train(
        "--updates", "1", "--state-standardise", "false", "--init", "orthogonal", "--log-std", "scaled"
    )  # fmt: skip
    policy = start.agent["policy"]
    assert not policy["encoder.state_mean"].any() and (policy["encoder.state_std"] == 1).all()
    assert policy["actor.log_std_offset"].item() == pytest.approx(-1, abs=0.01) and start.policy()


def test_a_learnable_task_is_learnt(tmp_path, train, make_episode, state_spec):
    """Where action and reward are functions of the state, and nothing comes after, all losses fall."""
    for k in range(6):
        episode = make_episode(10, seed=k, success=True, spec=state_spec)
        episode.actions[:] = 0.8 * np.tanh(episode.observations["pos"][:-1, :2])
        episode.rewards[:] = episode.observations["pos"][:-1, 2]
        write_episode(tmp_path / "easy" / f"e{k}.hdf5", episode)
    flags = "--actor-lr 3e-3 --critic-lr 3e-3 --bc-weight 10 --gamma 0 --cql-weight 0.1 --sparse false --bias 0"
    _, records = train(*flags.split(), "--updates", "300", "--offline.batch", "32", data=tmp_path / "easy")
    first, last = records[0], records[-1]
    assert last["bc_loss"] < 0.3 * first["bc_loss"]
    assert last["td_loss"] < 0.3 * first["td_loss"]


def test_flags_win_over_files_and_all_is_remembered(tmp_path, train):
    (tmp_path / "a.yaml").write_text("calql: {gamma: 0.5, cql_weight: 2}\noffline: {updates: 7}\nenv: {task: Lift}\n")
    start, _ = train("--config", str(tmp_path / "a.yaml"), "--cql-weight", "3", "--calibrate", "false")
    calql = start.section("calql")
    assert (calql.gamma, calql.cql_weight, calql.calibrate) == (0.5, 3.0, False)
    assert start.counters["offline_updates"] == 30 and start.section("reward") == RewardConfig()


def test_the_weights_are_the_offline_ones(train, monkeypatch):
    asked, update = set(), CalQL.update

    def spied(self, batch, weights, *args):
        asked.add((weights.cql, weights.bc))
        return update(self, batch, weights, *args)

    monkeypatch.setattr(CalQL, "update", spied)
    flags = "--cql-weight 3 --cql-weight-online 4 --bc-weight 0.5 --bc-weight-online 0.25 --updates 2"
    train(*flags.split())
    assert asked == {(3.0, 0.5)}


def test_critics_start_at_the_mean_return_where_asked(train, demos):
    replay, _ = load_demonstrations(OfflineConfig(data=[str(demos)]), RewardConfig(), CalQLConfig().gamma, 0)
    flags = ("--updates", "1", "--critic-lr", "0", "--start-at-return")
    low, high = train(*flags, "true", out="low")[1][0], train(*flags, "false", out="high")[1][0]
    assert low["q_data"] == pytest.approx(replay.mean_return(), abs=2.0)
    assert replay.mean_return() == pytest.approx(replay.sample(5000).returns.mean().item(), rel=0.05)
    assert abs(high["q_data"]) < 2.0 < -replay.mean_return() - 2.0


def test_a_preset_without_an_offline_phase_does_not_say_cal_ql(train, logged):
    train("--config", str(ROOT / "configs/presets/rlpd.yaml"), "--updates", "0", "--critics", "2")
    first = next(line for line in logged() if "demonstrations" in line)
    assert "; 0 updates on cpu (no offline phase); run folder " in first


def test_ctrl_c_leaves_a_checkpoint_that_loads(tmp_path, demos, tiny_flags):
    """A real process, interrupted in the middle of its updates. Its log is a pipe, so the first record is awaited.

    It has imported no compiler: torch._dynamo takes as long as all of torch.
    """
    run, out = tmp_path / "run", tmp_path / "offline.pt"
    run.mkdir()
    os.mkfifo(run / "log.jsonl")
    flags = ["--data", str(demos), "--out", str(out), "--run", str(run), "--updates", "10000000", "--log-every", "3"]
    command = [sys.executable, "-X", "importtime", "-m", "agent.pretrain", *flags, *tiny_flags]
    errors = tmp_path / "errors"  # longer than a pipe holds
    with (
        open(errors, "w") as stderr,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            with open(run / "log.jsonl") as log:
                record = json.loads(log.readline())
                assert record["updates"] == 3 and not out.exists()
                process.send_signal(signal.SIGINT)
                log.read()  # keep the pipe open, and empty, until the process has closed it
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in errors.read_text()
    assert "torch.optim" in errors.read_text() and "torch._dynamo" not in errors.read_text()
    assert f"to resume: python -m agent.pretrain --resume {out}" in said
    start = checkpoint.load(out)
    assert start.counters["offline_updates"] >= 3
    start.policy()


@pytest.mark.parametrize(
    "case, words",
    [
        ("no data", ["--data"]),
        ("absent", ["absent: no such file or folder"]),
        ("empty", ["empty: no episode files"]),
        ("damaged", ["e9.hdf5: not an episode file"]),
        ("differing", ["f0.hdf5: differs from", "camera 'cam'"]),
        ("sparse", ["e0.hdf5: ", "reward.sparse", "failure_reward"]),
        ("no success", ["offline.successes_only"]),
        ("unknown key", ["--gama", "gamma"]),
        ("device", ["learner.device", "nonsense"]),
        ("config", ["absent.yaml"]),
        ("value", ["gamma", "'high'"]),
        ("--encoder-weights imagenet", ["encoder_weights is 'imagenet'", "cnn"]),
        ("--cql-clip-low 2 --cql-clip-high 1", ["cql_clip_low is 2.0", "cql_clip_high 1.0"]),
        ("--critics 2 --target-subset 3", ["target_subset is 3", "2 network.critics"]),
        ("--offline-share -0.5", ["offline_share is -0.5"]),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    tmp_path, demos, monkeypatch, capsys, make_episode, state_spec, case, words
):
    monkeypatch.chdir(tmp_path)  # nothing is written into the repository
    data, flags = demos, []
    if case == "no data":
        data = None
    elif case == "absent":
        data = tmp_path / "absent"
    elif case == "empty":
        data = tmp_path / "empty"
        data.mkdir()
    elif case == "damaged":
        (demos / "e9.hdf5").write_bytes(b"\x89HDF half a file")
    elif case == "differing":
        write_episode(demos / "f0.hdf5", make_episode(4, spec=state_spec))
    elif case == "sparse":
        write_episode(demos / "e0.hdf5", make_episode(3, rewards=[0.1, 0.5, 1.0]))
    elif case == "no success":
        for path in demos.iterdir():
            write_episode(path, make_episode(4))
        flags = ["--successes-only", "true"]
    elif case == "unknown key":
        flags = ["--gama", "0.9"]
    elif case == "device":
        flags = ["--device", "nonsense"]
    elif case == "config":
        flags = ["--config", "absent.yaml"]
    elif case == "value":
        flags = ["--gamma", "high"]
    elif case.startswith("--"):
        flags = case.split()
    where = ["--data", data] if data else []
    code, errors = run_command(monkeypatch, capsys, *where, "--updates", "1", "--out", tmp_path / "no.pt", *flags)
    assert code == 2, errors
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: ")
    assert all(word in errors for word in words), errors
    assert not (tmp_path / "no.pt").exists()


def test_successes_only_leaves_failures_out_and_still_names_the_right_file(tmp_path, make_episode):
    folder = tmp_path / "mixed"
    write_episode(folder / "a.hdf5", make_episode(3, seed=0))
    write_episode(folder / "b.hdf5", make_episode(4, seed=1, success=True))
    write_episode(folder / "c.hdf5", make_episode(5, seed=2, success=True))
    config = OfflineConfig(data=[str(folder)], successes_only=True)
    replay, episodes = load_demonstrations(config, RewardConfig(), 0.9, 0)
    assert len(replay) == 9 and [len(e) for e in episodes] == [4, 5]
    bad = make_episode(5, seed=2, success=True)
    bad.rewards[0] = 0.5
    write_episode(folder / "c.hdf5", bad)
    with pytest.raises(UserError, match=r"c\.hdf5: .*failure_reward"):
        load_demonstrations(config, RewardConfig(), 0.9, 0)


@pytest.mark.parametrize("storage", ["device", "file"])
def test_room_for_all_demonstrations_is_taken_at_once(tmp_path, demos, monkeypatch, storage):
    """Columns that grow hold their old rows and their new ones at the same time."""
    sizes, new_empty = [], torch.Tensor.new_empty
    allocate = os.posix_fallocate
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda t, *size: (sizes.append(size[0]), new_empty(t, *size))[1])
    monkeypatch.setattr(os, "posix_fallocate", lambda *where: (sizes.append(30), allocate(*where))[1])
    where = Storage(storage, tmp_path / "frames")
    replay, _ = load_demonstrations(OfflineConfig(data=[str(demos)]), RewardConfig(), 0.9, 0, where)
    assert len(replay) == 26 and sizes == [26 + 4] * 7  # a row more per episode; two observations and five others


@pytest.mark.parametrize("successes_only", [False, True])
def test_a_full_storage_is_not_blamed_on_a_file(demos, monkeypatch, successes_only):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(torch.Tensor, "new_empty", full)
    config = OfflineConfig(data=[str(demos)], successes_only=successes_only)
    with pytest.raises(NoSpace, match=r"^learner\.storage: no room for"):
        load_demonstrations(config, RewardConfig(), 0.9, 0, Storage("device"))


@pytest.mark.parametrize(
    "name, process, device", [("auto", 1, "cuda:1"), ("cuda", 0, "cuda:0"), ("cuda:3", 0, "cuda:3"), ("cpu", 1, None)]
)
@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_that_was_chosen_is_the_current_one(monkeypatch, name, process, device, tf32):
    """With a make-believe machine of several."""
    chosen, precisions = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "Generator", lambda device: torch.default_generator)
    monkeypatch.setattr(torch, "empty", lambda *size, device: torch.zeros(*size))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    choose_device(LearnerConfig(device=name, tf32=tf32), process)
    assert chosen == ([device] if device else [])
    assert precisions == ([] if device is None else ["high"] if tf32 else ["highest"])


@pytest.mark.parametrize(
    ("threads", "told", "spare", "expected"),
    [(0, None, False, None), (0, None, True, 3), (2, None, True, 2), (0, "4", True, None)],
)
def test_fine_tuning_leaves_a_core_to_the_robot_server_unless_somebody_says_how_many(
    monkeypatch, threads, told, spare, expected
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    chosen = []
    monkeypatch.setattr(device, "THREADS", 4)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    choose_device(LearnerConfig(device="cpu", threads=threads), spare_core=spare)
    assert chosen == ([] if expected is None else [expected])
    monkeypatch.setattr(device, "THREADS", 1)
    choose_device(LearnerConfig(device="cpu"), spare_core=True)
    assert 0 not in chosen


def test_several_folders_and_single_files_are_read_together(tmp_path, demos, make_episode):
    write_episode(tmp_path / "more.hdf5", make_episode(9, seed=9))
    places = [str(demos), str(tmp_path / "more.hdf5")]
    replay, episodes = load_demonstrations(OfflineConfig(data=places), RewardConfig(), 0.9, 0)
    assert len(episodes) == 5 and len(replay) == 26 + 9 and episodes[0].observations == {}


# ---- a start that fails ----


@pytest.mark.parametrize("case", ["no data", "bad device", "a file above"])
def test_item_22_a_start_that_fails_creates_nothing(demos, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    flags = {
        "no data": ["--data", str(tmp_path / "nowhere")],
        "bad device": ["--data", str(demos), "--device", "cuda:77"],
        "a file above": ["--data", str(demos)],
    }[case]
    out = "new/deep/offline.pt"
    if case == "a file above":
        (tmp_path / "new").touch()
        before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError):
        pretrain.main([*flags, "--out", out, "--run", "runs/pre", "--storage", "file"])
    assert sorted(tmp_path.rglob("*")) == before
