"""One offline run: demonstrations, the agent that learns from them, and its checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent.calql.acceleration import accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.config import Changes, RunConfig
from agent.data.prefetch import Prefetch
from agent.data.storage import Storage
from agent.env_record import compare
from agent.progress import Progress
from agent.run.checkpoint import Checkpoint
from agent.run.demonstrations import environment, load_demonstrations
from agent.run.device import choose_device
from agent.run.health import Health
from agent.run.log import RunLog
from agent.run.update_report import UpdateReport
from agent.spec import UserError, plural

SAVE_EVERY_S = 60.0


class Pretraining:
    """The demonstrations, the agent that learns from them, and the number of its updates so far."""

    def __init__(self, config: RunConfig, folder: Path, start: Checkpoint | None, origin: str) -> None:
        learner, calql = config.learner, config.calql
        self.device = choose_device(learner)
        storage = Storage(learner.storage, folder, self.device)
        self.replay, episodes = load_demonstrations(
            config.offline, config.reward, calql.gamma, learner.seed, storage, n_step=calql.n_step
        )
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
        self.warning = accelerate(self.agent, learner)

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
            + f"on {self.device} ({calql.algorithm if updates else 'no offline phase'}); "
            + f"run folder {self.config.learner.run} (tensorboard --logdir {Path(self.config.learner.run).parent})"
        )
        if line := self.states.report():
            run_log.say(line)
        run_log.changes(changed, 0, self.updates)
        if self.warning:
            run_log.warn(self.warning, 0, self.updates)
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


def summary(metrics: dict[str, Any]) -> str:
    names = {"td_loss": "td", "q_data": "Q", "return_to_go": "R", "entropy": "H", "bc_loss": "bc"}
    return "  ".join(f"{short} {float(metrics[name]):.2f}" for name, short in names.items() if name in metrics)
