"""How the control loop keeps its time in a whole rehearsal: mock arm, two cameras, a learner that trains beside it.

  python -m tools.bench.rehearsal CKPT [--hz 10] [--minutes 10] [--json FILE]

Real processes: a learner that starts from CKPT (made from demonstrations of `--env mock` with two cameras), a robot
server with `--env mock`, the mock world. The policy acts; when the arm asks for a person, they say resume. A step is
missed when what it had to do was not done by its deadline; late is how long after its deadline a step ended. Ages and
latencies are those that the transitions carry.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.episode_file import episode_paths, read_episode
from agent.run.records import read_log
from robot_server.control_client import Operator
from tools.common.process import free_port, start
from tools.common.report import Report, parser

CAMERA = {"source": "mock", "size": 84, "fps": 20, "warmup_frames": 2}
CAMERAS = ("agentview", "robot0_eye_in_hand")


class Rehearsal:
    """Learner and robot server, in `folder`; log: the mock world's own, a line each 20 ms."""

    def __init__(self, folder: Path, ckpt: Path, hz: float, camera: Mapping[str, Any], horizon: int) -> None:
        self.folder, self.ckpt, self.hz, self._camera, self._horizon = folder, ckpt, hz, camera, horizon
        self.socket, self.log = folder / "mock.sock", folder / "mock.jsonl"
        self.ports = free_port(), free_port()
        self.control = f"tcp://127.0.0.1:{self.ports[1]}"
        self._asked = 0
        self.learner = self.start_learner()
        self.robot = self.start_robot()

    def _start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        return start(command, self.folder / f"{name}.log", environment=environment)

    def start_learner(self) -> subprocess.Popen[bytes]:
        address = f"tcp://127.0.0.1:{self.ports[0]}"
        self.run = self.folder / f"run-{time.monotonic_ns()}"
        words = ["--ckpt", str(self.ckpt), "--run", str(self.run), "--address", address, "--env-steps", "1000000"]
        return self._start("learner", "agent.learner", *words)

    def start_robot(self) -> subprocess.Popen[bytes]:
        cameras = json.dumps({name: self._camera for name in CAMERAS})
        words = ["--env", "mock", "--cameras", cameras, "--control-hz", str(self.hz), "--horizon", str(self._horizon)]
        words += ["--arm-options", json.dumps({"socket": str(self.socket)}), "--control", self.control]
        words += ["--address", f"tcp://127.0.0.1:{self.ports[0]}", "--spool", str(self.folder / "spool")]
        return self._start("robot", "robot_server", *words, MOCK_LOG=str(self.log))

    def event(self, event: str) -> None:
        """ "stop", or "go on": release the stop and resume, as a person does who has looked."""
        operator = Operator(self.control)
        if event == "stop":
            operator.ask("event", event=event)
        else:
            operator.lift("release")
            operator.lift("resume")
        operator.close()

    def asks(self) -> bool:
        """Whether the robot server has asked for a person since the last time."""
        log = (self.folder / "robot.log").read_text()
        asked = sum(
            map(log.count, ("press Resume in the panel", "hold Release in the panel"))
        )  # as robot_server says it
        before, self._asked = self._asked, asked
        return self._asked > before

    def close(self) -> None:
        for process in (self.robot, self.learner):  # the learner takes the last episode
            process.terminate()
            process.wait(60)


def shares(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.quantile(values, share)) for name, share in (("median", 0.5), ("p99", 0.99), ("most", 1.0))}


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("ckpt", type=Path)
    made.add_argument("--hz", type=float, default=10.0)
    made.add_argument("--minutes", type=float, default=10.0)
    flags = made.parse_args()
    report = Report(f"rehearsal at {flags.hz:g} Hz for {flags.minutes:g} minutes")
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Rehearsal(Path(folder), flags.ckpt, flags.hz, CAMERA, horizon=int(10 * flags.hz))
        resumed = 0
        try:
            end_s = time.monotonic() + 60 * flags.minutes
            while time.monotonic() < end_s and rehearsal.robot.poll() is None:
                time.sleep(1.0)
                if rehearsal.asks():
                    resumed += 1
                    rehearsal.event("go on")
        finally:
            rehearsal.close()
        print((Path(folder) / "robot.log").read_text()[-600:])
        records = read_log(rehearsal.run)
        rows = [record for record in records if record["kind"] == "robot"]
        episodes = [read_episode(path) for path in episode_paths([rehearsal.run / "episodes"])]
        told = rows[-1]
    report.add("steps timed", told["steps_timed"], "")
    report.add("steps in episodes", sum(map(len, episodes)), "")
    report.add("updates of the learner", records[-1]["updates"], "")
    report.add("times that the arm asked for a person", resumed, "")
    missed = 100 * told["deadlines_missed"] / max(1, told["steps_timed"])
    report.add("deadlines missed", missed, "%", 0.1 if flags.hz == 10 else None)
    late_ms = 1e3 * np.array([(row["late_p50_s"], row["late_p99_s"]) for row in rows])
    report.add("late, median (of the minutes' medians)", float(np.median(late_ms[:, 0])), "ms")
    report.add(
        "late, p99 (median of the minutes)", float(np.median(late_ms[:, 1])), "ms", 2.0 if flags.hz == 10 else None
    )
    report.add("late, p99 (the worst minute)", float(late_ms[:, 1].max()), "ms")
    for what in ("observation_ages_s", "action_latencies_s"):
        for name, value in shares(np.concatenate([getattr(episode, what) for episode in episodes])).items():
            report.add(f"{what[:-2].replace('_', ' ')}, {name}", 1e3 * value, "ms")
    report.finish(flags.json)
    return 0 if rehearsal.robot.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
