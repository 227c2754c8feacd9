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

from torch import Tensor

from agent import cli
from agent.calql.algorithm import Weights
from agent.config import NETWORKS, SECTIONS, SPENT, CalQLConfig, LinkConfig, RunConfig, changes, said
from agent.data.episode_store import Store
from agent.mailbox.arrivals import Arrivals
from agent.mailbox.mailbox import Mailbox
from agent.progress import Progress
from agent.run import checkpoint
from agent.run.checkpoint import LATEST, OLDER, Checkpoint, NotSaved
from agent.run.device import run_folder
from agent.run.distributed import Ranks
from agent.run.health import Health
from agent.run.link_report import LinkReport
from agent.run.log import RunLog
from agent.run.trainer import Trainer
from agent.spec import Episode, UserError, plural
from agent.wire.messages import episode_key, episode_name

WAIT_S = 0.05
HOLD_S = 5.0  # lease of a robot that is held; longer than any update, so that it is renewed in time
COMPILE_S = 60.0  # the same while an update of a new kind is compiled
LEAVE_S = 15.0  # how long robots may take to leave when the run is over
COME_S = 6.0  # how long robots of an earlier life of the run may take to be back
TAKE_S = 0.1  # then an update is made, whatever else has arrived
RETRY_S = 5.0  # between two attempts to write episodes to a disk that is full

log = logging.getLogger(__name__)


def updates_due(env_steps: int, warmup_steps: int, utd: float) -> int:
    """How many updates a run should have made after so many env steps."""
    return max(0, math.floor((env_steps - warmup_steps) * utd))


def cql_weight(env_steps: int, config: CalQLConfig) -> float:
    """The conservative weight online: from its offline to its online value over cql_decay_steps."""
    share = min(1.0, env_steps / config.cql_decay_steps) if config.cql_decay_steps else 1.0
    return (1 - share) * config.cql_weight + share * config.cql_weight_online


class Learner:
    """One run: agent, both replays, the mailbox, and the counters that tie them together."""

    def __init__(self, trainer: Trainer, start: Checkpoint, config: RunConfig, folder: Path, resumed: bool) -> None:
        self.trainer, self.config, self.folder, self.start = trainer, config, folder, start
        self.agent, self.replay = trainer.agent, trainer.replay
        self.online, self.calql, link = config.online, config.calql, config.link
        counters = start.counters if resumed else {}
        self.updates = counters.get("updates", 0)  # online ones
        self.version = counters.get("version", 1)
        sparse = config.reward.sparse
        self.health = Health(self.calql, self.agent.action_dim, lambda line: None, sparse)  # what was has been said
        self.store = Store(folder, self._use, trainer.drop, trainer.ranks.tell)
        if resumed:
            self.log = RunLog(folder, counters.get("time_s", 0))  # first: it makes sure that nobody else is at this run
            self.store.read_back()
        self.health.tell = self._warn
        network = dataclasses.asdict(config.network)
        self.run_id = ((start.run if resumed else "") + secrets.token_hex(16))[:32]  # earlier runs had 8 digits
        run = f"{folder.resolve().name}-{self.run_id[:8]}"
        self.mailbox = Mailbox(
            link.address,
            start.spec,
            network,
            run,
            self.store.steps,
            link.insecure,
            link.keys,
            start.env,
            link.other_env,
            self.run_id,
        )
        if not resumed:  # last: a start that fails leaves no folder
            try:
                self.log = RunLog(folder)
            except UserError:
                self.mailbox.close()
                raise
        for robot in self.store.bytes:
            self._mind_share(robot)
        self.mailbox.offer(self.version, self.agent.average.weights())
        self.report = LinkReport(self.mailbox, self.log)
        self._began_s = time.monotonic()
        self._arrived = Arrivals()
        self._retry_s = 0.0  # time.monotonic() before which the disk is left alone
        self._before = self.env_steps  # steps of earlier lives of this run, less those quarantined in this one
        self._updates_before = self.updates  # of earlier lives
        self._saved_at = self.env_steps
        self._held = False
        self._compiled: set[tuple[bool, bool]] = set()  # kinds of update made so far
        self._rates = (self.log.time_s, self.updates, self.seen)  # at the last record of an update
        self._metrics: dict[str, Tensor] = {}  # the newest of each since the last record

    @property
    def episodes(self) -> int:
        return self.store.episodes

    @property
    def env_steps(self) -> int:
        """Of finished episodes; `seen` also counts those under way."""
        return self.store.env_steps

    @property
    def seen(self) -> int:
        """Env steps received, those of unfinished episodes included."""
        return self._before + self.mailbox.steps

    @property
    def due(self) -> int:
        """Updates that should have been made by now; none before there is something to learn from."""
        steps = min(self.seen, self.online.env_steps)  # what robots do beyond the run's end asks for no more updates
        return updates_due(steps, self.online.warmup_steps, self.online.utd) if len(self.replay) else 0

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
                    self.keep_pace()
                    self.report.tell(self.seen, self.updates)
                    if self.updates < self.due:
                        self.update()
                    else:
                        self.mailbox.wait(WAIT_S)
                    robots = plural(len(self.mailbox.robots), "robot")
                    note = (
                        f"{self.stage}, {plural(self.updates, 'update')}, {plural(self.episodes, 'episode')}, {robots}"
                    )
                    progress.show(self.seen, note)
            if self.finished:
                self.see_robots_off()
        finally:
            self.save()  # refuses, and keeps the one before, when learning has diverged

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

    def take_in(self) -> None:
        """What has arrived, robots in turn, for TAKE_S; the rest waits here, and with its robots, for the next call.

        So do episodes that the disk has no place for, until it has.
        """
        self._arrived.add(self.mailbox.drain())
        end_s = time.monotonic() + TAKE_S
        while self._arrived and self._retry_s <= time.monotonic() < end_s:
            try:
                robot = self._arrived.next.meta["robot"]
                self.take(self._arrived.next)
            except OSError as error:
                self._retry_s = time.monotonic() + RETRY_S
                log.error(
                    "%s: cannot write: %s; waiting: %s",
                    self.folder,
                    error.strerror,
                    plural(len(self._arrived), "episode"),
                )
            else:
                self._arrived.pop()
                self._mind_share(robot)

    def _mind_share(self, robot: str) -> None:
        """Take no more episodes of `robot` when it has had its share of the disk."""
        most = self.config.learner.robot_gb
        if robot not in self.mailbox.over_share and self.store.bytes[robot] > most * 1e9:
            self.mailbox.over_share.add(robot)
            self._warn(f"robot '{robot}' has filled its {most:g} GB (learner.robot_gb): its next episodes stay with it")

    def take(self, episode: Episode) -> None:
        """A finished episode: to disk, into the replay, acknowledged, logged, in this order."""
        shorter, used = self.store.stored(episode_key(episode.meta)), self.env_steps
        taken = self.store.take(episode)
        self.mailbox.acknowledge(episode)
        counted = max(0, len(episode) - shorter)  # by the mailbox, for this version
        self._before += self.env_steps - used - counted
        if shorter:
            name = episode_name(episode.meta)
            self.log.say(f"episode {name}: its {plural(len(episode), 'step')} replace the {shorter} that came first")
        if not taken:
            return
        self.log.write(
            "replaced" if shorter else "episode",
            self.env_steps,
            self.updates,
            robot=episode.meta["robot"],
            number=episode.meta["number"],
            success=int(episode.succeeded),
            length=len(episode),
            interventions=int(episode.interventions.sum()),
            policy_version=int(episode.policy_versions[-1]),
            staleness=self.version - int(episode.policy_versions[-1]),
            observation_age_s=float(episode.observation_ages_s.max()),
            action_latency_s=float(episode.action_latencies_s.max()),
            **{"return": episode.episode_return},
        )

    def _use(self, episode: Episode) -> None:
        """Learn from it. Raises UserError."""
        self.trainer.add(episode)
        self.health.episode(episode.succeeded)

    def _warn(self, line: str) -> None:
        self.log.warn(line, self.env_steps, self.updates)

    def update(self) -> None:
        learning_steps = max(0, self.seen - self.online.warmup_steps)
        weights = Weights(cql_weight(learning_steps, self.calql), self.calql.bc_weight_online)
        update_actor = self.updates % self.online.actor_every == 0
        kind = (weights.conservative, update_actor)
        if self.config.learner.mode != "eager" and kind not in self._compiled:
            self.mailbox.pace(COMPILE_S)  # compiling takes long, and nothing is said to robots meanwhile
            self._held = True
            self._compiled.add(kind)
        self._metrics |= self.trainer.update(weights, update_actor)
        self.updates += 1
        if self.updates % self.online.offer_every == 0:
            self.agent.check_alive()
            self.version += 1
            self.mailbox.offer(self.version, self.agent.average.weights())
        if self.updates % self.config.learner.log_every == 0:
            self._log_update(self._metrics, weights)
            self._metrics = {}
        if self.env_steps // self.online.checkpoint_every > self._saved_at // self.online.checkpoint_every:
            try:
                self.save()
            except NotSaved as error:  # the run is worth more than this checkpoint: the next one may fit
                log.error("%s", error)

    def _log_update(self, metrics: dict[str, Tensor], weights: Weights) -> None:
        now, steps = self.log.time_s, self.seen
        last_time, last_updates, last_steps = self._rates
        self._rates = (now, self.updates, steps)
        elapsed = max(now - last_time, 1e-9)
        record = self.log.write(
            "update",
            steps,
            self.updates,
            stage=self.stage,
            cql_weight=weights.cql,
            updates_per_s=(self.updates - last_updates) / elapsed,
            env_steps_per_s=(steps - last_steps) / elapsed,
            version=self.version,
            bad_messages=sum(self.mailbox.counts.values()),
            quarantined=self.store.quarantined,
            **metrics,
        )
        self.health.update(record, self.trainer.reward_range)

    def keep_pace(self) -> None:
        """In simulation, hold robots that have run too far ahead of the updates due (a real robot ignores it)."""
        limit, left = self.online.max_lead_steps, self.due - self.updates
        ahead = left / self.online.utd if self.online.utd > 0 else 0
        spent = left > 0 and self.seen >= self.online.env_steps
        if limit and (ahead > limit or spent):
            self.mailbox.pace(HOLD_S)
            self._held = True
        elif self._held:
            self.mailbox.pace(0.0)
            self._held = False

    def save(self) -> None:
        """To latest.pt; and to checkpoints/, by the env steps on disk, once the policy has learnt from them."""
        config = dataclasses.asdict(self.config)
        counters = dict(self.start.counters)
        counters |= {"updates": self.updates, "version": self.version, "time_s": math.ceil(self.log.time_s)}
        counters |= {"env_steps": self.env_steps}
        agent, generators = self.agent.state_dict(), self.trainer.generators
        self.agent.check_alive()
        state = Checkpoint(self.start.spec, self.start.env, config, agent, counters, generators, self.run_id)
        self._saved_at = self.env_steps
        state.save(self.folder / LATEST)
        if self.online.keep and self.updates > self._updates_before:
            checkpoint.keep(self.folder, f"{self.env_steps:08d}", self.online.keep)

    def close(self) -> None:
        self.mailbox.close()
        self.log.close()


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
    config = dataclasses.replace(config, network=config.network.from_checkpoint())
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
        learner = Learner(trainer, start, config, folder, resumed=bool(flags.resume))
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
    learner.log.say(
        f"{done}: {plural(learner.env_steps, 'env step')}, {plural(learner.episodes, 'episode')}, "
        f"{plural(learner.updates, 'update')} in {(time.monotonic() - began) / 60:.1f} min; {learner.folder / LATEST}"
        + (f"; {plural(bad, 'episode')} in {learner.folder}/quarantine" if (bad := learner.store.quarantined) else "")
    )
    if learner.finished:
        return 0
    link = link_flags(learner.config.link)
    learner.log.say(f"to resume: {checkpoint.command('agent.learner', '--resume', learner.folder, *link)}")
    return stop.exit_code


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint of agent.pretrain to start from")
    parser.add_argument("--resume", metavar="FOLDER", help="run folder to go on with")


if __name__ == "__main__":
    cli.run(main)
