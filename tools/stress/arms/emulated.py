"""An emulated arm's controller as a program of its own, told what is to happen to it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from envs.start import module_command


def own_address(network: int) -> str:
    """One of this machine's addresses (127.0.0.0/8) for this process; network: 1 to 254, of several of its."""
    return f"127.{network}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


class Emulated:
    """kind: ur, xarm. host: an address of this machine. Raises RuntimeError when it does not start."""

    def __init__(self, kind: str, host: str) -> None:
        words = module_command(f"tools.stress.arms.{kind}", "--host", host)
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._read() != "ready":
            self.close()
            raise RuntimeError(f"the emulated {kind} does not start on {host}; its output is above")

    def make(self, fault: str) -> None:
        """A fault, with its arguments: "error 31"."""
        self._tell(fault)
        if (said := self._read()) != "done":
            raise RuntimeError(f"the emulator answered {said!r} to {fault!r}")

    def history(self, since_s: float = 0.0) -> list[list[float]]:
        """Rows of time.monotonic() and degrees."""
        self._tell(f"history {since_s}")
        rows: list[list[float]] = json.loads(self._read())
        return rows

    def report(self) -> dict[str, Any]:
        self._tell("report")
        found: dict[str, Any] = json.loads(self._read())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Emulated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
