"""What reading a register of six emulated servos costs LeRobot's driver, beside the position.

python -m tools.stress.bus_reads [--arm so101_follower]       in the environment of tools.stress.bus_faults --lerobot
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.arm_lerobot import LeRobotArm
from envs.real.bus.bus import Bus
from tools.common.report import machine, parser
from tools.stress.driven_lerobot import ARMS, JOINTS

READS = 300
REGISTERS = {
    "so101_follower": ("Present_Position", "Present_Load", "Present_Current", "Present_Temperature", "Status"),
    "koch_follower": ("Present_Position", "Present_Current", "Present_Temperature", "Hardware_Error_Status"),
}


def milliseconds(call: Any) -> dict[str, float]:
    """Of READS calls."""
    taken = []
    for _ in range(READS):
        begun_s = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - begun_s))
    return {"median_ms": round(float(np.median(taken)), 2), "p99_ms": round(float(np.percentile(taken, 99)), 2)}


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--arm", choices=sorted(ARMS), default="so101_follower")
    flags = made.parse_args()
    protocol, models = ARMS[flags.arm]
    with Bus(protocol, models=models, in_time=True) as bus, tempfile.TemporaryDirectory() as folder:
        joints = {
            joint: {"id": n, "drive_mode": 0, "homing_offset": 0, "range_min": 0, "range_max": 4095}
            for n, joint in enumerate(JOINTS, 1)
        }
        Path(folder, "emulated.json").write_text(json.dumps(joints))
        arm = LeRobotArm(flags.arm, port=str(bus.port), id="emulated", calibration_dir=folder, use_degrees=True)
        arm.connect()
        found = {
            name: milliseconds(lambda name=name: arm.robot.bus.sync_read(name, normalize=False))
            for name in REGISTERS[flags.arm]
        }
        print(arm.state())
        arm.disconnect()
    print(json.dumps({"machine": machine(), "arm": flags.arm, "reads": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
