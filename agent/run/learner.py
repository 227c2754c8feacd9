"""One online run: what arrives from robots is stored and learnt from, and newer policies are offered to them."""

from __future__ import annotations

import dataclasses
import logging
import math
import secrets
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from agent.calql.algorithm import Weights
from agent.config import Changes
from agent.data.episode_store import Store
from agent.mailbox.mailbox import Mailbox
from agent.progress import Progress
from agent.run.checkpoint import LATEST, Checkpoint, NotSaved, Saver
from agent.run.farewell import see_robots_off
from agent.run.health import Health
from agent.run.intake import Intake
from agent.run.link_report import LinkReport
from agent.run.log import RunLog
from agent.run.newest_episodes import NewestEpisodes
from agent.run.pacing import Pacing, is_finished
from agent.run.progress_report import ProgressReport
from agent.run.trainer import Trainer
from agent.run.update_report import UpdateReport
from agent.spec import Episode, UserError, plural

WAIT_S = 0.05

log = logging.getLogger(__name__)


class Learner:
    """One run: a trainer, a mailbox, and the counters that tie them together."""

    def __init__(self, trainer: Trainer, start: Checkpoint, folder: Path, resumed: bool) -> None:
        run_id = ((start.run if resumed else "") + secrets.token_hex(16))[:32]  # earlier runs had 8 digits
        self.trainer, self.start, self.folder = trainer, dataclasses.replace(start, run=run_id), folder
        self.config, self.online, self.replay = trainer.config, trainer.config.online, trainer.replay
        counters = start.counters if resumed else {}
        self.updates = counters.get("updates", 0)  # online ones
        self.version = counters.get("version", 1)  # of the weights that robots are offered
        sparse, actions = self.config.reward.sparse, trainer.agent.action_dim
        self.health = Health(self.config.calql, actions, lambda line: None, sparse)  # what was has been said
        self.newest_episodes = NewestEpisodes(trainer.agent, self.config.reward)
        self.store = Store(folder, self._use, trainer.drop, trainer.ranks.tell)
        if resumed:
            self.log = RunLog(folder, counters.get("time_s", 0))  # first: it makes sure that nobody else is at this run
        try:
            if resumed:
                self.store.read_back()
            self.mailbox = self._open_mailbox()
        except BaseException:
            if resumed:
                self.log.close()
            raise
        if not resumed:  # last: a start that fails leaves no folder
            try:
                self.log = RunLog(folder)
            except UserError:
                self.mailbox.close()
                raise
        self.progress = ProgressReport(self.online)
        self.mailbox.newest_episodes = self.newest_episodes.curves
        self.health.tell = self.warn
        self.intake = Intake(self.mailbox, self.store, self.log, self.config.learner.robot_gb, self.warn)
        self.pacing = Pacing(self.config, self.mailbox.pace)
        self.link_report = LinkReport(self.mailbox, self.log)
        self.update_report = UpdateReport(self.log, self.health, self.seen, self.updates)
        self.began_s = time.monotonic()
        self.saver = Saver(folder, self.online, self.env_steps, self.updates)
        self.mailbox.offer(self.version, trainer.agent.average.weights())

    def _open_mailbox(self) -> Mailbox:
        start, link, network = self.start, self.config.link, dataclasses.asdict(self.config.network)
        run = f"{self.folder.resolve().name}-{start.run[:8]}"
        return Mailbox(
            link.address, start.spec, network, run, self.store.steps, link.insecure, link.keys, start.env,
            link.other_env, start.run,
        )  # fmt: skip

    @property
    def episodes(self) -> int:
        return self.store.episodes

    @property
    def env_steps(self) -> int:
        """Of finished episodes; `seen` also counts those under way."""
        return self.store.env_steps

    @property
    def seen(self) -> int:
        return self.intake.seen

    @property
    def due(self) -> int:
        """Updates that should have been made by now; none before there is something to learn from."""
        return self.pacing.due(self.seen) if len(self.replay) else 0

    @property
    def finished(self) -> bool:
        return is_finished(self.online, self.env_steps, self.updates)

    @property
    def stage(self) -> str:
        return "warmup" if self.seen < self.online.warmup_steps else "online"

    def run(self, stop: Callable[[], bool]) -> None:
        """Until the env steps are spent or `stop()`: take in what arrived, update if an update is due, else wait."""
        self.save()  # from here on a crash leaves something to resume
        try:
            with Progress(self.online.env_steps, "fine-tune", "env steps") as progress:
                while not (self.finished or stop()):
                    self.take_in()
                    self.pacing.keep(self.seen, self.due - self.updates)
                    self.link_report.tell(self.seen, self.updates)
                    if self.updates < self.due:
                        self.update()
                    else:
                        self.mailbox.wait(WAIT_S)
                    progress.show(self.seen, note(self))
            if self.finished:
                see_robots_off(self.mailbox, self.take_in, self.began_s)
        finally:
            try:
                self.intake.finish(self.updates, self.version)
            finally:
                self.save()  # refuses, and keeps the one before, when learning has diverged

    def take_in(self) -> None:
        self.intake.take_in(self.updates, self.version)
        if self.progress.sampled(self.seen, self.updates):
            self.newest_episodes.ask_critics(self.updates)
            stage = "finished" if self.finished else self.stage
            self.mailbox.progress = self.progress.fields(stage, self.due, self.episodes)

    def update(self) -> None:
        """One update; then whatever comes after so many of them: new weights for robots, a record, a checkpoint."""
        weights, update_actor = self.pacing.weights(self.seen), self.updates % self.online.actor_every == 0
        self.pacing.before_update(weights, update_actor)
        self.update_report.add(self.trainer.update(weights, update_actor))
        self.updates += 1
        if self.updates % self.online.offer_every == 0:
            self.trainer.agent.check_alive()
            self.version += 1
            self.mailbox.offer(self.version, self.trainer.agent.average.weights())
        if self.updates % self.config.learner.log_every == 0:
            self._report(weights)
        if self.saver.is_due(self.env_steps):
            try:
                self.save()
            except NotSaved as error:  # the run is worth more than this checkpoint: the next one may fit
                log.error("%s", error)

    def checkpoint(self) -> Checkpoint:
        """The run as it is now. Raises UserError when learning has diverged."""
        agent, generators = self.trainer.agent.state_dict(), self.trainer.generators
        self.trainer.agent.check_alive()
        counters = {**self.start.counters, "updates": self.updates, "version": self.version}
        counters |= {"env_steps": self.env_steps, "time_s": math.ceil(self.log.time_s)}
        config = dataclasses.asdict(self.config)
        return dataclasses.replace(self.start, config=config, agent=agent, counters=counters, generators=generators)

    def save(self) -> None:
        self.saver.save(self.checkpoint())
        self.progress.saved()

    def close(self) -> None:
        self.store.close()
        self.mailbox.close()
        self.log.close()

    def _use(self, episode: Episode) -> None:
        """Learn from it. Raises UserError."""
        self.trainer.add(episode)
        self.newest_episodes.add(episode)
        self.health.episode(episode.succeeded)

    def warn(self, line: str) -> None:
        """To people, into the log, and onto the operator page."""
        self.log.warn(line, self.env_steps, self.updates)
        self.progress.warned(line, self.env_steps)

    def _report(self, weights: Weights) -> None:
        record = self.update_report.write(
            self.seen, self.updates, self.trainer.reward_range, stage=self.stage, version=self.version,
            cql_weight=weights.cql, bad_messages=sum(self.mailbox.counts.values()), quarantined=self.store.quarantined,
        )  # fmt: skip
        self.progress.recorded(record)


def note(learner: Learner) -> str:
    """Beside the progress bar."""
    robots = plural(len(learner.mailbox.robots), "robot")
    updates, episodes = plural(learner.updates, "update"), plural(learner.episodes, "episode")
    return f"{learner.stage}, {updates}, {episodes}, {robots}"


def introduce(learner: Learner, origin: str | Path) -> None:
    """Log what is going to happen. origin: the path of the checkpoint that it starts from."""
    where = str(learner.trainer.device) + (f" (x {count})" if (count := learner.trainer.ranks.count) > 1 else "")
    learner.log.say(
        f"fine-tuning {origin} on {where} for {plural(learner.online.env_steps, 'env step')}; "
        f"listening on {learner.mailbox.address}; "
        f"run folder {learner.folder} (tensorboard --logdir {learner.folder.parent})"
    )
    if line := learner.trainer.warning:
        learner.warn(line)


def report_changes(learner: Learner, changed: Changes) -> None:
    """Log what is not as it was when the run was stopped."""
    before, now = learner.start.section("link"), learner.config.link
    if before != now:
        flags = shlex.join(before.flags()) or "none"
        learner.log.say(f"the link's settings are not read from the checkpoint; its flags were: {flags}")
    learner.log.changes(changed, learner.env_steps, learner.updates)


def conclude(learner: Learner) -> None:
    """Report what there is now."""
    bad, latest, minutes = learner.store.quarantined, learner.folder / LATEST, (time.monotonic() - learner.began_s) / 60
    learner.log.result(
        f"{'finished' if learner.finished else 'stopped'}: {plural(learner.env_steps, 'env step')}, "
        f"{plural(learner.episodes, 'episode')}, {plural(learner.updates, 'update')} in {minutes:.1f} min; {latest}"
        + (f"; {plural(bad, 'episode')} in {learner.folder}/quarantine" if bad else "")
    )
