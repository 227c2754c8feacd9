"""What the mock arm does when something breaks while a person drives it, and after how many milliseconds it stands.

  python -m tools.stress.robot_faults CKPT [--rounds 3] [--json FILE]

Real processes: a learner that starts from CKPT, a robot server with `--env mock`, the mock world. The operator drives
in circles through the robot server's socket. Each fault is made while the arm moves; how the arm moved is read from the
mock world's own log, a line each 20 ms. It stands from when it stays within STILL_M of where it is WATCHED_S later.
That it goes on is right for a learner that has gone. After each fault the run is brought back, by a person or a new
process.
"""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.real.mock_world import send_fault
from robot_server.command import Command
from robot_server.control_client import Operator
from tools.bench import rehearsal
from tools.bench.rehearsal import CAMERAS, Rehearsal
from tools.common.report import machine, parser

STILL_M = 0.005
STOOD_S = 1.0
MOVES_MPS = 0.04
WATCHED_S = 2.0
CAMERA = {**rehearsal.CAMERA, "max_age_s": 0.15, "frozen_s": 0.15}


class Driven(Rehearsal):
    """A rehearsal in which a person drives in circles, while `driving` is set; episodes are long."""

    def __init__(self, folder: Path, ckpt: Path, hz: float) -> None:
        super().__init__(folder, ckpt, hz, CAMERA, horizon=100_000)
        self.driving, self._over = threading.Event(), threading.Event()
        self._driver = threading.Thread(target=self._drive, daemon=True)
        self._driver.start()

    def _drive(self) -> None:
        operator = Operator(self.control)
        while not self._over.wait(0.04):
            if self.driving.is_set():
                angle = time.monotonic() * 1.5
                motion = np.array([np.sin(angle), np.cos(angle), 0, 0, 0, 0], np.float32)
                operator.drive(Command(motion, -1.0, True))

    def places(self, since_s: float) -> list[tuple[float, np.ndarray]]:
        """(time, the hand's position) from then on."""
        rows = [json.loads(line) for line in self.log.read_text().splitlines()[-1000:] if line.endswith("}")]
        return [(row["t"], np.array(row["position"][:3])) for row in rows if row["t"] >= since_s]

    def wait_for_motion(self, timeout_s: float = 90.0) -> None:
        end_s, fast = time.monotonic() + timeout_s, 0
        while fast < 10:
            if time.monotonic() > end_s:
                raise SystemExit(f"the arm does not move: see {self.folder}")
            time.sleep(0.2)
            if self.robot.poll() is None and self.log.exists():
                self.event("go on")
                self.driving.set()
                way = self.places(time.monotonic() - 0.3)
                speeds = [np.linalg.norm(b - a) / (t - s) for (s, a), (t, b) in zip(way, way[2:], strict=False)]
                fast = fast + 1 if speeds and min(speeds) > MOVES_MPS else 0

    def close(self) -> None:
        self._over.set()
        super().close()


def stands_after_ms(moved: list[tuple[float, np.ndarray]], since_s: float) -> float | None:
    """From when on it stood; None if it did not."""
    end_s, end = moved[-1]
    away = [t for t, place in moved if np.linalg.norm(place - end) > STILL_M]
    if not away:
        return 0.0
    return None if end_s - away[-1] < STOOD_S else 1000 * (away[-1] - since_s)


def faults(rehearsal: Driven) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name -> (make it, bring all back)."""
    r = rehearsal

    def hardware(name: str) -> tuple[Callable[[], object], Callable[[], object]]:
        return lambda: send_fault(str(r.socket), name, WATCHED_S), lambda: None

    def restart_robot() -> None:
        r.robot.wait()
        r.robot = r.start_robot()

    def restart_learner() -> None:
        r.learner.wait()
        r.learner = r.start_learner()

    def to_robot(number: int) -> Callable[[], object]:
        return lambda: r.robot.send_signal(number)

    return {
        "motors stall": hardware("stall"),
        "arm unplugged": hardware("disconnect"),
        "arm reports an error": hardware("fault"),
        "state comes 0.4 s late": hardware("late"),
        "camera frozen": hardware(f"freeze:{CAMERAS[0]}"),
        "camera unplugged": hardware(f"unplug:{CAMERAS[0]}"),
        "stop button": (lambda: r.event("stop"), lambda: None),
        "driver gone": (r.driving.clear, lambda: None),
        "learner killed": (r.learner.kill, restart_learner),
        "robot server stalls": (to_robot(signal.SIGSTOP), to_robot(signal.SIGCONT)),
        "robot server killed": (to_robot(signal.SIGKILL), restart_robot),
        "robot server: Ctrl-C": (to_robot(signal.SIGINT), restart_robot),
    }


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("ckpt", type=Path)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--hz", type=float, default=10.0)
    flags = made.parse_args()
    found: dict[str, list[float | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Driven(Path(folder), flags.ckpt, flags.hz)
        try:
            for _ in range(flags.rounds):
                for name in faults(rehearsal):
                    rehearsal.wait_for_motion()
                    break_, mend = faults(rehearsal)[name]
                    since_s = time.monotonic()
                    break_()
                    time.sleep(WATCHED_S)
                    after_ms = stands_after_ms(rehearsal.places(since_s), since_s)
                    found.setdefault(name, []).append(after_ms)
                    print(f"{name:26}{'-' if after_ms is None else f'{after_ms:.0f} ms'}", flush=True)
                    mend()
        finally:
            rehearsal.close()
    print(f"\n{machine()}, {flags.hz:g} Hz; stands after (each round)")
    for name, times in found.items():
        print(f"{name:26}" + ", ".join("goes on" if t is None else f"{t:.0f} ms" for t in times))
    if flags.json:
        Path(flags.json).write_text(
            json.dumps({"machine": machine(), "hz": flags.hz, "stands_after_ms": found}, indent=1)
        )


if __name__ == "__main__":
    main()
