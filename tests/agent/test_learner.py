"""The learner with its real mailbox and a real robot's link, in one thread: the robot moves while the learner waits."""

from __future__ import annotations

import copy
import dataclasses
import errno
import functools
import itertools
import json
import math
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Program
from hypothesis import given
from hypothesis import strategies as st

from agent import cli, learner, pretrain
from agent.calql.algorithm import CalQL
from agent.calql.values import episode_values
from agent.config import CalQLConfig, LinkConfig, OfflineConfig, OnlineConfig, RewardConfig
from agent.data.episode_file import episode_paths, read_episode, write_episode
from agent.data.prefetch import Prefetch
from agent.data.replay_buffer import Replay
from agent.env_record import EnvRecord
from agent.mailbox.mailbox import Mailbox
from agent.run import checkpoint, trainer
from agent.run import learner as run_learner
from agent.run.checkpoint import Checkpoint
from agent.run.demonstrations import load_demonstrations
from agent.run.health import Health
from agent.run.intake import Intake
from agent.run.learner import Learner
from agent.run.pacing import COMPILE_S, HOLD_S, cql_weight, updates_due
from agent.run.records import read_log
from agent.signals import SIGNALS
from agent.spec import Spec, UserError
from agent.wire.messages import episode_name, pack
from agent.wire.progress import read_progress
from agent.wire.receipt import boot_secret
from robot_server.link import Link

ROOT = Path(__file__).parents[2]


class Stop(Exception):
    """Ends a run from within, as a crash of the learner would."""


class Robot:
    """Plays given episodes a step at a time, each when the one before has arrived, so that runs repeat exactly."""

    def __init__(self, episodes, spec, folder, stop_after=math.inf):
        self.todo = [step for episode in episodes for step in episode.transitions()]
        self.seeds = [episode.meta["number"] for episode in episodes for _ in range(len(episode))]
        self.spec, self.folder, self.stop_after = spec, folder, stop_after
        self.link, self.sent, self.boot_steps, self.waits = None, 0, 0, 0
        self.fresh, self.gone = True, False

    def wait(self, mailbox, timeout_s):
        """Instead of the learner's wait."""
        self.waits += 1
        assert self.waits < 2000, "the run does not end"
        if self.link is None:
            self.link = Link(mailbox.address, self.spec, "arm", EnvRecord("fake"), self.folder)
        if mailbox.steps == self.boot_steps and self.link.network is not None:
            if self.boot_steps == self.stop_after:
                raise Stop
            if self.todo:
                if self.fresh:
                    self.link.begin({"seed": self.seeds[self.sent]})
                step = self.todo.pop(0)
                self.link.send(step)
                self.fresh = step.last
                self.sent += 1
                self.boot_steps += 1
        self.link.pump()
        if self.link.done and not self.gone and self.may_leave():
            self.gone = True  # as a robot server does: everything delivered, then BYE
            self.link.connection.send(pack("BYE"))
        Mailbox.wait(mailbox, 0.02)

    def may_leave(self):
        return True


class AtOnce:
    """Instead of the thread that writes episodes: done when `submit` returns, so that runs repeat exactly."""

    def __init__(self, *args):
        pass

    def submit(self, work, *args):
        done = Future()
        try:
            done.set_result(work(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self):
        pass


@pytest.fixture
def offline(tmp_path, make_episode, tiny_flags):
    """A pretrained checkpoint, and its demonstrations beside it."""
    for k in range(3):
        write_episode(tmp_path / "demos" / f"e{k}.hdf5", make_episode(6, seed=100 + k, success=k != 1))
    where = ["--data", str(tmp_path / "demos"), "--run", str(tmp_path / "pre"), "--out", str(tmp_path / "offline.pt")]
    pretrain.main([*where, "--updates", "3", *tiny_flags])
    return tmp_path / "offline.pt"


@pytest.fixture
def tune(tmp_path, monkeypatch, spec, offline, tiny_flags):
    """tune(episodes, "--utd", "2") runs agent.learner against a robot that plays them; returns a record of the run."""

    def run(episodes, *flags, name="run", resume=False, stop_after=math.inf, tiny=True, at_once=True):
        if at_once:
            monkeypatch.setattr("agent.data.episode_store.ThreadPoolExecutor", AtOnce)
        robot = Robot(episodes, spec, tmp_path / f"spool-{name}", stop_after)
        seen = Record(robot, tmp_path / name)

        class Driven(Mailbox):
            def wait(self, timeout_s):
                return robot.wait(self, timeout_s)

            def pace(self, hold_s):
                seen.paces.append(hold_s)
                seen.held.append((seen.learner.updates, hold_s))
                super().pace(hold_s)

            def offer(self, version, weights):
                seen.offers.append(version)
                seen.offered.append({name: value.copy() for name, value in weights.items()})
                super().offer(version, weights)

        class Kept(Learner):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                seen.learner = self

            def update(self):
                seen.updates.append((self.updates, self.seen, self.replay.episodes))
                seen.sent.append(robot.sent)
                super().update()

        monkeypatch.setattr(run_learner, "Mailbox", Driven)
        monkeypatch.setattr(run_learner, "Learner", Kept)
        start = ["--resume", str(seen.folder)] if resume else ["--ckpt", str(offline), "--run", str(seen.folder)]
        size = [] if resume or not tiny else [*tiny_flags, "--env-steps", str(len(robot.todo)), "--log-every", "4"]
        try:
            learner.main([*start, "--address", "tcp://127.0.0.1:0", *size, *flags])
        except Stop:
            seen.stopped = True
        finally:
            if robot.link:
                robot.link.close(0)
        return seen

    return run


class Record:
    def __init__(self, robot, folder):
        self.robot, self.folder = robot, folder
        self.learner, self.stopped, self.paces, self.offers, self.offered = None, False, [], [], []
        self.updates, self.sent = [], []  # before each update: what the learner says, and the steps really sent
        self.held = []  # (updates made by then, hold_s)

    @property
    def latest(self):
        return checkpoint.load(self.folder / "latest.pt")

    def records(self, kind):
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture
def episodes(make_episode):
    """Four, of 7, 3, 8 and 2 steps; the 2nd and 4th succeed."""
    return [make_episode(n, seed=k, success=k % 2 == 1, number=k) for k, n in enumerate((7, 3, 8, 2))]


# ---- the limiter ----


@pytest.mark.parametrize(
    "steps, warmup, utd, due",
    [(0, 0, 1, 0), (10, 0, 1, 10), (10, 0, 0.5, 5), (11, 0, 0.5, 5), (10, 0, 4, 40), (10, 10, 4, 0), (12, 10, 4, 8),
     (3, 10, 4, 0), (10, 0, 0, 0), (1000, 0, 0.1, 100)],
)  # fmt: skip
def test_p15_updates_due_are_env_steps_times_utd(steps, warmup, utd, due):
    assert updates_due(steps, warmup, utd) == due


@given(steps=st.integers(0, 10**6), warmup=st.integers(0, 10**5), utd=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0]))
def test_p15_updates_due_never_run_ahead_and_never_go_back(steps, warmup, utd):
    due = updates_due(steps, warmup, utd)
    assert due <= max(0, (steps - warmup) * utd) + 1e-6 and due > (steps - warmup) * utd - 1 - 1e-6
    assert updates_due(steps + 1, warmup, utd) >= due >= 0


@pytest.mark.parametrize("utd, warmup", [(1, 0), (0.5, 0), (3, 0), (1, 9), (2, 11)])
def test_p15_a_run_makes_exactly_its_updates_and_none_too_early(tune, episodes, utd, warmup):
    run = tune(episodes, "--utd", str(utd), "--warmup-steps", str(warmup))
    assert run.learner.env_steps == 20 and run.learner.episodes == 4
    assert run.learner.updates == len(run.updates) == math.floor((20 - warmup) * utd)
    for done, steps, finished in run.updates:
        assert finished >= 1 and steps >= 7, "before the first finished episode"
        assert steps > warmup, "during warm-up"
        assert done + 1 <= (steps - warmup) * utd, "ahead of the env steps"
    first = max(7, warmup + math.ceil(1 / utd))
    assert run.updates[0][1] == first  # and not later either: the robot waits for nothing
    assert [offer for offer in run.offers if offer > 1] == list(range(2, 2 + run.learner.updates // 10))


def test_p15_steps_beyond_the_end_of_a_run_ask_for_no_updates(tune, episodes):
    """Robots deliver what they hold when a run ends; it is kept, and asks for nothing more."""
    run = tune(episodes, "--utd", "1", "--env-steps", "15")
    assert run.learner.env_steps >= 18 and run.learner.updates == 15


def test_the_first_weights_are_those_of_the_checkpoint(tune, episodes, offline):
    """Warm-up is the frozen offline policy: what is offered before any update has not moved."""
    run = tune(episodes, "--warmup-steps", "20")
    assert run.offers == [1] and run.updates == []
    before, after = checkpoint.load(offline).agent["average"], run.latest.agent["average"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert run.robot.link.newest_weights()[0] == 1


def test_robots_get_the_mean_of_the_policys_weights(tune, episodes, offline):
    """And not the newest ones, neither at first nor later."""
    run = tune(episodes, "--utd", "1", "--offer-every", "5")
    assert len(run.offered) == 5 and run.learner.updates == 20
    for offered, saved in ((run.offered[0], checkpoint.load(offline)), (run.offered[-1], run.latest)):
        assert offered.keys() == saved.agent["average"].keys()
        for name, value in saved.agent["average"].items():
            np.testing.assert_array_equal(offered[name], value.numpy())
        assert any(not np.array_equal(offered[name], value.numpy()) for name, value in saved.agent["policy"].items())


def test_that_bf16_is_left_out_is_in_the_logs_of_both_stages(
    tune, episodes, offline, tmp_path, tiny_flags, monkeypatch
):
    monkeypatch.setattr("agent.calql.acceleration.bf16_cost", lambda: 19.0)
    offline.unlink()
    where = ["--data", str(tmp_path / "demos"), "--run", str(tmp_path / "pretrained"), "--out", str(offline)]
    pretrain.main([*where, "--updates", "2", *tiny_flags, "--bf16", "all"])
    (before,) = [record["line"] for record in read_log(tmp_path / "pretrained", "warning")]
    (now,) = [record["line"] for record in tune(episodes, "--utd", "1").records("warning")]
    assert before == now and now.endswith("updates are computed in float32")


def test_n_step_is_that_of_every_replay_from_pretraining_on(tune, episodes, offline, tmp_path, tiny_flags, monkeypatch):
    ahead, sample = [], Replay.sample
    monkeypatch.setattr(Replay, "sample", lambda self, *given: ahead.append(self.ahead) or sample(self, *given))
    offline.unlink()
    where = ["--data", str(tmp_path / "demos"), "--run", str(tmp_path / "pretrained"), "--out", str(offline)]
    pretrain.main([*where, "--updates", "2", *tiny_flags, "--n-step", "3"])
    assert ahead and set(ahead) == {3}
    ahead.clear()
    tune(episodes, "--utd", "1")
    assert len(ahead) > 2 and set(ahead) == {3}


def test_simulated_robots_that_run_ahead_are_held_and_released(tune, episodes):
    run = tune(episodes, "--utd", "1", "--max-lead-steps", "4")
    assert run.paces[0] == HOLD_S and 0.0 in run.paces  # 7 updates are due at once when the first episode ends
    assert run.paces[-1] == HOLD_S  # no steps beyond the run's end while its last update is due
    run = tune(episodes, "--utd", "1", "--max-lead-steps", "0", name="unlimited")
    assert run.paces == []


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [([], {0}), (["--actor-every", "3"], {0, 1}), (["--cql-weight-online", "0", "--cql-decay-steps", "10"], {0, 9})],
)
def test_simulated_robots_are_held_while_an_update_of_a_new_kind_is_compiled(tune, episodes, monkeypatch, flags, kinds):
    monkeypatch.setattr(trainer, "accelerate", lambda agent, config: None)  # compiling itself is tested elsewhere
    run = tune(episodes, "--utd", "1", "--max-lead-steps", "0", "--mode", "compile", *flags)
    assert run.learner.updates == 20
    assert {made for made, hold_s in run.held if hold_s == COMPILE_S} == kinds
    assert run.paces.count(COMPILE_S) == len(kinds) and 0.0 in run.paces


def test_the_conservative_weight_goes_from_its_offline_to_its_online_value():
    config = CalQLConfig(cql_weight=5.0, cql_weight_online=1.0, cql_decay_steps=100)
    assert [cql_weight(steps, config) for steps in (0, 25, 100, 1000)] == [5.0, 4.0, 1.0, 1.0]
    assert cql_weight(0, CalQLConfig(cql_weight=5.0, cql_weight_online=1.0)) == 1.0


# ---- what a run leaves ----


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by the thread"])
def test_every_episode_is_on_disk_acknowledged_and_logged(tune, episodes, at_once):
    run = tune(episodes, at_once=at_once)
    files = [read_episode(path) for path in episode_paths([run.folder / "episodes"])]
    assert sorted(e.meta["order"] for e in files) == [0, 1, 2, 3]
    for sent, stored in zip(episodes, sorted(files, key=lambda e: e.meta["order"]), strict=True):
        assert stored.meta["robot"] == "arm" and stored.meta["seed"] == sent.meta["number"]
        np.testing.assert_array_equal(stored.observations["cam"], sent.observations["cam"])
        np.testing.assert_array_equal(stored.actions, sent.actions)
        np.testing.assert_array_equal(stored.terminated, sent.terminated)
    logged = run.records("episode")
    assert [(r["env_steps"], r["length"], r["success"], r["return"]) for r in logged] == [
        (7, 7, 0, 0.0), (10, 3, 1, 1.0), (18, 8, 0, 0.0), (20, 2, 1, 1.0),
    ]  # fmt: skip
    acknowledged = Counter(key for key in run.learner.mailbox.assembly.stored)
    assert len(acknowledged) == 4


def test_its_robots_are_reported(tune, episodes, monkeypatch, logged):
    monkeypatch.setattr("agent.run.link_report.EVERY_S", 0.0)
    run = tune(episodes)
    steps = [record["steps"] for record in run.records("robot") if record["robot"] == "arm"]
    assert steps == sorted(steps) and steps[-1] > 0
    assert f"robot arm: {steps[-1]} steps received" in "".join(logged())


def test_p16_online_returns_equal_an_offline_recomputation(tune, episodes):
    run = tune(episodes, "--scale", "10", "--bias", "-5", "--gamma", "0.9")
    config = OfflineConfig(data=[str(run.folder / "episodes")])
    replay, _ = load_demonstrations(config, RewardConfig(10.0, -5.0), 0.9, 0)

    def contents(source):
        batch = source.sample(1500)
        columns = (batch.actions, batch.rewards, batch.returns, batch.terminated, batch.succeeded)
        return set(zip(*(map(tuple if c.dim() > 1 else float, c.tolist()) for c in columns), strict=True))

    online = contents(run.learner.replay)
    assert online == contents(replay) and len(online) == 20
    by_hand = [-50.0] * 7 + [-5 + 0.9 * (-5 + 0.9 * 5), -5 + 0.9 * 5, 5.0]
    ours = {
        tuple(a): r for e, at in ((episodes[0], 0), (episodes[1], 7)) for a, r in zip(e.actions.tolist(), by_hand[at:])
    }
    assert all(r == pytest.approx(ours[a], rel=1e-5) for a, _, r, _, _ in online if a in ours)
    assert len(ours) == 10


def test_update_records_have_the_metrics_also_when_the_actor_moves_seldom(tune, episodes):
    run = tune(episodes, "--utd", "2", "--actor-every", "4", "--log-every", "4", "--lagrange-threshold", "0.5")
    records = run.records("update")
    assert len(records) == 10
    wanted = {"td_loss", "cql_difference", "q_data", "return_to_go", "bound_rate_current", "bound_rate_next"}
    wanted |= {"actor_loss", "bc_loss", "alpha", "entropy", "alpha_prime", "cql_weight"}
    wanted |= {"updates_per_s", "env_steps_per_s", "version", "bad_messages", "stage", "time_s"}
    for record in records:
        assert wanted <= set(record), wanted - set(record)
        assert record["stage"] == "online" and record["bad_messages"] == 0
        assert all(math.isfinite(v) for v in record.values() if isinstance(v, (int, float)))


def test_q_along_the_newest_episode_is_told_to_its_robot(tune, episodes, monkeypatch):
    told = []
    monkeypatch.setattr("agent.run.progress_report.EVERY_S", 0.0)
    monkeypatch.setattr(Link, "_on_progress", lambda self, message: told.append(read_progress(message.fields)))
    monkeypatch.setattr(Robot, "may_leave", lambda self: told and told[-1]["newest_episode"].get("number") == 3)
    run = tune(episodes, "--utd", "0")  # the critics stay as they are
    newest = told[-1]["newest_episode"]
    assert newest["updates"] == 0 and newest["success"] and newest["steps"] == [0, 1]
    expected = episode_values(run.learner.trainer.agent, run.learner.config.reward, episodes[3])
    for name, values in expected.items():
        assert newest[name] == pytest.approx(values.tolist(), rel=1e-3, abs=1e-5)


def test_the_actor_moves_every_so_many_updates(tune, episodes, monkeypatch):
    asked = []
    update = CalQL.update

    def spied(self, batch, weights, update_actor=True):
        asked.append((update_actor, weights.cql, weights.bc, len(batch.actions)))
        return update(self, batch, weights, update_actor)

    monkeypatch.setattr(CalQL, "update", spied)
    tune(episodes, "--utd", "1", "--actor-every", "3", "--cql-weight-online", "0.25", "--bc-weight-online", "0.75")
    assert [a for a, *_ in asked] == [k % 3 == 0 for k in range(20)]
    assert {tuple(rest) for _, *rest in asked} == {(0.25, 0.75, 16)}


def test_the_conservative_weight_follows_its_schedule(tune, episodes, monkeypatch):
    """From 5 to 1 within 8 env steps, counted from the end of the warm-up."""
    asked, update = [], CalQL.update

    def spied(self, batch, weights, *args):
        asked.append(weights.cql)
        return update(self, batch, weights, *args)

    monkeypatch.setattr(CalQL, "update", spied)
    flags = "--utd 1 --warmup-steps 8 --cql-weight 5 --cql-weight-online 1 --cql-decay-steps 8"
    tune(episodes, *flags.split())
    assert asked == [4.5, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("share, expected", [("0.25", 4), ("0", 0), ("1", 16)])
def test_batches_mix_offline_and_online(tune, episodes, tmp_path, monkeypatch, share, expected):
    found, update = set(), CalQL.update
    demos = {tuple(a) for path in episode_paths([tmp_path / "demos"]) for a in read_episode(path).actions.tolist()}

    def spied(self, batch, *args):
        found.add(sum(tuple(a) in demos for a in batch.actions.tolist()))
        return update(self, batch, *args)

    monkeypatch.setattr(CalQL, "update", spied)
    tune(episodes, "--offline-share", share)
    assert found == {expected}


# ---- stop and resume ----


def same(one, two, name=""):
    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        for key in one:
            same(one[key], two[key], f"{name}/{key}")
    elif isinstance(one, (list, tuple)):
        for k, (a, b) in enumerate(zip(one, two, strict=True)):
            same(a, b, f"{name}/{k}")
    else:
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two, name


@pytest.mark.parametrize(
    ("capacity", "storage", "ahead"),
    [
        ("200", "host", False),
        ("14", "host", False),
        ("14", "host", True),
        ("14", "file", True),
        ("14", "device", False),
    ],
    ids=["roomy", "ring wraps", "drawn ahead", "file", "device"],
)
def test_p17_a_run_that_was_stopped_and_resumed_equals_one_that_never_stopped(
    tune, episodes, monkeypatch, capacity, storage, ahead
):
    flags = ("--utd", "1", "--actor-every", "2", "--capacity-steps", str(capacity), "--offer-every", "3")
    whole = tune(episodes, *flags, name="whole")
    flags += ("--storage", storage)
    monkeypatch.setattr(trainer, "Prefetch", functools.partial(Prefetch, ahead=ahead))
    first = tune(episodes[:3], *flags, "--env-steps", "20", name="parts", stop_after=18)
    assert first.stopped and first.latest.counters["env_steps"] == 18 == first.latest.counters["updates"]
    second = tune(episodes[3:], name="parts", resume=True)
    assert second.learner.env_steps == 20 and second.learner.updates == 20 and second.learner.episodes == 4
    assert len(second.updates) == 2
    same(whole.latest.agent, second.latest.agent)
    same(whole.latest.generators, second.latest.generators)
    counters = [{k: v for k, v in run.latest.counters.items() if k != "time_s"} for run in (whole, second)]
    assert counters[0] == counters[1]
    assert len(whole.learner.replay) == len(second.learner.replay)
    for run in (whole, second):
        for name, state in run.latest.generators.items():  # where the next batch begins, drawn ahead or not
            getattr(run.learner.trainer, {"online": "replay"}.get(name, name)).generator.set_state(state)
    same(vars(whole.learner.replay.sample(50)), vars(second.learner.replay.sample(50)))


def test_what_watches_over_a_run_is_shown_each_record_and_the_rewards(tune, episodes, monkeypatch):
    seen = []
    monkeypatch.setattr(Health, "update", lambda self, record, rewards: seen.append((record, rewards)))
    run = tune(episodes, "--utd", "1")
    assert [record for record, _ in seen] == run.records("update") and len(seen) == 5
    assert {rewards for _, rewards in seen} == {(-1.0, 0.0)}


def test_what_watches_over_a_run_knows_its_episodes_again_after_a_resume(tune, episodes, monkeypatch):
    seen = []
    monkeypatch.setattr(Health, "episode", lambda self, success: seen.append((self.tell.__name__, success)))
    tune(episodes[:2], "--env-steps", "20", stop_after=10)
    tune(episodes[2:], resume=True)
    quiet = [("<lambda>", episode.succeeded) for episode in episodes[:2]]
    said = [("warn", episode.succeeded) for episode in episodes]
    assert seen == said[:2] + quiet + said[2:]


def test_resume_continues_counters_log_and_identities(tune, episodes):
    tune(episodes[:2], "--env-steps", "20", "--offer-every", "2", "--utd", "1", stop_after=10)
    second = tune(episodes[2:], resume=True)
    assert second.offers == list(range(6, 12))  # 10 updates made 5 versions after the first one
    logged = second.records("episode")
    assert [r["env_steps"] for r in logged] == [7, 10, 18, 20]
    times = [r["time_s"] for r in logged + second.records("update")]
    assert times[:4] == sorted(times[:4])  # the clock goes on, never back
    files = [read_episode(path) for path in episode_paths([second.folder / "episodes"])]
    assert sorted(e.meta["order"] for e in files) == [0, 1, 2, 3]
    assert {
        (e.meta["robot"], e.meta["boot"], e.meta["number"]) for e in files
    } <= second.learner.mailbox.assembly.stored.keys()


def test_steps_of_an_episode_that_is_replaced_by_a_longer_version_count_once(
    tune, episodes, offline, tmp_path, monkeypatch
):
    """Item 10: in env_steps, in the steps seen, in the log and after a resume, whichever version is discarded."""
    counts = []

    def work(self, stop):
        assembly = self.mailbox.assembly

        def play(number, steps, meta=None):
            for step, made in enumerate(steps):
                assembly.add(("arm", "b0", number), step, made, {"seed": 1, **(meta or {})}, b"")
            self.take_in()
            counts.append((self.env_steps, self.seen, self.episodes, len(self.replay)))

        long = episodes[2].transitions()
        for number, meta in ((0, {}), (1, {"marked": "discard"})):
            play(number, long[:5])
            assembly.cut_short("arm", "b1", set(), b"")
            self.take_in()
            assembly.reopen(("arm", "b0", number))
            play(number, long, meta)
        self.save()

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "run", work)
        run = tune(episodes, "--env-steps", "100")
    assert counts == [(0, 5, 0, 0), (8, 8, 1, 8), (8, 13, 1, 8), (8, 8, 1, 8)]
    assert [record["length"] for record in run.records("episode")] == [4, 4]
    assert [record["length"] for record in run.records("replaced")] == [8]
    assert run.latest.counters["env_steps"] == 8
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "run", lambda self, stop: counts.append((self.env_steps, self.seen, self.store.steps)))
        tune(episodes, resume=True)
    assert counts[-1] == (8, 8, {("arm", "b0", 0): 8, ("arm", "b0", 1): 8})


def test_the_secret_of_a_run_is_in_its_checkpoint_alone(tune, episodes, capfd, caplog):
    """Item 11: not in its name, its log, its episodes or what its robots are told."""
    run = tune(episodes)
    whole = run.latest.run
    assert len(whole) == 32 and run.robot.link.run == f"run-{whole[:8]}"
    secret = boot_secret(whole, "arm", run.robot.link.boot)
    assert run.robot.link.handshake.secret == secret != whole
    out = "".join(capfd.readouterr()) + caplog.text
    files = [path for path in run.folder.rglob("*") if path.is_file() and path.suffix != ".pt"]
    assert len(files) > 4
    for said in (whole, secret):
        assert said not in out and not any(said.encode() in path.read_bytes() for path in files)
    assert {read_episode(path).meta["run"] for path in episode_paths([run.folder / "episodes"])} == {f"run-{whole[:8]}"}


def test_a_run_of_an_earlier_release_keeps_its_name_and_gets_a_secret(tune, episodes):
    run = tune(episodes[:2], "--env-steps", "20", stop_after=10)
    older = dataclasses.replace(run.latest, run="0badcafe")
    older.save(run.folder / "latest.pt")
    again = tune(episodes[2:], resume=True)
    assert again.robot.link.run == "run-0badcafe"
    assert again.latest.run.startswith("0badcafe") and len(set(again.latest.run[8:])) > 3
    third = tune([], "--env-steps", "20", resume=True)
    assert third.latest.run == again.latest.run


def test_a_disk_that_is_full_for_a_while_costs_neither_the_run_nor_an_episode(tune, episodes, monkeypatch, caplog):
    def failing(real, *calls):
        made = itertools.count(1)

        def write(*args):
            if next(made) in calls:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        return write

    def acknowledge(self, episode):
        assert episode.equals(read_episode(self._store.folder / "episodes" / f"{episode_name(episode.meta)}.hdf5"))
        Mailbox.acknowledge(self._mailbox, episode)

    take = Intake.take

    def taken(self, episode, *counters):
        self._mailbox.acknowledge = functools.partial(acknowledge, self)
        take(self, episode, *counters)

    monkeypatch.setattr("agent.run.intake.RETRY_S", 0.0)
    monkeypatch.setattr("agent.data.episode_store.write_episode", failing(write_episode, 1, 2, 5))
    monkeypatch.setattr("torch.save", failing(torch.save, 2, 3))
    monkeypatch.setattr("agent.run.intake.Intake.take", taken)
    run = tune(episodes, "--utd", "1", "--checkpoint-every", "1")
    assert (run.learner.episodes, run.learner.env_steps, run.learner.updates) == (4, 20, 20)
    assert len(episode_paths([run.folder / "episodes"])) == 4 and not run.robot.link.outbox
    assert (
        "No space left on device; waiting: 1 episode" in caplog.text and "latest.pt: cannot be written" in caplog.text
    )
    assert run.latest.counters["updates"] == 20


def test_damaged_files_of_a_run_are_put_beside_and_the_run_goes_on(tune, episodes, caplog):
    first = tune(episodes[:3], "--env-steps", "20", "--checkpoint-every", "8", stop_after=18)
    one, two, three = episode_paths([first.folder / "episodes"])
    data, actions = bytearray(one.read_bytes()), read_episode(one).actions.tobytes()
    data[data.index(actions)] ^= 1  # as an HDF5 file it stays sound
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:3000])
    foreign = read_episode(three)
    del foreign.meta["order"]
    write_episode(first.folder / "episodes" / "foreign.hdf5", foreign)
    (first.folder / "latest.pt").write_bytes(b"PK")
    second = tune(episodes[3:], "--env-steps", "10", resume=True)
    assert sorted(path.name for path in (first.folder / "damaged").iterdir()) == sorted(
        [one.name, two.name, "foreign.hdf5"]
    )
    assert (first.folder / "latest.pt.damaged").read_bytes() == b"PK"
    for name in (one.name, two.name, "foreign.hdf5", "latest.pt"):
        assert name in caplog.text
    assert second.learner.episodes == 2 and not second.stopped
    assert len(second.learner.mailbox.assembly.stored) == 2  # those that are damaged would be taken again


def test_a_learner_that_died_before_its_first_regular_checkpoint_can_be_resumed(tune, episodes, monkeypatch):
    """SIGKILL: no save at the end. Episodes acknowledged are on disk, and so must be what resumes them."""
    save = Learner.save

    def killed(self):
        if self.episodes == 0:
            save(self)

    monkeypatch.setattr(Learner, "save", killed)
    tune(episodes[:2], "--env-steps", "20", stop_after=10)
    monkeypatch.setattr(Learner, "save", save)
    second = tune(episodes[2:], "--utd", "1", resume=True)
    assert second.learner.env_steps == 20 and second.learner.episodes == 4
    assert second.learner.updates == 20  # those that the crash lost are made again


def test_an_episode_that_contradicts_the_config_is_set_aside_whole(tune, episodes, make_episode, caplog):
    """It stops nothing, asks for no updates, and its robot may forget it; a config put right takes it in, once."""
    episodes[1].rewards[0] = 0.5
    first = tune([*episodes, make_episode(9, seed=4, number=4)], "--utd", "1", "--env-steps", "18")
    # two updates while its steps came, the third when as many steps of others had come
    assert first.sent == [7] * 7 + [8, 9] + list(range(13, 22))
    [aside] = (first.folder / "quarantine").iterdir()
    assert f"{aside}: reward.sparse" in caplog.text
    np.testing.assert_array_equal(read_episode(aside).rewards, episodes[1].rewards)
    assert (first.learner.episodes, first.learner.env_steps, first.learner.updates) == (4, 26, 18)
    assert not first.robot.link.outbox and len(first.learner.replay) == 26
    again = tune([], resume=True)  # nothing has been put right
    assert (again.learner.episodes, again.learner.env_steps) == (4, 26) and aside.exists()
    assert read_episode(aside).meta["number"] in [number for *_, number in again.learner.mailbox.assembly.stored]
    right = tune([], "--sparse", "false", "--env-steps", "20", resume=True)
    assert not aside.exists() and len(right.learner.replay) == 29
    assert (right.learner.episodes, right.learner.env_steps, right.learner.updates) == (5, 29, 20)
    files = [read_episode(path) for path in episode_paths([right.folder / "episodes"])]
    assert len(files) == len({e.meta["order"] for e in files}) == 5


def test_a_run_that_diverges_stops_offers_nothing_and_keeps_its_checkpoint(tune, episodes):
    with pytest.raises(UserError, match="learning has diverged"):
        tune(episodes, "--utd", "1", "--critic-lr", "1e30", "--actor-lr", "1e30", "--offer-every", "3")
    run = tune(episodes, name="fine")  # the record of a run that raised is lost; its folder is not
    latest = checkpoint.load(run.folder.parent / "run" / "latest.pt")
    assert latest.counters["updates"] == 0
    assert all(value.isfinite().all() for value in latest.agent["average"].values())


def test_the_newest_checkpoints_are_kept(tune, episodes):
    run = tune(episodes, "--utd", "1", "--checkpoint-every", "1", "--keep", "2")
    kept = sorted((run.folder / "checkpoints").iterdir())
    assert [path.name for path in kept] == ["00000018.pt", "00000020.pt"]
    assert [checkpoint.load(path).counters["env_steps"] for path in kept] == [18, 20]
    assert kept[-1].read_bytes() == (run.folder / "latest.pt").read_bytes()
    assert not (tune(episodes, "--keep", "0", name="none").folder / "checkpoints").exists()


def test_checkpoints_are_where_they_would_be_had_the_run_not_been_stopped(tune, episodes):
    """Episodes end at 7, 10, 18 and 20 env steps: those after a multiple of 9, the end; and where it was stopped."""

    def kept(run):
        return sorted(int(path.stem) for path in (run.folder / "checkpoints").iterdir())

    assert kept(tune(episodes, "--utd", "1", "--checkpoint-every", "9", name="whole")) == [10, 18, 20]
    tune(episodes[:1], "--utd", "1", "--env-steps", "20", "--checkpoint-every", "9", stop_after=7)
    assert kept(tune(episodes[1:], resume=True)) == [7, 10, 18, 20]


def test_after_a_kill_nothing_older_is_kept_as_the_checkpoint_of_the_steps_on_disk(tune, episodes, monkeypatch):
    """Saved after 7 env steps, killed after 10."""
    save = Learner.save

    def killed(self):
        if self.episodes < 2:
            save(self)

    def stopped(self):
        raise Stop

    monkeypatch.setattr(Learner, "save", killed)
    flags = ("--utd", "1", "--env-steps", "20", "--checkpoint-every", "7")
    first = tune(episodes[:2], *flags, stop_after=10)
    assert first.latest.counters["env_steps"] == 7
    monkeypatch.setattr(Learner, "save", save)
    with monkeypatch.context() as patch:  # and stopped once more, before it has learnt anything
        patch.setattr(Learner, "update", stopped)
        assert tune([], resume=True).stopped
    second = tune(episodes[2:], resume=True)
    assert second.learner.env_steps == 20 and second.learner.updates == 20
    assert sorted(int(path.stem) for path in (second.folder / "checkpoints").iterdir()) == [7, 18, 20]


def test_a_finished_run_resumed_ends_at_once(tune, episodes):
    first = tune(episodes)
    second = tune([], resume=True)
    assert second.learner.updates == first.learner.updates and second.updates == []
    longer = tune([copy.deepcopy(episodes[0])], "--env-steps", "27", resume=True)
    assert longer.learner.env_steps == 27


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_learner_that_is_stopped_names_the_command_that_resumes_it(offline, tmp_path, number):
    """Its work is not done, so it does not exit with 0."""
    folder = tmp_path / "run"
    words = ["--ckpt", offline, "--address", "tcp://127.0.0.1:0", "--learner.run", folder]
    process = Program("-m", "agent.learner", *words, out=tmp_path / "out")
    try:
        while "listening on" not in process.said() or not (folder / "latest.pt").exists():
            assert process.poll() is None, process.said()
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    finally:
        process.kill()
    resume = f"python -m agent.learner --resume {folder} --address tcp://127.0.0.1:0"
    assert process.said().splitlines()[-1] == f"to resume: {resume}"
    assert checkpoint.load(folder / "latest.pt").counters["env_steps"] == 0


# ---- what it refuses ----


def run_command(monkeypatch, capsys, *argv):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(sys, "argv", ["learner", *map(str, argv)])
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as end:
            cli.run(learner.main)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    errors = capsys.readouterr().err
    assert end.value.code == 2, errors
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: "), errors
    return errors


def test_ckpt_and_resume_are_one_or_the_other(monkeypatch, capsys, offline, tmp_path):
    for flags in ([], ["--ckpt", offline, "--resume", tmp_path]):
        assert "--ckpt FILE" in run_command(monkeypatch, capsys, *flags)


@pytest.mark.parametrize("resume", [False, True])
def test_item_19_the_link_is_never_a_checkpoints(tune, episodes, offline, logged, monkeypatch, resume):
    """Nor that of a run's own latest.pt, which may be a copy: the flags are shown, and have to be given again."""
    path = tune(episodes[:1]).folder / "latest.pt" if resume else offline
    state = checkpoint.load(path)
    state.config["link"] = {"address": "tcp://0.0.0.0:*", "keys": "", "insecure": True, "other_env": True}
    state.save(path)
    logged()
    link = tune([], "--env-steps", "0", resume=resume).learner.config.link
    assert (link.address, link.insecure, link.other_env) == ("tcp://127.0.0.1:0", False, False)
    shown = "its flags were: --address 'tcp://0.0.0.0:*' --insecure --other-env"
    assert any(shown in line for line in logged()) == resume
    state.save(path)

    def refuse(address, *rest):
        raise UserError(f"would listen on {address}")

    monkeypatch.setattr(run_learner, "Mailbox", refuse)
    start = ["--resume", path.parent] if resume else ["--ckpt", path, "--run", path.with_name("new")]
    with pytest.raises(UserError, match=r"listen on tcp://127\.0\.0\.1:5555"):
        learner.main([*map(str, start), "--env-steps", "0"])


def test_it_is_called_from_python_as_well(offline, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("agent.run.farewell.COME_S", 0.0)
    start = checkpoint.load(offline)
    link, online = LinkConfig(address="tcp://127.0.0.1:0"), OnlineConfig(env_steps=0, batch=16)
    config = dataclasses.replace(start.run_config(), link=link, online=online)
    end = learner.finetune(config, str(offline), tmp_path / "run")
    assert end.counters["env_steps"] == 0
    written = checkpoint.load_newest(tmp_path / "run")
    same(end.agent, written.agent)
    assert end.config == written.config == dataclasses.asdict(config)
    assert written.run_config() == dataclasses.replace(config, link=LinkConfig())  # a checkpoint opens no network
    with pytest.raises(UserError, match="already exists"):
        learner.finetune(config, start, tmp_path / "run")
    assert learner.finetune(config, written, tmp_path / "run", resume=True).run == end.run
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_is_read_once_when_a_run_is_resumed(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.run.farewell.COME_S", 0.0)
    flags = ["--address", "tcp://127.0.0.1:0", "--env-steps", "0"]
    learner.main(["--ckpt", str(offline), "--run", str(tmp_path / "run"), *flags])
    read, load = [], checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda path: read.append(path) or load(path))
    learner.main(["--resume", str(tmp_path / "run"), *flags])
    assert read == [tmp_path / "run" / "latest.pt"]


def test_a_run_is_resumed_from_its_own_newest_checkpoint_only(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.run.farewell.COME_S", 0.0)
    start = checkpoint.load(offline)
    link, online = LinkConfig(address="tcp://127.0.0.1:0"), OnlineConfig(env_steps=0, batch=16)
    config = dataclasses.replace(start.run_config(), link=link, online=online)
    ours, other = (learner.finetune(config, start, tmp_path / name) for name in ("ours", "other"))
    for stranger in (start, other):
        with pytest.raises(UserError, match="another run"):
            learner.finetune(config, stranger, tmp_path / "ours", resume=True)
    older = dataclasses.replace(ours, counters={**ours.counters, "updates": 7})
    with pytest.raises(UserError, match="7 updates, its newest 0"):
        learner.finetune(config, older, tmp_path / "ours", resume=True)
    with pytest.raises(UserError, match=r"latest\.pt: no such file"):
        learner.finetune(config, ours, tmp_path / "nowhere", resume=True)
    wrong = dataclasses.replace(config, online=OnlineConfig(utd=-1.0))
    with pytest.raises(UserError, match=r"online\.utd is -1; it must be 0 or more"):
        learner.finetune(wrong, ours, tmp_path / "ours", resume=True)


def test_missing_and_damaged_checkpoints_are_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "bad.pt").write_text("hello")
    assert "absent.pt: no such file" in run_command(monkeypatch, capsys, "--ckpt", tmp_path / "absent.pt")
    assert "bad.pt: not a checkpoint" in run_command(monkeypatch, capsys, "--ckpt", tmp_path / "bad.pt")
    assert "nowhere/latest.pt: no such file" in run_command(monkeypatch, capsys, "--resume", tmp_path / "nowhere")


def test_the_folder_of_another_run_is_refused_with_the_commands_that_would_be_right(
    tune, episodes, monkeypatch, capsys, offline
):
    run = tune(episodes)
    before = (run.folder / "latest.pt").read_bytes()
    command = "python -m agent.learner"
    another = f"to start another: {command} --ckpt {offline} --run {run.folder}-3\n"
    run.folder.with_name("run-2").mkdir()
    for there, again in (
        (["checkpoints", "latest.pt"], f"to resume it: {command} --resume {run.folder}; "),
        ([], ""),
    ):
        errors = run_command(monkeypatch, capsys, "--ckpt", offline, "--run", run.folder)
        assert errors == f"error: {run.folder}: already exists; {again}{another}"
        if there:
            assert (run.folder / "latest.pt").read_bytes() == before
            (run.folder / "latest.pt").unlink()  # a checkpoint before it can be gone on from as well
            assert again in run_command(monkeypatch, capsys, "--ckpt", offline, "--run", run.folder)
            shutil.rmtree(run.folder / "checkpoints")


def test_what_is_changed_on_resume_is_said_recorded_and_kept(tune, episodes, logged):
    first = tune(episodes[:2])
    assert " -> " not in "".join(logged())  # of the checkpoint's, at the start of a run
    tune([], "--gamma", "0.5", "--online.batch", "8", resume=True)
    assert [line for line in logged() if " -> " in line] == ["calql.gamma: 0.95 -> 0.5", "online.batch: 16 -> 8"]
    (record,) = first.records("config")
    assert record["changed"] == {"calql.gamma": [0.95, 0.5], "online.batch": [16, 8]}
    assert (record["env_steps"], record["updates"]) == (first.learner.env_steps, first.learner.updates)
    kept = checkpoint.load(first.folder / "latest.pt")
    assert (kept.section("calql").gamma, kept.section("online").batch) == (0.5, 8)
    third = tune([], resume=True)
    assert third.learner.config.calql.gamma == 0.5 and " -> " not in "".join(logged())


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--strides", "1"], "network.strides: [2] -> [1]"),  # the same shapes, and other features
        (["--seed", "4"], "learner.seed: 0 -> 4"),
        (["--start-at-return", "false"], "calql.start_at_return: True -> False"),
        (["--run", "elsewhere"], "learner.run: "),
    ],
)
def test_what_no_run_can_change_is_refused(tune, episodes, monkeypatch, capsys, flags, words):
    run = tune(episodes[:1])
    before = (run.folder / "latest.pt").read_bytes()
    assert words in run_command(monkeypatch, capsys, "--resume", run.folder, *flags)
    assert (run.folder / "latest.pt").read_bytes() == before


@pytest.mark.parametrize(
    "case, flags, words",
    [
        ("demos gone", [], ["demos: no such file or folder"]),
        ("demos damaged", [], ["e0.hdf5"]),
        ("other spaces", [], ["camera 'cam'"]),
        ("no demos", ["--offline.data", "[]"], ["--offline.data", "--offline-share 0"]),
        ("other network", ["--critics", "5"], ["network.critics: 3 -> 5"]),
        ("address", ["--address", "tcp://0.0.0.0:5555"], ["insecure"]),
        ("subset", ["--target-subset", "4"], ["target_subset is 4, of only 3"]),
        ("reward", ["--failure-reward", "-1"], ["e0.hdf5", "failure_reward"]),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    monkeypatch, capsys, offline, tmp_path, make_episode, state_spec, case, flags, words
):
    demos = tmp_path / "demos"
    if case == "demos gone":
        demos.rename(tmp_path / "elsewhere")
    elif case == "demos damaged":
        (demos / "e0.hdf5").write_bytes(b"\x89HDF")
    elif case == "other spaces":
        for path in demos.iterdir():
            write_episode(path, make_episode(4, spec=state_spec))
    errors = run_command(monkeypatch, capsys, "--ckpt", offline, "--run", tmp_path / "run", *flags)
    assert all(word in errors for word in words), errors


def test_no_demonstrations_are_needed_without_an_offline_share(tune, episodes, tmp_path):
    (tmp_path / "demos").rename(tmp_path / "elsewhere")
    run = tune(episodes, "--offline-share", "0")
    assert run.learner.updates > 0 and run.learner.trainer.offline is None


# ---- a start that fails ----


@pytest.mark.parametrize("case", ["port in use", "bad keys", "other spaces", "no device", "no demonstrations", "file"])
def test_item_22_a_start_that_fails_creates_nothing(tune, offline, tmp_path, monkeypatch, capsys, spec, network, case):
    folder = tmp_path / "runs" / "lift"
    flags, words = ["--address", "tcp://127.0.0.1:0"], ""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        if case in ("port in use", "file"):
            flags, words = ["--address", f"tcp://127.0.0.1:{taken.getsockname()[1]}"], "in use"
            flags += ["--storage", "file"] if case == "file" else []
        elif case == "bad keys":
            flags, words = [*flags, "--keys", tmp_path / "absent"], "absent"
        elif case == "other spaces":
            other = Spec({"cam": (12, 12, 3)}, {"pos": 4}, 2)
            agent = CalQL(other, network, CalQLConfig(), torch.device("cpu"), 0)
            state = checkpoint.load(offline)
            Checkpoint(other, state.env, state.config, agent.state_dict()).save(tmp_path / "other.pt")
            offline, words = tmp_path / "other.pt", "differ"
        elif case == "no device":
            flags, words = [*flags, "--device", "cuda:77"], "cuda:77"
        else:
            flags, words = [*flags, "--offline.data", tmp_path / "nowhere"], "nowhere"
        assert words in run_command(monkeypatch, capsys, "--ckpt", offline, "--run", folder, *flags)
    assert not folder.parent.exists()


def test_item_22_a_folder_without_data_is_not_there_already(tune, episodes):
    folder = tune([], "--env-steps", "0", name="other").folder
    new = folder.with_name("run")
    for name in ("episodes", "checkpoints"):
        (new / name).mkdir(parents=True)
    (new / "log.jsonl").touch()
    shutil.copy(next(folder.glob("events*")), new)
    assert tune(episodes[:1], name="run").learner.episodes == 1
