"""Commands as processes of their own, with their output in files."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.spec import UserError
from envs.start import module_command

STOP_S = 30.0  # how long a command may take to end when it is asked to


def start(
    words: Sequence[object],
    out: Path,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `python -m WORDS`: standard output to `out`, errors appended to `log`, or to `out` as well.

    environment: on top of this process's. session: one of its own, which no Ctrl-C at the terminal reaches.
    """
    command = module_command(*map(str, words))
    with open(out, "a" if log is None else "w") as stdout, open(log or out, "a") as stderr:
        variables = {**os.environ, **(environment or {})}
        return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=variables, start_new_session=session)


class Process:
    """The command `python -m WORDS`, its standard output in NAME.out of `folder`, its errors added to NAME.log."""

    def __init__(self, folder: Path, name: str, *words: object, session: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.out, self.log = name, folder / f"{name}.out", folder / f"{name}.log"
        self.process = start(words, self.out, self.log, session=session)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def output(self) -> str:
        """Wait for its end; its standard output. Raises UserError with the last line of its log when it failed."""
        try:
            code = self.process.wait()
        except BaseException:  # Ctrl-C, SIGTERM: it does not outlive this process
            self.end()
            raise
        if code:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["no message"]
            raise UserError(f"{self.name} ended with exit code {code}: {lines[-1]} ({self.log})")
        return self.out.read_text(errors="replace")

    def end(self) -> None:
        """As Ctrl-C does: a learner writes its checkpoint."""
        if not self.ended():
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port() -> int:
    """A free port below those that outgoing connections get: a robot that retries on one of these may meet itself."""
    for port in random.sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UserError("no free TCP port between 20000 and 32767")
