"""What tools.collect does when a leader arm's bus loses replies: LeRobot's own leader and follower, emulated servos.

  python -m tools.stress.leader_faults --lerobot FOLDER [--json FILE]

FOLDER is LeRobot's environment, as for tools.stress.bus_faults. The leader's joints swing, the follower follows.
Of each fault: how many replies were lost, the greatest lag of the follower, and whether it went on. Then the leader is
unplugged: when the follower stood, what the operator saw, and whether what was recorded is kept. Exits with 1 when
1 % of lost packets ends the recording, or it is not kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.bus.bus import Bus, in_time
from envs.real.bus.protocol import FEETECH
from tools.common.report import machine, parser
from tools.stress.driven import ROOT, stands_after_ms
from tools.stress.driven_lerobot import JOINTS, environment

SWING_DEG, SWING_S = 20.0, 6.0
WATCHED_S = 10.0
START_S = 300.0  # loading LeRobot takes its time
LOSSES = {"0.1 % of packets lost": 1.0, "1 % lost": 10.0, "5 % lost": 50.0}


class Recording:
    """tools.collect in LeRobot's environment, with its terminal, and both buses."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.leader, self.follower = Bus(FEETECH, in_time=True), Bus(FEETECH, in_time=True)
        for bus in (self.leader, self.follower):
            bus.place(180.0)
        self._over, self.out = threading.Event(), folder / "demos"
        threading.Thread(target=self._swing, daemon=True).start()
        servo = {"drive_mode": 0, "homing_offset": 0, "range_min": 0, "range_max": 4095}
        calibration = {joint: {"id": n, **servo} for n, joint in enumerate(JOINTS, 1)}
        (folder / "emulated.json").write_text(json.dumps(calibration))
        arm: dict[str, Any] = {"id": "emulated", "calibration_dir": str(folder), "use_degrees": True}
        axes = {joint: {"low": -60, "high": 60, "speed": 30, "lag": 30} for joint in JOINTS[:-1]}
        grip = {"low": 0, "high": 100, "speed": 60, "lag": 60, "home": 50}
        env: dict[str, Any] = {
            "name": "lerobot:so101_follower",
            "arm_options": {"port": str(self.follower.port), **arm},
        }
        env |= {"axes": {**axes, "gripper": grip}, "horizon": 1_000_000, "release_s": 1.0}
        leader = {"port": str(self.leader.port), **arm}
        (folder / "arm.yaml").write_text(json.dumps({"env": env, "collect": {"leader": leader}}))  # JSON is YAML
        ours, theirs = os.openpty()
        self._keys, self._log = ours, folder / "log"
        words: list[Any] = ["--config", folder / "arm.yaml", "--device", "lerobot:so101_leader", "--episodes", "1"]
        self.process = subprocess.Popen(
            [str(word) for word in (python, "-m", "tools.collect", *words, "--out", self.out)],
            cwd=ROOT,
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=self._log.open("w"),
        )

    def _swing(self) -> None:
        while not self._over.is_set():
            at = 180.0 + SWING_DEG * np.sin(2 * np.pi * time.monotonic() / SWING_S)
            for servo in list(self.leader.servos.values())[:-1]:
                servo.position = at
            time.sleep(0.01)

    def log(self) -> str:
        return self._log.read_text(errors="replace").replace("\r", "\n")

    def start(self) -> None:
        """Until the follower follows. Raises SystemExit when it does not."""
        end_s, enabled = time.monotonic() + START_S, False
        while not self.follows():
            if time.monotonic() > end_s or self.process.poll() is not None:
                raise SystemExit(f"tools.collect does not start: {self.log()[-500:]}")
            if not enabled and "the arm follows it" in self.log():
                time.sleep(3.0)  # its reset
                enabled = bool(os.write(self._keys, b"e"))
            time.sleep(1.0)

    def follows(self) -> bool:
        """Whether the follower has swung as far as the leader, nearly, in the last period."""
        since_s = time.monotonic() - SWING_S
        places = [row[0] for t, row in list(self.follower.history) if t > since_s]
        return bool(np.ptp(places) > 1.6 * SWING_DEG) if places else False

    def lag(self, for_s: float) -> float:
        """Degrees that the follower's first joint was away from the leader's at most, lately."""
        since_s = time.monotonic() - for_s
        mine = np.array([(t, row[0]) for t, row in list(self.follower.history) if t > since_s])
        led = 180.0 + SWING_DEG * np.sin(2 * np.pi * mine[:, 0] / SWING_S)
        return float(np.abs(mine[:, 1] - led).max())

    def close(self) -> None:
        self._over.set()
        self.process.kill()
        self.process.wait()
        time.sleep(2.0)
        for bus in (self.leader, self.follower):
            bus.__exit__()
        os.close(self._keys)


def lost(recording: Recording, per_mille: float) -> dict[str, Any]:
    """With so many of the leader's packets lost."""
    before = recording.leader.faulty
    recording.leader.faults.lost = per_mille
    time.sleep(WATCHED_S)
    recording.leader.faults.lost = 0.0
    return {
        "packets_lost": recording.leader.faulty - before,
        "lag_deg": round(recording.lag(WATCHED_S), 1),
        "goes_on": recording.process.poll() is None and recording.follows(),
    }


def unplugged(recording: Recording) -> dict[str, Any]:
    since_s = time.monotonic()
    recording.leader.unplug()
    try:
        code = recording.process.wait(20.0)
    except subprocess.TimeoutExpired:
        code = None
    ended_s = time.monotonic()
    time.sleep(1.5)
    rows = np.array([(t, *row) for t, row in list(recording.follower.history) if t >= since_s])
    stood_ms = stands_after_ms(rows, since_s)
    lines = [line for line in recording.log().splitlines() if re.search(r"device|episode \d+ ended", line)]
    return {
        "exit_code": code,
        "stood_ms": None if stood_ms is None else round(stood_ms),
        "ended_ms": round(1000 * (ended_s - since_s)),
        "operator": lines[-1][-300:] if lines else "",
        "kept": len(list(recording.out.glob("episode_*.hdf5"))),
    }


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--lerobot", type=Path, required=True, metavar="FOLDER")
    flags = made.parse_args()
    in_time()
    python = environment(flags.lerobot.absolute())
    found: dict[str, Any] = {"machine": machine()}
    names = [*LOSSES, "unplugged"]
    while names:  # one that ends the recording is followed by another
        with tempfile.TemporaryDirectory() as folder:
            recording = Recording(python, Path(folder))
            try:
                recording.start()
                while names and recording.process.poll() is None:
                    name = names.pop(0)
                    found[name] = unplugged(recording) if name == "unplugged" else lost(recording, LOSSES[name])
                    print(f"{name}: {found[name]}", flush=True)
            finally:
                recording.close()
    if flags.json:
        Path(flags.json).write_text(json.dumps(found, indent=1))
    return 0 if found["1 % lost"]["goes_on"] and found["unplugged"]["kept"] == 1 else 1


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
