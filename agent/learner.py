"""Fine-tune online: train on the transitions that robot servers stream here, and send them newer policies.

  python -m agent.learner --ckpt offline.pt                 # then, elsewhere: python -m robot_server --env sim
  python -m agent.learner --resume runs/lift                # go on with a run that was stopped
  torchrun --nproc-per-node 2 -m agent.learner --ckpt offline.pt      # GPUs share each batch; write --learner.run there

Listens on tcp://127.0.0.1:5555 (--address). The link's settings (--address, --keys, --insecure, --other-env) come from
flags and --config only, never from a checkpoint: give them again with --resume.

Everything of a run is in its folder (runs/<time>/, or --run): each episode as a file, latest.pt and the checkpoints
before it, log.jsonl, TensorBoard files. Ctrl-C or SIGTERM stops it after the update in progress, with a checkpoint
written; robot servers go on with the policy they have. It ends by itself after --env-steps.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
import logging
import math
import secrets
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import cli
from agent.calql.algorithm import Weights
from agent.config import NETWORKS, SECTIONS, SPENT, LinkConfig, RunConfig, changes, said
from agent.data.episode_store import Store
from agent.mailbox.mailbox import Mailbox
from agent.progress import Progress
from agent.run import checkpoint
from agent.run.checkpoint import LATEST, OLDER, Checkpoint, NotSaved
from agent.run.device import run_folder
from agent.run.distributed import Ranks
from agent.run.health import Health
from agent.run.intake import Intake
from agent.run.link_report import LinkReport
from agent.run.log import RunLog
from agent.run.pacing import Pacing
from agent.run.trainer import Trainer
from agent.run.update_report import UpdateReport
from agent.spec import Episode, UserError, plural

WAIT_S = 0.05
LEAVE_S = 15.0  # how long robots may take to leave when the run is over
COME_S = 6.0  # how long robots of an earlier life of the run may take to be back

log = logging.getLogger(__name__)


class Learner:
    """One run: a trainer, a mailbox, and the counters that tie them together."""

    def __init__(self, trainer: Trainer, start: Checkpoint, folder: Path, resumed: bool) -> None:
        self.trainer, self.start, self.folder = trainer, start, folder
        self.config, self.online, self.replay = trainer.config, trainer.config.online, trainer.replay
        counters = start.counters if resumed else {}
        self.updates = counters.get("updates", 0)  # online ones
        self.version = counters.get("version", 1)  # of the weights that robots are offered
        self.run_id = ((start.run if resumed else "") + secrets.token_hex(16))[:32]  # earlier runs had 8 digits
        sparse, actions = self.config.reward.sparse, start.spec.action_dim
        self.health = Health(self.config.calql, actions, lambda line: None, sparse)  # what was has been said
        self.store = Store(folder, self._use, trainer.drop, trainer.ranks.tell)
        if resumed:
            self.log = RunLog(folder, counters.get("time_s", 0))  # first: it makes sure that nobody else is at this run
            self.store.read_back()
        self.mailbox = self._open_mailbox()
        if not resumed:  # last: a start that fails leaves no folder
            try:
                self.log = RunLog(folder)
            except UserError:
                self.mailbox.close()
                raise
        self.health.tell = self._warn
        self.intake = Intake(self.mailbox, self.store, self.log, self.config.learner.robot_gb, self._warn)
        self.pacing = Pacing(self.config, self.mailbox.pace)
        self.link_report = LinkReport(self.mailbox, self.log)
        self.update_report = UpdateReport(self.log, self.health, self.seen, self.updates)
        self._began_s = time.monotonic()
        self._updates_before = self.updates  # of earlier lives
        self._saved_at = self.env_steps
        self.mailbox.offer(self.version, trainer.agent.average.weights())

    def _open_mailbox(self) -> Mailbox:
        start, link = self.start, self.config.link
        return Mailbox(
            link.address,
            start.spec,
            dataclasses.asdict(self.config.network),
            f"{self.folder.resolve().name}-{self.run_id[:8]}",
            self.store.steps,
            link.insecure,
            link.keys,
            start.env,
            link.other_env,
            self.run_id,
        )

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
        return self.env_steps >= self.online.env_steps and self.updates >= self.due

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
                    progress.show(self.seen, self._note())
            if self.finished:
                self.see_robots_off()
        finally:
            self.save()  # refuses, and keeps the one before, when learning has diverged

    def take_in(self) -> None:
        self.intake.take_in(self.updates, self.version)

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
        if self.env_steps // self.online.checkpoint_every > self._saved_at // self.online.checkpoint_every:
            try:
                self.save()
            except NotSaved as error:  # the run is worth more than this checkpoint: the next one may fit
                log.error("%s", error)

    def see_robots_off(self) -> None:
        """The run is over: robots end their episode, deliver it and leave; nothing of theirs is lost.

        All that it knows are told, those that come (back) meanwhile too.
        """
        deadline = time.monotonic() + LEAVE_S

        def waits() -> bool:
            recent = any(robot.recent for robot in self.mailbox.known)
            return recent or (not self.mailbox.met and time.monotonic() < self._began_s + COME_S)

        self.take_in()  # robots that spoke during the last update are known, and those that have left are not
        while waits() and time.monotonic() < deadline:
            self.mailbox.done()
            self.mailbox.wait(WAIT_S)
            self.take_in()

    def checkpoint(self) -> Checkpoint:
        """The run as it is now. Raises UserError when learning has diverged."""
        counters = {**self.start.counters, "updates": self.updates, "version": self.version}
        counters |= {"time_s": math.ceil(self.log.time_s), "env_steps": self.env_steps}
        agent, generators = self.trainer.agent.state_dict(), self.trainer.generators
        self.trainer.agent.check_alive()
        config = dataclasses.asdict(self.config)
        return Checkpoint(self.start.spec, self.start.env, config, agent, counters, generators, self.run_id)

    def save(self) -> None:
        """To latest.pt; and to checkpoints/, by the env steps on disk, once the policy has learnt from them."""
        state = self.checkpoint()
        self._saved_at = self.env_steps
        state.save(self.folder / LATEST)
        if self.online.keep and self.updates > self._updates_before:
            checkpoint.keep(self.folder, f"{self.env_steps:08d}", self.online.keep)

    def close(self) -> None:
        self.mailbox.close()
        self.log.close()

    def _use(self, episode: Episode) -> None:
        """Learn from it. Raises UserError."""
        self.trainer.add(episode)
        self.health.episode(episode.succeeded)

    def _warn(self, line: str) -> None:
        self.log.warn(line, self.env_steps, self.updates)

    def _report(self, weights: Weights) -> None:
        self.update_report.write(
            self.seen,
            self.updates,
            self.trainer.reward_range,
            stage=self.stage,
            cql_weight=weights.cql,
            version=self.version,
            bad_messages=sum(self.mailbox.counts.values()),
            quarantined=self.store.quarantined,
        )

    def _note(self) -> str:
        """Beside the progress bar."""
        counts = {"update": self.updates, "episode": self.episodes, "robot": len(self.mailbox.robots)}
        return ", ".join([self.stage, *(plural(count, what) for what, count in counts.items())])


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__ or "", SECTIONS, _flags, prog="python -m agent.learner")
    flags = arguments.flags
    if bool(flags.ckpt) == bool(flags.resume):
        raise UserError("give either --ckpt FILE (a new run) or --resume FOLDER (a run that was stopped)")
    start = checkpoint.load(flags.ckpt) if flags.ckpt else checkpoint.load_newest(flags.resume)
    base = {name: dict(values) for name, values in start.config.items() if name != "link"}
    if not flags.resume:
        base.get("learner", {}).pop("run", None)
    config = RunConfig(**{name: arguments.section(name, base.get(name)) for name in SECTIONS})
    config.check()
    changed = changes(start.run_config(), config, NETWORKS | SPENT | {"learner.run"} if flags.resume else NETWORKS)
    folder = Path(flags.resume) if flags.resume else run_folder(config.learner, "run")
    if not flags.resume and has_data(folder):
        whole = (folder / LATEST).exists() or (folder / OLDER).exists()
        again = ["agent.learner", "--resume", folder] if whole else None
        raise checkpoint.taken(folder, again, ["agent.learner", "--ckpt", flags.ckpt, "--run"])
    with contextlib.closing(Ranks()) as ranks:
        trainer = Trainer(start, config, folder, ranks)
        if flags.resume:
            trainer.restore(start.generators)
        if not ranks.leads:
            trainer.follow()
            return 0
        learner = Learner(trainer, start, folder, resumed=bool(flags.resume))
        if flags.resume and (line := link_line(start.section("link"), config.link)):
            learner.log.say(line)
        return lead(learner, flags.ckpt or flags.resume, changed if flags.resume else {})


def has_data(folder: Path) -> bool:
    """Whether a run has got as far as leaving something in `folder`; a start that failed has not."""
    places = [folder / name for name in (OLDER, "episodes")]
    records = folder / "log.jsonl"
    return (
        (folder / LATEST).exists()
        or any(place.is_dir() and any(place.iterdir()) for place in places)
        or (records.exists() and records.stat().st_size > 0)
    )


def link_flags(link: LinkConfig) -> list[str]:
    """The flags that make these link settings out of the defaults."""
    flags: list[str] = []
    for field in dataclasses.fields(link):
        value = getattr(link, field.name)
        if value != field.default:
            flags += [f"--{field.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return flags


def link_line(before: LinkConfig, now: LinkConfig) -> str:
    """What to type for the link that the run had; empty when it has that. A checkpoint never opens the network itself:
    its link section is shown here, and used nowhere.
    """
    if before == now:
        return ""
    flags = shlex.join(link_flags(before)) or "none"
    return f"the link's settings are not read from the checkpoint; its flags were: {flags}"


def lead(learner: Learner, origin: str, changed: dict[str, tuple[Any, Any]]) -> int:
    """Run it, log what it does, and return its exit code.

    origin: where it starts from. changed: config.changes since it was stopped.
    """
    ranks, online = learner.trainer.ranks, learner.online
    where = str(learner.trainer.device) + (f" (x {ranks.count})" if ranks.count > 1 else "")
    learner.log.say(
        f"fine-tuning {origin} on {where} for {plural(online.env_steps, 'env step')}; "
        f"listening on {learner.mailbox.address}; run folder {learner.folder}"
    )
    for line in said(changed):
        learner.log.say(line)
    if changed:
        learner.log.write("config", learner.env_steps, learner.updates, changed=changed)
    began = time.monotonic()
    try:
        with cli.Stop() as stop:
            learner.run(stop)
    finally:
        ranks.order(None)
        learner.close()
    done = "finished" if learner.finished else "stopped"
    learner.log.result(
        f"{done}: {plural(learner.env_steps, 'env step')}, {plural(learner.episodes, 'episode')}, "
        f"{plural(learner.updates, 'update')} in {(time.monotonic() - began) / 60:.1f} min; {learner.folder / LATEST}"
        + (f"; {plural(bad, 'episode')} in {learner.folder}/quarantine" if (bad := learner.store.quarantined) else "")
    )
    if learner.finished:
        return 0
    link = link_flags(learner.config.link)
    learner.log.result(f"to resume: {checkpoint.command('agent.learner', '--resume', learner.folder, *link)}")
    return stop.exit_code


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint of agent.pretrain to start from")
    parser.add_argument("--resume", metavar="FOLDER", help="run folder to go on with")


if __name__ == "__main__":
    cli.run(main)
