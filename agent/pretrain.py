"""Train a policy offline from demonstrations with Cal-QL, and write a checkpoint that fine-tuning starts from.

  python -m agent.pretrain --data demos/lift --out offline.pt
  python -m agent.pretrain --config configs/lift.yaml --config configs/presets/cql.yaml --data demos/lift --out cql.pt
  python -m agent.pretrain --resume offline.pt              # resume one that was stopped, or (--updates) train longer

Reads every episode file in the folders given. The checkpoint is written now and then, at the end, and on Ctrl-C; it
remembers the config, the spaces, the environment and the folders. Losses go to log.jsonl and TensorBoard files in the
run's folder (runs/<name>/, --run).
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent import cli, commands
from agent.calql.acceleration import accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.config import FIXED_AFTER_START, NETWORK_FIELDS, Changes, RunConfig, changes
from agent.data.prefetch import Prefetch
from agent.data.storage import Storage
from agent.env_record import compare
from agent.files import check_writable
from agent.progress import Progress
from agent.run import checkpoint
from agent.run.checkpoint import Checkpoint
from agent.run.demonstrations import environment, load_demonstrations
from agent.run.device import choose_device, run_folder
from agent.run.health import Health
from agent.run.log import RunLog
from agent.run.update_report import UpdateReport
from agent.spec import UserError, plural

USED = ("network", "calql", "reward", "offline", "online", "learner")
SAVE_EVERY_S = 60.0


def pretrain(
    config: RunConfig,
    data: Sequence[str | Path],
    out: str | Path,
    start: Checkpoint | None = None,
    stop: cli.Stop | None = None,
    origin: str = "the checkpoint",
) -> Checkpoint:
    """Train on the demonstrations in `data` (folders or files), write a checkpoint to `out`, and return it.

        config = RunConfig(offline=OfflineConfig(updates=2000))
        trained = pretrain(config, ["demos/lift"], "offline.pt")
        action = trained.policy().act(observation)

    start: continue from it, up to config.offline.updates in all; origin: its path. `out` must be new, or that path.
    stop: in force while it trains; Ctrl-C and SIGTERM end it after the update in progress, with a checkpoint. The log
    goes to the folder config.learner.run. Raises UserError when config, data and `start` do not fit.
    """
    out, stop, config = Path(out), stop or cli.Stop(), config.checked()
    config = replace(config, offline=replace(config.offline, data=[str(Path(place).resolve()) for place in data]))
    changed = _check(config, out, start, origin)
    folder = run_folder(config.learner, "pretrain")
    training = Pretraining(config, folder, start, origin)
    with contextlib.closing(RunLog(folder)) as run_log:
        training.introduce(run_log, changed)
        before, whole = training.updates, False
        try:
            with stop:
                train(training, out, run_log, stop)
            whole = not stop.asked
        finally:  # Ctrl-C, or an error, keeps what was trained; else an older checkpoint there is worth more
            if written := whole or training.updates > (0 if stop.asked else before):
                training.checkpoint().save(out)
        if written:
            run_log.result(f"wrote {out} after {plural(training.updates, 'update')} ({run_log.time_s:.0f} s)")
    return training.checkpoint()


def _check(config: RunConfig, out: Path, start: Checkpoint | None, origin: str) -> Changes:
    """What `config` changes of `start`. Raises UserError for what cannot work, before anything is loaded."""
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file")
    if out.exists() and not (start and Path(origin).exists() and out.samefile(origin)):
        words = ["--resume", origin] if start else ["--data", *config.offline.data]
        raise checkpoint.taken(out, ["agent.pretrain", "--resume", out], ["agent.pretrain", *words, "--out"])
    changed: Changes = {}
    if start:
        if "updates" in start.counters:
            raise UserError(f"{origin}: of an online run; continue it by python -m agent.learner --resume FOLDER")
        changed = changes(start.run_config(), config, NETWORK_FIELDS | FIXED_AFTER_START)
        done, updates = start.counters["offline_updates"], config.offline.updates
        if done > updates:
            raise UserError(f"{origin} has {done} updates already; --updates asks for {updates} in all")
    try:  # now, not after the training
        check_writable(out.parent)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    return changed


class Pretraining:
    """The demonstrations, the agent that learns from them, and the number of its updates so far."""

    def __init__(self, config: RunConfig, folder: Path, start: Checkpoint | None, origin: str) -> None:
        learner, calql = config.learner, config.calql
        self.device = choose_device(learner)
        storage = Storage(learner.storage, folder, self.device)
        self.replay, episodes = load_demonstrations(config.offline, config.reward, calql.gamma, learner.seed, storage)
        self.env, self.episodes = environment(episodes), len(episodes)
        self.successes = sum(episode.succeeded for episode in episodes)
        self.states = self.replay.state_statistics()
        self.batches = Prefetch(self.replay, None, config.offline.batch, 1.0, self.device)
        if start:
            start.check_sizes()
            config = replace(config, network=config.network.from_checkpoint())
        self.config = config
        self.updates = start.counters["offline_updates"] if start else 0
        self.agent = CalQL(self.replay.spec, config.network, calql, self.device, learner.seed)
        self._weights = Weights(calql.cql_weight, calql.bc_weight)
        if start:
            self._restore(start, origin)
        else:
            if config.network.state_standardise:
                self.agent.standardise(*map(torch.from_numpy, self.states.standardisation()))
            if calql.start_at_return:
                self.agent.start_critics_at(self.replay.mean_return())
        accelerate(self.agent, learner)

    def _restore(self, start: Checkpoint, origin: str) -> None:
        place = self.config.offline.data[0]
        if differences := start.spec.differences(self.replay.spec):
            raise UserError(f"{origin} and {place} differ: {'; '.join(differences)}")
        compare((origin, start.env), (place, self.env))
        start.restore(self.agent)
        self.replay.generator.set_state(start.generators["offline"])

    def introduce(self, run_log: RunLog, changed: Changes) -> None:
        """Log what is going to happen."""
        updates, calql = self.config.offline.updates, self.config.calql
        run_log.say(
            f"{plural(self.episodes, 'demonstration')}, {plural(len(self.replay), 'step')}, "
            f"{self.successes / self.episodes:.0%} successful; {self.replay.spec.summary}; "
            + f"{plural(updates, 'update')} "
            + (f"from {self.updates} on " if self.updates else "")
            + f"on {self.device} ({calql.algorithm if updates else 'no offline phase'})"
        )
        if line := self.states.report():
            run_log.say(line)
        run_log.changes(changed, 0, self.updates)
        if calql.bc_filter == "success" and calql.bc_weight and not self.successes:
            line = "no demonstration succeeded, so there is nothing to clone; --bc-filter all clones every one"
            run_log.warn(line, 0, self.updates)

    def update(self) -> dict[str, Tensor]:
        """One update; its metrics, on the device."""
        metrics = self.agent.learn(self.batches.next(), self._weights)
        self.batches.draw_ahead()
        self.updates += 1
        return metrics

    def checkpoint(self) -> Checkpoint:
        """The training as it is now. Raises UserError when learning has diverged."""
        self.agent.check_alive()
        agent, generators, counters = (
            self.agent.state_dict(),
            self.batches.generators(),
            {"offline_updates": self.updates},
        )
        config = dataclasses.asdict(self.config)
        del config["link"]  # there is none offline
        return Checkpoint(self.replay.spec, self.env, config, agent, counters, generators)


def train(training: Pretraining, out: Path, run_log: RunLog, stop: Callable[[], bool]) -> None:
    """Make the updates of the config, or as many as there are before `stop()`; write a checkpoint now and then."""
    config, saved_s = training.config, time.monotonic()
    total, log_every, save_every = config.offline.updates, config.learner.log_every, config.offline.save_every
    actions = training.agent.action_dim
    health = Health(config.calql, actions, lambda line: run_log.warn(line, 0, training.updates))
    report = UpdateReport(run_log, health, 0, training.updates)
    with Progress(total, "pretrain", "updates") as progress:
        while training.updates < total and not stop():
            report.add(training.update())
            done = training.updates
            if done % log_every == 0 or done == total:
                record = report.write(0, done, training.replay.reward_range, stage="offline")
                progress.show(done, summary(record))
            if done % save_every == 0 if save_every else time.monotonic() - saved_s > SAVE_EVERY_S:
                training.checkpoint().save(out)
                saved_s = time.monotonic()


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__ or "", USED, _flags, prog="python -m agent.pretrain")
    flags = arguments.flags
    start = checkpoint.load(flags.resume) if flags.resume else None
    config = RunConfig(**{name: arguments.section(name, start.config.get(name) if start else None) for name in USED})
    data = flags.data or config.offline.data
    if not data:
        raise UserError("no data: give the demonstrations' folders as --data FOLDER [FOLDER ...]")
    out = Path(flags.out or flags.resume or "offline.pt")
    stop = cli.Stop()
    done = pretrain(config, data, out, start, stop, flags.resume or "").counters["offline_updates"]
    if done == config.offline.updates:
        return 0
    command = commands.typed("agent.pretrain", "--resume", out)
    print(f"to resume: {command}" if done else "stopped before the first update: nothing was written", flush=True)
    return stop.exit_code


def summary(metrics: dict[str, Any]) -> str:
    names = {"td_loss": "td", "q_data": "Q", "return_to_go": "R", "entropy": "H", "bc_loss": "bc"}
    return "  ".join(f"{short} {float(metrics[name]):.2f}" for name, short in names.items() if name in metrics)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", nargs="+", metavar="FOLDER", help="demonstrations: folders of episode files, or files"
    )
    parser.add_argument("--out", metavar="FILE", help="checkpoint to write (offline.pt, or that of --resume)")
    parser.add_argument("--resume", metavar="FILE", help="checkpoint of a run that was stopped, to resume")


if __name__ == "__main__":
    cli.run(main)
