"""What a UR or an xArm does when its controller stops it or the connection fails: the maker's library, our stack, an
emulated controller.

  python -m tools.stress.arm_faults ur|xarm [--only NAME] [--json FILE]

Needs the extra [ur] or [xarm]; xarm: port 502 needs root, or `sysctl net.ipv4.ip_unprivileged_port_start=502`. Each
fault is made while all joints swing. A row has when the arm stood and how far it went (from the fault on, by the
emulator's own record), when the fault was reported, the line that the operator saw, and whether the arm resumed once it
was mended and inspected. Exits with 1 if the arm did not stand, did not resume, or its library asked for what the
emulator does not have.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tools.common.report import machine, parser
from tools.stress.arms import ur, xarm
from tools.stress.arms.emulated import Emulated, own_address
from tools.stress.driven import Driver, stands_after_ms

HOST = own_address(30)
JOINTS = {
    "ur": dict(zip(("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3"), ur.HOME, strict=True)),
    "xarm": {f"joint{n}": home for n, home in enumerate(xarm.HOME, 1)},
}
LINK = {"cable out for 3 s": ("silent", "plug"), "connection closed": ("drop", "plug")}
FAULTS = {  # name -> (fault, what mends it), of the emulator
    "ur": {
        "protective stop": ("protective_stop", "plug"),  # unlocked by the person's Release
        "protective stop, program paused": ("protective_stop paused", "plug"),
        "emergency stop": ("emergency_stop", "mend"),
        "safeguard stop": ("safeguard_stop", "mend"),
        "program stopped at the pendant": ("stop_program", "plug"),
        **LINK,
    },
    "xarm": {
        "one answer lost": ("lose 1", "plug"),
        "C24, speed": ("error 24", "plug"),
        "C31, collision": ("error 31", "plug"),
        "C60, speed of the hand": ("error 60", "plug"),
        "emergency stop": ("emergency_stop", "mend"),
        "stopped in UFACTORY Studio": ("stop", "plug"),
        **LINK,
    },
}
WATCHED_S = 3.0
KILLED = "robot server killed"


def options(kind: str) -> dict[str, Any]:
    return {
        "arm": kind,
        "arm_options": {"host": HOST},
        "axes": {
            joint: {"low": home - 40, "high": home + 40, "speed": 30, "lag": 15, "home": home}
            for joint, home in JOINTS[kind].items()
        },
        "setpoint_hz": 100,
        "horizon": 1_000_000,
        "release_s": 1.0,
    }


def motion(emulated: Emulated, since_s: float) -> dict[str, float | None]:
    """After how many ms all joints stood, None if one moves on, and how far the one that moved most had gone since."""
    rows = np.array(emulated.history(since_s))
    stood = stands_after_ms(rows, since_s)
    moved = float(np.abs(rows[:, 1:] - rows[0, 1:]).max())
    return {"stood_ms": None if stood is None else round(stood), "moved_deg": round(moved, 2)}


def swinging(driver: Driver) -> float:
    """time.monotonic() when all joints move fastest: they swing by its sine, 4 s there and back."""
    driver.wait("step", time.monotonic())
    time.sleep(2.0 + (1.0 - time.monotonic()) % 2.0)
    return time.monotonic()


def measure(kind: str, emulated: Emulated, driver: Driver, name: str) -> dict[str, Any]:
    """One fault, as a row of the table."""
    fault, mend = FAULTS[kind][name]
    since_s = swinging(driver)
    lost = driver.lost
    emulated.make(fault)
    time.sleep(WATCHED_S)
    reported = driver.first("fault", since_s)
    row = {
        "fault": name,
        "lost_replies": driver.lost - lost,
        **motion(emulated, since_s),
        "reported_ms": round(1000 * (reported["time_s"] - since_s)) if reported else None,
        "operator": reported["line"] if reported else "",
    }
    emulated.make(mend)
    return {**row, "resumes": driver.resumes()} if reported else row


def killed(emulated: Emulated, driver: Driver) -> dict[str, Any]:
    """kill -9 of the robot server; whether the controller's program has ended after `release_s`."""
    since_s = swinging(driver)
    driver.kill()
    time.sleep(WATCHED_S)
    return {"fault": KILLED, **motion(emulated, since_s), "controller": emulated.report()}


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("arm", choices=sorted(JOINTS))
    made.add_argument("--only", metavar="NAME", help="of the table")
    flags = made.parse_args()
    kind = flags.arm
    names = [name for name in [*FAULTS[kind], KILLED] if flags.only in (None, name)]
    if not names:
        made.error(f"--only: one of {', '.join([*FAULTS[kind], KILLED])}")
    rows, good = [], True
    with Emulated(kind, HOST) as emulated:
        driver = Driver(sys.executable, "real", options(kind))
        try:
            for name in names:
                row = killed(emulated, driver) if name == KILLED else measure(kind, emulated, driver, name)
                rows.append(row)
                print(row, flush=True)
                if row.get("operator") or name == KILLED:
                    good &= row["stood_ms"] is not None and row.get("resumes", True)
        finally:
            driver.kill()
            time.sleep(2.0)  # its arm's process disconnects after release_s
        if unknown := emulated.report()["unknown"]:
            print(f"the emulator does not know {sorted(set(unknown))}", flush=True)
            good = False
    if flags.json:
        found = {"machine": machine(), "arm": kind, "faults": rows}
        Path(flags.json).write_text(json.dumps(found, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
