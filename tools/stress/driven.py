"""A process that drives an arm as the robot server does (tools.stress.bus_drive), and what it reported."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.bus.bus import in_time

ROOT = Path(__file__).parents[2]
STILL_DEG = 0.5
CONNECT_S = 300.0  # loading a driver may take its time


class Driver:
    """python: of the environment that has the arm's driver. env, options: of envs.make."""

    def __init__(self, python: str | Path, env: str, options: dict[str, Any]) -> None:
        self.events: list[dict[str, Any]] = []
        command = [str(python), "-m", "tools.stress.bus_drive", env, json.dumps(options)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        in_time()  # what waits with the interpreter's lock delays the emulated servos
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))

    def first(self, event: str, since_s: float = 0.0) -> dict[str, Any] | None:
        return next((e for e in list(self.events) if e["event"] == event and e["time_s"] >= since_s), None)

    def wait(self, event: str, since_s: float = 0.0, timeout_s: float = CONNECT_S) -> dict[str, Any]:
        """Raises SystemExit, with what the driver said, when it does not come: at once after a fault, or at its end."""
        end_s = time.monotonic() + timeout_s
        while (found := self.first(event, since_s)) is None:
            if time.monotonic() > end_s:
                raise SystemExit(f"no '{event}' within {timeout_s:g} s: {self.events[-3:]}")
            if event not in ("fault", "closed") and (fault := self._fault()):
                raise SystemExit(f"no '{event}', the arm has a fault: {fault}")
            if self.process.poll() is not None:
                self._reader.join(1.0)  # of what it said last; its arm's process may keep the pipe open
                if self.first(event, since_s) is None:
                    raise SystemExit(f"no '{event}', the driver has ended: {self.events[-3:]}")
            time.sleep(0.02)
        return found

    def _fault(self) -> str:
        """The line of one that was not cleared; empty without one."""
        says = [each for each in list(self.events) if each["event"] in ("fault", "still", "cleared")]
        return str(says[-1].get("line", "")) if says else ""

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def resumes(self, tries: int = 8) -> bool:
        """Whether it can be cleared by a person who has looked, within so many seconds."""
        since_s = time.monotonic()
        for _ in range(tries):
            self.tell("inspected")
            time.sleep(1.0)
            if self.first("cleared", since_s):
                return True
        return False

    @property
    def lost(self) -> int:
        """Replies, as the last step counted them."""
        return next((int(e["lost"]) for e in reversed(list(self.events)) if e["event"] == "step"), 0)

    def count(self, event: str, since_s: float) -> int:
        return sum(e["event"] == event and e["time_s"] >= since_s for e in list(self.events))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def stands_after_ms(rows: np.ndarray, since_s: float) -> float | None:
    """From when on no joint moved any more; None if one did. rows: (n, 1 + joints), seconds and degrees."""
    away = rows[np.abs(rows[:, 1:] - rows[-1, 1:]).max(axis=1) > STILL_DEG, 0]
    if len(away) == 0:
        return 0.0
    return None if rows[-1, 0] - away[-1] < 1.0 else 1000 * (away[-1] - since_s)
