"""An arm that LeRobot's own driver moves on an emulated servo bus, in an environment that has LeRobot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.bus.bus import Bus
from envs.real.bus.protocol import DYNAMIXEL, FEETECH
from envs.real.bus.servo import Servo
from tools.stress.driven import Driver

PACKAGES = ("lerobot[feetech,dynamixel]", "mujoco", "h5py", "pyyaml", "gymnasium", "pyzmq", "msgpack")
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ARMS = {
    "so101_follower": (FEETECH, [777] * 6),
    "koch_follower": (DYNAMIXEL, [1060, 1060, 1200, 1200, 1200, 1200]),
}
ZERO_DEG = 180.0  # of a servo, where its joint is at 0


def environment(folder: Path) -> Path:
    """The Python of LeRobot's environment in `folder`, which is made when it is missing."""
    python = folder / "bin" / "python"
    if (
        subprocess.run([python, "-c", "import lerobot, mujoco"], capture_output=True, check=False).returncode
        if python.exists()
        else 1
    ):
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
    return python


class Driven(Driver):
    """An emulated bus, and a process in LeRobot's environment that drives its arm."""

    def __init__(
        self,
        python: Path,
        arm: str,
        torque_off: bool = True,
        goal: float | None = None,
        mirrored: bool = False,
        servo: type[Servo] = Servo,
        **options: Any,
    ) -> None:
        """mirrored: the gripper is mounted the other way round. servo: the class of the emulated ones. options: of the
        environment, in place of the usual.
        """
        protocol, models = ARMS[arm]
        self.bus = Bus(protocol, models=models, in_time=True, servo=servo)
        self.bus.place(ZERO_DEG, goal)
        if mirrored and protocol is DYNAMIXEL:
            self.bus.servos[6].memory[10] = 1  # Drive_Mode: the servo itself turns its numbers round
        self._folder = tempfile.TemporaryDirectory()
        calibration = {
            joint: {
                "id": n,
                "drive_mode": int(mirrored and joint == "gripper"),
                "homing_offset": 0,
                "range_min": 0,
                "range_max": 4095,
            }
            for n, joint in enumerate(JOINTS, 1)
        }
        Path(self._folder.name, "emulated.json").write_text(json.dumps(calibration))
        usual = {
            "arm_options": {
                "port": str(self.bus.port),
                "id": "emulated",
                "calibration_dir": self._folder.name,
                "use_degrees": True,
                "disable_torque_on_disconnect": torque_off,
            },
            "axes": {
                joint: {"low": -60, "high": 60, "speed": 30, "lag": 15, "max_load": 80, "max_temperature": 60}
                if joint != "gripper"
                else {"low": 20, "high": 80, "speed": 10, "lag": 15, "home": 50, "max_load": 20, "squeeze": 0.3}
                for joint in JOINTS
            },
            "horizon": 1_000_000,
            "release_s": 1.0,
        }
        super().__init__(python, f"lerobot:{arm}", {**usual, **options})

    def moved(self, since_s: float, until_s: float) -> np.ndarray:
        """(rows, 1 + servos): time and degrees."""
        return np.array([(t, *degrees) for t, degrees in list(self.bus.history) if since_s <= t <= until_s])

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        time.sleep(2.0)  # its arm's process disconnects after release_s
        self.bus.__exit__()
        self._folder.cleanup()
