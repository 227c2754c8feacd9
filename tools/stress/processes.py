"""The two programs of a run as processes that are killed and started again, each with its own moments for it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from agent.run.checkpoint import LATEST
from agent.spec import UserError
from envs.fake import LOG
from tools.common.process import start
from tools.stress.ledger import Made, read_log
from tools.stress.proxy import Proxy

ENV = {"image_size": 12, "horizon": 20, "step_ms": 10.0}
RUN = ["--offline-share", "0", "--utd", "0.05", "--online.batch", "16", "--env-steps", "1000000000", "--threads", "1"]
OFTEN = ["--checkpoint-every", "200", "--keep", "2", "--device", "cpu"]
MOMENTS = {"start": 0.2, "work": 0.5, "write": 0.3}  # when to kill -> how often
START_S, WORK_S, WRITE_S = 6.0, 6.0, 5.0  # longest wait for a kill: from the start, from the first work, for a file
AGAIN_S = 1.0  # before what ended by itself is started again
TIMEOUT_S = 120.0
MAX_IN_VAIN = 30  # lives in a row that ended by themselves before they worked


class Side:
    """One program, as a process that is killed and started again. folders: where it writes."""

    def __init__(self, name: str, root: Path, folders: list[Path], rng: random.Random) -> None:
        self.name, self.root, self.folders, self.rng = name, root, folders, rng
        self.life = 0
        self.left = 0  # kills to come
        self.ends: Counter[str] = Counter()  # of lives that ended by themselves: last line -> how many
        self.crashes = self.in_vain = 0
        self.moments: Counter[str] = Counter()  # at which it was killed

    def start(self) -> None:
        self.life += 1
        self.again_s = 0.0
        self.out = self.root / f"{self.name}-{self.life:04d}.out"
        self.process = start(self.command(), self.out, environment={LOG: str(self.made)})
        self.moment = self.rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        self.due_s = time.monotonic() + self.rng.uniform(0, START_S) if self.moment == "start" else None

    @property
    def made(self) -> Path:
        """The log of this life's environment."""
        return self.root / f"{self.name}-{self.life:04d}.jsonl"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def command(self) -> list[str]:
        raise NotImplementedError

    def working(self) -> bool:
        raise NotImplementedError

    def writing(self) -> bool:
        return any(self._parts())

    def _parts(self) -> Iterator[str]:
        """Files that it is writing now."""
        for folder in self.folders:
            with contextlib.suppress(FileNotFoundError):
                yield from (e.name for e in os.scandir(folder) if e.name.endswith(f".{self.process.pid}.part"))

    @property
    def watches_files(self) -> bool:
        """Whether its moment is the next file that it writes, which takes milliseconds."""
        return self.left > 0 and self.moment == "write" and self.due_s is not None and time.monotonic() > self.due_s

    def ripe(self) -> bool:
        """Whether its moment has come."""
        now = time.monotonic()
        if self.due_s is None and self.working():
            self.due_s = now + self.rng.uniform(0, WORK_S)
        if self.due_s is None or now < self.due_s:
            return False
        return self.moment != "write" or now > self.due_s + WRITE_S or self.writing()

    def kill(self) -> None:
        """It may be dead already: of a kill that hit both sides."""
        self.process.kill()
        self.process.wait()
        self.left -= 1
        self.moments["start" if not self.working() else "write" if self.writing() else "work"] += 1

    def watch(self) -> None:
        """Start it again after it ended by itself, and note of what."""
        code = self.process.poll()
        if code is None:
            return
        if not self.again_s:
            said = [f"exit code {code}", *self.out.read_text().strip().splitlines()]
            line = next((line for line in reversed(said) if "error: " in line), said[-1])
            self.ends[line[max(0, line.find("error: ")) :]] += 1
            self.crashes += code not in (0, 2)
            self.again_s = time.monotonic() + AGAIN_S
            self.in_vain = 0 if self.working() else self.in_vain + 1
            if self.in_vain > MAX_IN_VAIN:
                raise UserError(f"{self.name} ends by itself again and again: {self.out}")
        elif time.monotonic() > self.again_s:
            self.start()

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        self.process.send_signal(signal.SIGTERM)

    def finish(self) -> None:
        """Wait for its end."""
        try:
            code = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise UserError(f"{self.name} does not end: {self.out}") from None
        self.crashes += code not in (0, 2, 128 + signal.SIGTERM, -signal.SIGTERM)  # the last before it had a handler


class LearnerSide(Side):
    def __init__(self, root: Path, run: Path, ckpt: Path, port: int, rng: random.Random) -> None:
        super().__init__("learner", root, [run, run / "episodes"], rng)
        self.run, self.ckpt, self.port = run, ckpt, port

    def command(self) -> list[str]:
        start = ["--resume", str(self.run)] if (self.run / LATEST).exists() else ["--ckpt", str(self.ckpt)]
        place = ["--run", str(self.run), "--address", f"tcp://127.0.0.1:{self.port}"]
        return ["agent.learner", *start, *place, *RUN, *OFTEN]

    def working(self) -> bool:
        return "listening" in self.out.read_text()


class RobotSide(Side):
    """hz: 0 for a simulation, which waits for the learner; a real robot does not. robot: its name, if not its own."""

    def __init__(
        self, root: Path, number: int, port: int, hz: float, rng: random.Random, robot: str | None = None
    ) -> None:
        self.spool = root / f"spool-{number}"
        super().__init__(f"arm{number}", root, [self.spool], rng)
        self.number, self.hz, self.robot = number, hz, robot or self.name
        self.proxy = Proxy(port)
        self.killed: set[int] = set()  # lives
        self.episodes = 0  # 0: until it is stopped

    def command(self) -> list[str]:
        words = ["robot_server", "--env", "fake", "--robot-name", self.robot, "--spool", str(self.spool)]
        words += [word for key, value in ENV.items() for word in (f"--{key}", str(value))]
        words += ["--address", f"tcp://127.0.0.1:{self.proxy.port}", "--hz", str(self.hz)]
        seed = 1_000_000 * (200 * self.number + self.life)  # no two episodes of all lives have the same
        return [*words, "--seed", str(seed), "--episodes", str(self.episodes)]

    def working(self) -> bool:
        return self.made.exists() and self.made.stat().st_size > 0

    def kill(self) -> None:
        self.killed.add(self.life)
        super().kill()

    def log(self) -> list[Made]:
        found = []
        for life in range(1, self.life + 1):
            path = self.root / f"{self.name}-{life:04d}.jsonl"
            found += read_log(path, self.robot, life in self.killed)
        return found
