"""The proof that the link loses nothing: both programs are killed, cut off and out of disk at random, and then counted.

  python -m tools.stress.faults             # 200 kills, 20 partitions, 12 second robots, a full disk: half an hour
  python -m tools.stress.faults --kills 10 --partitions 2 --longest-s 4 --robots 1

The real `agent.learner` and `robot_server`s, tiny networks, the fake environment. kill -9 hits either side, sometimes
both, while it starts, works or writes; each is started again at once. Between each robot server and the learner is a
proxy that drops or stalls every connection for a while; while a robot is cut off so, a second one takes its name, works
and leaves before or after the first one is back; and the run's folder is a small tmpfs that gets full (as root
only; otherwise this part is skipped, and said so). In the end all is stopped gently, the spools are delivered, and the
environment's own log of every step is held against the learner's episode files, bit for bit.

Exit code 1 when a step of an episode that ended is lost, twice or changed, or a program died of itself.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import envs
from agent import cli
from agent.calql.algorithm import CalQL
from agent.config import CalQLConfig, NetworkConfig
from agent.data.episode_file import SUFFIX, read_episode
from agent.env_record import EnvRecord
from agent.run.checkpoint import LATEST, Checkpoint, load
from agent.spec import Spec, UserError
from tools.common.process import free_port
from tools.common.report import Report, parser
from tools.stress.ledger import Tally, compare
from tools.stress.namesakes import Namesakes
from tools.stress.processes import ENV, TIMEOUT_S, LearnerSide, RobotSide, Side

NETWORK = NetworkConfig(
    channels=[4], strides=[2], features=8, state_features=8, actor_hidden=[8], critic_hidden=[8], critics=2
)
BOTH = 0.15  # share of kills that hit the other side too
DISK_BYTES = 256 << 20
EPISODE_BYTES = 24 << 10  # a full disk has less left than a file of an episode needs


class Turns:
    """Things that come and go: after a random pause one begins, and ends after a random time."""

    def __init__(self, count: int, pause_s: float, longest_s: float, rng: random.Random) -> None:
        self.left, self.pause_s, self.longest_s, self.rng = count, pause_s, longest_s, rng
        self.on = False
        self.total_s = 0.0
        self._change_s = time.monotonic() + rng.uniform(0, pause_s)

    def change(self) -> bool:
        """Whether it has just begun or ended: see `on`."""
        now = time.monotonic()
        if now < self._change_s or not (self.left or self.on):
            return False
        self.on = not self.on
        self.left -= self.on
        lasts_s = (
            self.rng.uniform(self.longest_s / 20, self.longest_s) if self.on else self.rng.uniform(0, self.pause_s)
        )
        self.total_s += lasts_s * self.on
        self._change_s = now + lasts_s
        return True

    @property
    def over(self) -> bool:
        return not (self.left or self.on)


class Disk:
    """A tmpfs at `folder`, which can be made full. reason: why there is none, if so."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.ballast = folder, folder / "ballast"
        try:
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.reason = done.stderr.partition("\n")[0] or "mount failed" if done.returncode else ""
        except OSError as error:
            self.reason = str(error)

    def fill(self, spare_bytes: int) -> None:
        with open(self.ballast, "wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass
            file.truncate(max(0, file.tell() - spare_bytes))

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def close(self) -> None:
        if not self.reason:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


def first_checkpoint(path: Path) -> None:
    env = envs.make("fake", **ENV)
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    env.close()
    config = CalQLConfig(cql_actions=2)
    sections = {"network": dataclasses.asdict(NETWORK), "calql": dataclasses.asdict(config)}
    state = CalQL(spec, NETWORK, config, torch.device("cpu"), 0).state_dict()
    Checkpoint(spec, EnvRecord("fake", ENV), sections, state).save(path)


def harm(
    learner: LearnerSide,
    robots: list[RobotSide],
    partitions: Turns,
    fills: Turns,
    disk: Disk,
    namesakes: Namesakes,
) -> None:
    """Until every kill, partition, full disk and second robot has been."""
    rng = partitions.rng
    cut = robots[0]
    sides: list[Side] = [learner, *robots]
    while any(side.left for side in sides) or not (partitions.over and fills.over and namesakes.over):
        if partitions.change():
            others = [robot for robot in robots if robot is not namesakes.first]
            cut = rng.choice(others or robots) if partitions.on else cut
            cut.proxy.become(rng.choice(("drop", "stall")) if partitions.on else "pass")
        namesakes.turn([robot for robot in robots if robot.proxy.mode == "pass"])
        if fills.change():
            disk.fill(rng.randrange(EPISODE_BYTES)) if fills.on else disk.free()
        spared = learner if fills.on and fills.left % 2 == 0 else None  # a dead one cannot be resumed on a full disk
        for side in sides:
            side.watch()
            if side.left and side is not spared and side.alive and side.ripe():
                other = rng.choice(robots) if side is learner else learner
                both = other.left and other is not spared and other.alive and rng.random() < BOTH
                hit = [side, other] if both else [side]
                for one in hit:
                    one.process.kill()  # at once: only then wait
                for one in hit:
                    one.kill()
                for one in hit:
                    one.start()
        time.sleep(0.0005 if any(side.watches_files for side in sides) else 0.02)


def deliver(learner: LearnerSide, robots: list[RobotSide]) -> None:
    """Stop the robot servers, start each for one more episode until nothing is left in its spool, stop the learner."""
    deadline_s = time.monotonic() + 3 * TIMEOUT_S
    working = [robot for robot in robots if robot.alive]
    for robot in robots:
        robot.episodes = 1
    for robot in working:
        robot.stop()
    for robot in working:
        robot.finish()
    waiting = list(robots)  # all: only a next boot of a robot server that was killed ends its half episode
    while waiting:
        turn = list({robot.robot: robot for robot in waiting}.values())  # one of a name
        for robot in turn:
            robot.start()
        while any(robot.alive for robot in turn):
            learner.watch()
            time.sleep(0.05)
            if time.monotonic() > deadline_s:
                raise UserError(f"{waiting[0].spool}: is not delivered; {waiting[0].out}")
        for robot in turn:
            robot.finish()
        waiting = [robot for robot in waiting if robot not in turn or list(robot.spool.glob(f"*{SUFFIX}"))]
    learner.stop()
    learner.finish()


def run(flags: argparse.Namespace, root: Path, disk: Disk, report: Report) -> Tally:
    rng = random.Random(flags.seed)
    first_checkpoint(root / "offline.pt")
    if disk.reason:
        print(f"the full disk is SKIPPED: no tmpfs can be mounted here ({disk.reason})", flush=True)
    folder = disk.folder / "run"
    learner = LearnerSide(root, folder, root / "offline.pt", free_port(), rng)
    robots = [RobotSide(root, n, learner.port, 100.0 * (n % 2), rng) for n in range(flags.robots)]
    learner.left = flags.kills // 2
    for number in range(flags.kills - learner.left):
        robots[number % len(robots)].left += 1
    namesakes = Namesakes(flags.namesakes, root, robots, learner.port, rng)
    partitions = Turns(flags.partitions, 3.0, flags.longest_s, rng)
    fills = Turns(0 if disk.reason else flags.fills, flags.longest_s, flags.longest_s, rng)
    full, cuts = fills.left, partitions.left
    began = time.monotonic()
    sides: list[Side] = [learner, *robots]
    try:
        for side in sides:
            side.start()
        harm(learner, robots, partitions, fills, disk, namesakes)
        everyone = [*robots, *(second for second in namesakes.sides.values() if second.life)]
        deliver(learner, everyone)
        tally = count(learner, everyone)
        refused = sum(path.read_text().count("cannot write") for path in root.glob("learner-*.out"))
        counted = load(folder / LATEST).counters["env_steps"]
        stored = sum(len(read_episode(path)) for path in (folder / "episodes").glob(f"*{SUFFIX}"))
    finally:
        for side in (*sides, *namesakes.sides.values()):
            if hasattr(side, "process") and side.process.poll() is None:
                side.process.kill()
                side.process.wait()
        for robot in (*robots, *namesakes.sides.values()):
            robot.proxy.close()
        if flags.folder and not disk.reason and folder.exists():
            shutil.copytree(folder, root / "run", dirs_exist_ok=True)
    for name, killed in (("the learner", [learner]), ("robot servers", robots)):
        moments = sum((side.moments for side in killed), Counter())
        for moment, words in (("start", "before it works"), ("work", "at work"), ("write", "while it writes a file")):
            report.add(f"kills of {name}, {words}", moments[moment], "")
    report.add("partitions", cuts, "")
    report.add("partitions, in all", partitions.total_s, "s")
    report.add("second robots of a name, the first cut off", namesakes.joined, "")
    refused_names = sum(path.read_text().count("is connected already") for path in root.glob("arm*.out"))
    report.add("robots that ended since their name was in use", refused_names, "")
    replaced = sum(path.read_text().count("steps replace the") for path in root.glob("learner-*.out"))
    report.add("episodes replaced by their longer version", replaced, "")
    report.add("full disks", full, "")
    report.add("full disks, in all", fills.total_s, "s")
    report.add("writes that a full disk refused", refused, "")
    report.add("episodes that ended", tally.episodes, "")
    report.add("steps made in them", tally.steps, "")
    report.add("lost", tally.lost, "steps", 0)
    report.add("twice", tally.twice, "steps", 0)
    report.add("changed", tally.changed, "steps", 0)
    report.add("checkpoint's count of steps, off by", abs(counted - stored), "steps", 0)
    report.add(
        "programs that died of themselves", sum(side.crashes for side in (*sides, *namesakes.sides.values())), "", 0
    )
    report.add("half episodes, their robot server killed", tally.halves, "")
    report.add("of them at their last step, killed before it was kept", tally.halves_ended, "")
    report.add("half episodes of two steps or more, missing whole", tally.halves_missing, "")
    report.add("steps made in half episodes", tally.half_steps, "")
    report.add("steps received of half episodes", tally.half_steps_received, "")
    report.add("wall time", time.monotonic() - began, "s")
    for side in sides:
        for line, times in side.ends.items():
            print(f"{side.name} ended by itself, {times} x: {line}")
    return tally


def count(learner: LearnerSide, robots: list[RobotSide]) -> Tally:
    paths = [
        path
        for place in ("episodes", "quarantine", "set_aside")
        for path in (learner.run / place).glob(f"[!.]*{SUFFIX}")
    ]
    return compare((made for robot in robots for made in robot.log()), map(read_episode, paths))


def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--kills", type=int, default=200, help="of both sides together (200)")
    arguments.add_argument("--partitions", type=int, default=20, help="between one robot server and the learner (20)")
    arguments.add_argument("--namesakes", type=int, default=12, help="second robots of a name (12)")
    arguments.add_argument("--longest-s", type=float, default=60.0, help="longest partition and full disk (60)")
    arguments.add_argument("--fills", type=int, default=3, help="how often the learner's disk is full (3)")
    arguments.add_argument("--robots", type=int, default=3, help="robot servers of the one learner (3)")
    arguments.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    arguments.add_argument("--folder", help="a new folder that keeps every log, and the run")
    flags = arguments.parse_args(argv)
    if flags.robots < 1:
        raise UserError(f"--robots {flags.robots}: at least one")
    report = Report("faults: kill -9, partitions and a full disk; the real learner and robot servers")
    with contextlib.ExitStack() as stack:
        root = Path(flags.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "faults").resolve()
        try:
            root.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"--folder {root}: {error.strerror}") from None
        disk = stack.enter_context(contextlib.closing(Disk(root / "disk")))
        tally = run(flags, root, disk, report)
    report.finish(flags.json)
    for line in tally.errors[:20]:
        print(line)
    return int(any(figure.met is False for figure in report.figures))


if __name__ == "__main__":
    cli.run(main)
