"""What learning runs have in common: commands as processes, when to stop, whose turn it is, how long things took."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.files import try_lock
from agent.spec import UserError
from tools.demo import STOP_S
from tools.learning.settings import read, write

POLL_S = 0.2


class Stopped(Exception):
    """The slice is over; what was done so far is on disk."""


@dataclass(frozen=True)
class Means:
    """What runs share: `stop` is set when the slice is over. threads: of each learner, and workers of an evaluation."""

    stop: threading.Event
    threads: int
    device: str = "auto"


class Process:
    """A command as a process of its own, its output in two files of `folder`."""

    def __init__(self, folder: Path, name: str, *words: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.out, self.log = name, folder / f"{name}.out", folder / f"{name}.log"
        with open(self.out, "w") as out, open(self.log, "a") as log:
            command = [sys.executable, "-m", *map(str, words)]
            self.process = subprocess.Popen(command, stdout=out, stderr=log, start_new_session=True)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self, means: Means) -> str:
        """Its standard output, once it has ended. Raises Stopped, or UserError with the last line if it failed."""
        while not self.ended():
            if means.stop.wait(POLL_S):
                self.end()
                raise Stopped
        if self.process.returncode:
            lines = self.log.read_text().strip().splitlines() or ["no message"]
            raise UserError(f"{self.name} ended with exit code {self.process.returncode}: {lines[-1]} ({self.log})")
        if means.stop.is_set():  # it may have been stopped by the same Ctrl-C
            raise Stopped
        return self.out.read_text()

    def end(self) -> None:
        """As Ctrl-C does: it writes its checkpoint."""
        if not self.ended():
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")  # in one piece: threads say things
    sys.stdout.flush()


@contextlib.contextmanager
def alone(folder: Path, means: Means) -> Iterator[None]:
    """Nobody else, of this call or of another, is at `folder` meanwhile. Raises Stopped.

    The lock is a file beside it, which stays: `folder` may be deleted.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    told = False
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        while not try_lock(lock):
            if not told:
                say(f"{folder.name}: waits for who is at it")
            told = True
            if means.stop.wait(POLL_S):
                raise Stopped
        folder.mkdir(exist_ok=True)
        yield


@contextlib.contextmanager
def clocked(folder: Path) -> Iterator[None]:
    """Adds the time that it takes to that of earlier slices; see minutes."""
    began = time.monotonic()
    try:
        yield
    finally:
        write(folder / "minutes.json", {"minutes": minutes(folder) + (time.monotonic() - began) / 60})


def minutes(folder: Path) -> float:
    return float(read(folder / "minutes.json").get("minutes", 0.0))
