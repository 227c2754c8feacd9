"""Record demonstrations, one file an episode: OUT/episode_000000.hdf5, episode_000001.hdf5, ...

  python -m tools.collect --env sim --task Lift --device scripted --episodes 30 --out demos/lift

  python -m tools.collect --env sim --task Lift --device keyboard --horizon 300 --view terminal --out demos/by_hand

A folder that already has episodes is continued: --episodes more are added under the next free numbers, provided that
they come from the same environment with the same options. Episode k starts from env.reset(SEED + k), also after a
restart, so a collection done in two goes equals one done at once. Failed episodes are kept too.

Devices:  scripted     an expert program; moves only a simulated robot.
                       --noise 0.3 makes its actions noisy, --failure-rate 0.5 makes half of its episodes fail,
                       --retry-rate 0.5 lets it miss once in half of the others before it tries again
          keyboard     the terminal's keys, also over ssh
          gamepad      any that SDL knows
          spacemouse   3Dconnexion's, by cable, receiver or Bluetooth
          browser      a page for a laptop or phone (--listen)
          lerobot:<type>  a leader arm of LeRobot (--leader '{port: /dev/ttyACM1}')

Each prints its keys. A person's episode begins with the first motion, at a fixed rate (--hz; the environment's own).
Enter ends it and keeps the environment's success signal, y and n end it as a success or a failure and win over it,
Backspace discards it: the same scene comes again. --speed, --dead-band, --smoothing-s and --enable-key fit a device to
the hand; --view shows the cameras.

A file appears when its episode has ended, whole or not at all, before the next episode's first step. To stop, press
Ctrl-C (or q): what has been recorded stays, only the unfinished episode is lost. A second Ctrl-C stops without waiting
for the current step. What a person has driven is kept, truncated, when they did not ask for the end: kill, a terminal
that closes, an unplugged device. If the disk is full a person's episode is kept until there is room, or Ctrl-C gives it
up.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import cli
from agent.data.episode_file import SUFFIX, EpisodeFileError, read_episode
from agent.data.state_statistics import StateStatistics
from agent.env_record import EnvRecord
from agent.files import low_space, make_folder, try_lock
from agent.progress import Progress
from agent.spec import Episode, Observation, Spec, UserError, plural
from envs.base import action_meaning, state_names, while_closing
from envs.instructions import instruction
from robot_server.command import Command, Device, action_of, idle_keys, layout
from tools.common.rollout import Act, env_options, env_record, make_env, rollout
from tools.devices.scripted import Scripted
from tools.devices.table import DEVICES, LEROBOT, known, opened
from tools.recording.config import CollectConfig
from tools.recording.display import Display
from tools.recording.recorder import Recorder, rate
from tools.recording.writer import Writer

if TYPE_CHECKING:
    import gymnasium

log = logging.getLogger(__name__)

KINDS = ", ".join((*DEVICES, f"{LEROBOT}<type>"))
LEAST_FOR_STATES = 5  # episodes; in fewer a goal may well stay where it is


@contextlib.contextmanager
def recording_folder(folder: Path) -> Iterator[int]:
    """Make `folder` this process's own while it records, and yield the first free episode number.

    If it is new and nothing gets recorded, nothing is left of it.
    """
    try:
        made = make_folder(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(handle):
            raise UserError(f"{folder}: another tools.collect is recording into this folder")
        for left in folder.glob(f".episode_*{SUFFIX}.*.part"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        there = [*folder.iterdir(), *(folder / "originals").glob("*")]  # tools.edit may bring those back
        names = (re.fullmatch(rf"episode_(\d+){re.escape(SUFFIX)}", path.name) for path in there)
        yield max((int(name[1]) for name in names if name), default=-1) + 1
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # not empty
            for place in made:
                place.rmdir()


def check_continues(folder: Path, spec: Spec, env: EnvRecord) -> None:
    """Raise UserError, naming the differences, unless what is in `folder` was recorded in `env` and has `spec`."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            episode = read_episode(path)
        except EpisodeFileError:
            continue  # tools.inspect is there to complain; a damaged file must not stop the robot's day
        differences = episode.spec.differences(spec)
        options = EnvRecord.of_episode(episode.meta).differences(env)
        differences += [
            f"env option {key}: {values}" if key != "env" else f"env: {values}" for key, values in options.items()
        ]
        if differences:
            raise UserError(f"{path}: cannot be continued, it has {'; '.join(differences)}")
        return


def record(
    env: gymnasium.Env, device: Scripted, seed: int, stop: cli.Stop, ready: Callable[[], None] = lambda: None
) -> Episode | None:
    """One episode of the expert; None if it was stopped before its end. `ready()` is called after the reset."""

    def begin(seed: int) -> Act:
        ready()
        device.reset(seed)
        return device.act

    transitions = []
    for transition in rollout(env, begin, seed):
        transitions.append(transition)
        if stop() and not transition.last:
            return None
    return Episode.from_transitions(transitions)


@dataclasses.dataclass
class Session:
    """What one call of this tool records: where, and what it has so far."""

    out: Path
    first: int  # number of its first episode
    asked: int
    meta: dict[str, Any]
    writer: Writer
    states: StateStatistics
    kept: list[Episode] = dataclasses.field(default_factory=list)  # without their images, which would fill the memory

    @property
    def seed(self) -> int:
        return int(self.meta["seed"]) + self.first + len(self.kept)

    @property
    def done(self) -> bool:
        return len(self.kept) >= self.asked

    def keep(self, episode: Episode) -> None:
        """Begin to write it; Writer.settle says when it is on the disk."""
        episode.check(episode.spec)  # what cannot be read back is not recorded
        episode.meta = {**episode.meta, **self.meta, "seed": self.seed}
        path = self.out / f"episode_{self.first + len(self.kept):06d}{SUFFIX}"
        self.writer.put(path, episode)
        self.states.add(episode.observations)
        self.kept.append(dataclasses.replace(episode, observations={}))


def by_program(env: gymnasium.Env, device: Scripted, session: Session, stop: cli.Stop) -> None:
    with Progress(session.asked, "collect", "episodes") as progress:
        while not session.done and not stop():
            episode = record(env, device, session.seed, stop, session.writer.settle)
            if episode is None:
                return
            session.keep(episode)
            progress.show(len(session.kept), f"{sum(e.succeeded for e in session.kept)}/{len(session.kept)} succeeded")
        session.writer.settle()


def by_hand(
    env: gymnasium.Env, device: Device, display: Display, session: Session, config: CollectConfig, stop: cli.Stop
) -> None:
    def show(observation: Observation, status: dict[str, Any]) -> None:
        status = {**status, "kept": len(session.kept), "asked": session.asked}
        display.show(observation, status)
        device.show(observation, status)

    said = 0

    def settle() -> None:
        """Report each episode that is on the disk by now."""
        nonlocal said
        session.writer.settle(stop, display.say)
        for number, episode in enumerate(session.kept[said:], session.first + said):
            display.say(
                f"episode {number}: {plural(len(episode), 'step')}, {'success' if episode.succeeded else 'failure'}"
            )
        said = len(session.kept)

    recorder = Recorder(env, device, config, show, stop, lambda: stop.number in (signal.SIGTERM, signal.SIGHUP))
    with contextlib.closing(display):
        while not session.done and not stop():
            take = recorder.record(session.seed, settle)
            if take.episode is not None:
                session.keep(take.episode)
                if take.error and not stop():  # a terminal that closes takes its keys with it
                    settle()
                    number = session.first + len(session.kept) - 1
                    raise UserError(f"episode {number} ended there; the steps before are saved: {take.error}")
            elif take.ending != "stop":
                what = "discarded" if take.ending == "discard" else "no steps"
                display.say(f"episode {session.first + len(session.kept)}: {what}, once more")
            if take.ending == "stop":
                break
        settle()


def collect(name: str, options: dict[str, Any], device_name: str, config: CollectConfig, out: Path) -> int:
    """Add `config.episodes` episodes to the folder `out`, and print a summary. Returns the exit code."""
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(contextlib.closing(make_env(name, options)))
        spec = Spec.from_spaces(env.observation_space, env.action_space)
        display = Display(config.view)
        device, no_use = opened(device_name, env, config, out), ""
        if not isinstance(device, Scripted):
            stack.enter_context(contextlib.closing(device))
            stack.callback(while_closing, env, lambda: bool(device.hold_reason))
            if device_name.startswith(LEROBOT):  # refused now, if at all
                action_of(Command(place={}), env)
            else:
                no_use = idle_keys(layout(env))
        if line := low_space(out):
            log.warning("%s", line)
        first = stack.enter_context(recording_folder(out))  # after what may be refused: it makes the folder
        origin = env_record(name, options)
        if actions := action_meaning(env):
            pace = {} if isinstance(device, Scripted) else {"control_hz": rate(env, config)}
            origin = dataclasses.replace(origin, actions={**pace, **actions})
        check_continues(out, spec, origin)
        meta = {"env": origin.to_dict(), "seed": config.seed, "policy": device_name, "robot": "collect"}
        if names := state_names(env):
            meta["state_names"] = names
        if text := instruction(env):
            meta["instruction"] = text
        states = StateStatistics(spec.states)
        session = Session(out, first, config.episodes, meta, stack.enter_context(Writer()), states)
        stop = stack.enter_context(cli.Stop())
        start_s = time.monotonic()
        if isinstance(device, Scripted):
            by_program(env, device, session, stop)
        else:
            print("\n".join(filter(None, [device.keys, no_use])), file=sys.stderr)
            by_hand(env, device, display, session, config, stop)
    print(summary(session.kept, config.episodes, time.monotonic() - start_s, out))
    if len(session.kept) >= LEAST_FOR_STATES and (line := states.report()):
        print(line, file=sys.stderr)
    return 0 if session.done else stop.exit_code


def summary(kept: list[Episode], asked: int, took_s: float, out: Path) -> str:
    if not kept:
        return f"stopped: no episode recorded in {out}"
    steps = sum(map(len, kept))
    done = "recorded" if len(kept) == asked else "stopped: recorded"
    return (
        f"{done} {len(kept)} of {plural(asked, 'episode')} in {out}: "
        f"success rate {sum(e.succeeded for e in kept) / len(kept):.2f}, mean length {steps / len(kept):.1f} steps, "
        f"{steps / took_s:.1f} steps/s"
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    device = parser.add_argument("--device", metavar="NAME", help="what moves the robot: " + KINDS)
    cli.suggest(device, (*DEVICES, LEROBOT))
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the episodes go")


OFTEN = ("env", "device", "episodes", "out", "view")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(
        argv, __doc__, ["collect"], add_flags, env_options, prog="python -m tools.collect", often=OFTEN
    )
    config, device, out = arguments.section("collect"), arguments.flags.device, arguments.flags.out
    if missing := ["--device NAME"] * (not device) + ["--out FOLDER"] * (not out):
        raise UserError(f"missing: {', '.join(missing)}")
    if not known(device):
        raise UserError(f"--device {device}: the devices are {KINDS}{cli.nearest(device, DEVICES)}")
    if config.episodes < 1:
        raise UserError(f"--episodes {config.episodes}: at least one")
    if config.seed < 0:
        raise UserError(f"--seed {config.seed}: must be >= 0")
    name, options = arguments.env()
    return collect(name, options, device, config, out)


if __name__ == "__main__":
    cli.run(main)
