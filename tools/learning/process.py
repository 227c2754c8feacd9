"""What learning runs have in common: commands as processes, when to stop, whose turn it is, how long things took."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.files import try_lock
from tools.common import process
from tools.learning.settings import read, write

POLL_S = 0.2
WORSE = re.compile(r"[-0-9]{10} [:0-9]{8} (?:\S+ )?((?:warning|error|critical): .*)")  # a line of a log, see agent.logs


class Stopped(Exception):
    """The slice is over; what was done so far is on disk."""


@dataclass(frozen=True)
class Means:
    """What runs share: `stop` is set when the slice is over. threads: of each learner, and workers of an evaluation."""

    stop: threading.Event
    threads: int
    device: str = "auto"


class Process(process.Process):
    """A command in a session of its own: Ctrl-C reaches it by `end` only. Its warnings are printed here, too."""

    def __init__(self, folder: Path, name: str, *words: object) -> None:
        log = folder / f"{name}.log"
        self._read = log.stat().st_size if log.exists() else 0  # of the log, which a resumed one goes on with
        super().__init__(folder, name, *words, session=True)

    def report_warnings(self) -> None:
        """Print the warnings and errors that its log has got since the last call. Raises nothing."""
        with contextlib.suppress(OSError):
            with open(self.log, "rb") as log:
                log.seek(self._read)
                new = log.read()
            lines = new[: new.rfind(b"\n") + 1]
            self._read += len(lines)
            for line in lines.decode(errors="replace").splitlines():
                if found := WORSE.fullmatch(line):
                    say(f"{self.log.parent.name} {self.name}: {found[1]}")

    def end(self) -> None:
        super().end()
        self.report_warnings()

    def finish(self, means: Means) -> str:
        """Its standard output, once it has ended. Raises Stopped, or UserError with the last line if it failed."""
        try:
            while not self.ended():
                self.report_warnings()
                if means.stop.wait(POLL_S):
                    raise Stopped
        finally:
            self.end()  # it does not outlive whatever is raised here
        said = self.output()
        if means.stop.is_set():  # it may have been stopped by the same Ctrl-C
            raise Stopped
        return said


def say(line: str) -> None:
    text = f"{time.strftime('%H:%M:%S')} {line}\n"
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))  # in one piece: threads say things
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
