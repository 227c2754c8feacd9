"""What an arm that LeRobot drives does when its servo bus fails: LeRobot's own drivers, our stack, an emulated bus.

  python -m tools.stress.bus_faults --lerobot FOLDER [--arm so101_follower] [--only NAME] [--soak-s 600] [--json FILE]

FOLDER gets a Python environment with LeRobot, some gigabytes, once; later calls find it there. Each fault is made while
all joints swing. A row has when the arm stood (from the fault on, by the emulator's own record), when the fault was
reported, the line that the operator saw, and whether the arm resumed once it was mended and inspected. --soak-s: at
0.1 % lost packets for so long: how often it was held. Exits with 1 if the arm moved by more than a degree in the first
200 ms after connecting with a stale goal, was not held or parked after kill -9 of the program that drives it, has not
the torque that was configured, or was held in the soak.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.bus.bus import Bus, in_time
from tools.common.report import machine, parser
from tools.stress.driven import stands_after_ms
from tools.stress.driven_lerobot import ARMS, JOINTS, ZERO_DEG, Driven, environment

WATCHED_S = 2.5
HELD_S, PARKED = 3.0, {"shoulder_lift": -20.0, "elbow_flex": 20.0}  # after kill -9: so long, and then there, degrees
PARKED_DEG = 3.0  # so near


def faults() -> dict[str, tuple[Callable[[Bus], object], Callable[[Bus], object], float]]:
    """Name -> (make it, mend it, watched for so long)."""

    def set_(name: str, value: float) -> Callable[[Bus], object]:
        return lambda bus: setattr(bus.faults, name, value)

    def servo(number: int, name: str, value: float) -> Callable[[Bus], object]:
        return lambda bus: setattr(bus.servos[number], name, value)

    return {
        "none": (lambda bus: None, lambda bus: None, 20.0),
        "0.1 % of packets lost": (set_("lost", 1), set_("lost", 0), 20.0),
        "1 % lost": (set_("lost", 10), set_("lost", 0), 20.0),
        "5 % lost": (set_("lost", 50), set_("lost", 0), 20.0),
        "30 % lost": (set_("lost", 300), set_("lost", 0), 20.0),
        "1 % corrupted": (set_("corrupted", 10), set_("corrupted", 0), 20.0),
        "1 % 80 ms late": (set_("late", 10), set_("late", 0), 20.0),
        "one servo dead": (servo(3, "dead", True), servo(3, "dead", False), WATCHED_S),
        "one servo overloaded": (servo(3, "overloaded", True), restarted, WATCHED_S),
        "one servo at 80 C": (servo(2, "temperature", 80.0), cooled, WATCHED_S),
        "one servo at 65 C": (servo(2, "temperature", 65.0), servo(2, "temperature", 30.0), WATCHED_S),
        "one joint blocked": (servo(2, "blocked", True), servo(2, "blocked", False), 5.0),
        "gripper blocked": (servo(6, "blocked", True), servo(6, "blocked", False), 8.0),
        "power lost, and back": (lambda bus: bus.power(False), lambda bus: bus.power(True), WATCHED_S),
        "unplugged, and back": (lambda bus: bus.unplug(), lambda bus: bus.plug(), WATCHED_S),
    }


def restarted(bus: Bus) -> None:
    """A Dynamixel servo goes on after its power was cut; a Feetech one, connected anew, by itself."""
    if bus.protocol.latches:
        bus.power(False)
        bus.power(True)


def cooled(bus: Bus) -> None:
    bus.servos[2].temperature = 30.0
    restarted(bus)


def measure(driven: Driven, name: str) -> dict[str, Any]:
    """One fault, as a row of the table."""
    break_, mend, for_s = faults()[name]
    time.sleep(2.0)
    driven.wait("step", time.monotonic())
    since_s, lost, packets = time.monotonic(), driven.lost, driven.bus.faulty
    break_(driven.bus)
    end_s = since_s + for_s
    while time.monotonic() < end_s:
        time.sleep(0.05)
        if (fault := driven.first("fault", since_s)) is not None:
            end_s = min(end_s, fault["time_s"] + WATCHED_S)
    fault, now_s = driven.first("fault", since_s), time.monotonic()
    stood_ms = stands_after_ms(driven.moved(since_s, now_s), since_s) if fault else None
    row = {
        "fault": name,
        "watched_s": round(now_s - since_s, 1),
        "packets_faulty": driven.bus.faulty - packets,
        "lost_replies": driven.lost - lost,
        "reported_ms": round(1000 * (fault["time_s"] - since_s)) if fault else None,
        "stood_ms": None if stood_ms is None else round(stood_ms),
        "operator": fault["line"] if fault else "",
    }
    if relaxed := [e for e in list(driven.events) if e.get("relaxed") and e["time_s"] >= since_s]:
        row["relaxed_ms"] = round(1000 * (relaxed[0]["time_s"] - since_s))
    mend(driven.bus)
    if fault:
        row["resumes"] = driven.resumes()
    return row


def connects(python: Path, arm: str) -> float:
    """Degrees that it moved in the first 200 ms with torque, its goal registers 60 degrees away."""
    with Driven(python, arm, goal=ZERO_DEG + 60) as driven:
        driven.wait("connected")
        time.sleep(0.3)
        rows = driven.moved(0.0, driven.first("connected")["time_s"] + 0.2)  # type: ignore[index]
        return float(np.abs(rows[:, 1:] - ZERO_DEG).max())


def killed(python: Path, arm: str, park: bool, torque_off: bool) -> dict[str, Any]:
    """kill -9 of the program that drives it, while all joints swing: the arm's process holds it, and then parks it."""
    given: dict[str, Any] = {"release_s": HELD_S, "reset_speed": 1.0}
    with Driven(python, arm, torque_off, **given, park=PARKED if park else {}) as driven:
        driven.wait("step", time.monotonic())
        time.sleep(2.0 + (1.0 - time.monotonic()) % 2.0)  # they swing by its sine, 4 s there and back: fastest now
        driven.wait("step", time.monotonic())
        since_s = time.monotonic()
        driven.kill()
        kept = True  # torque, until it is to be let go
        while time.monotonic() < since_s + HELD_S - 0.2:
            kept &= all(driven.bus.torque().values())
            time.sleep(0.02)
        stood = driven.moved(since_s, time.monotonic())
        stood_ms = stands_after_ms(stood, since_s)
        end_s = since_s + HELD_S + 12.0
        while time.monotonic() < end_s and (not torque_off or any(driven.bus.torque().values())):
            time.sleep(0.02)
        let_go_s, rows = time.monotonic() - since_s, driven.moved(since_s, time.monotonic())
        off = [abs(rows[-1, 1 + JOINTS.index(joint)] - ZERO_DEG - at) for joint, at in PARKED.items()] if park else []
        stays = stands_after_ms(rows, since_s) == stood_ms  # where it was held
        torque = set(driven.bus.torque().values()) == {not torque_off}
        return {
            "fault": f"killed, {'parks' if park else 'no park'}, torque {'off' if torque_off else 'stays'}",
            "stood_ms": None if stood_ms is None else round(stood_ms),
            "let_go_s": round(let_go_s, 1) if torque_off else None,
            "park_off_deg": round(float(max(off)), 2) if park else None,
            "torque_as_configured": torque and kept,
            "good": stood_ms is not None and torque and kept and bool(max(off) < PARKED_DEG if park else stays),
        }


def leaves(python: Path, arm: str, how: str, torque_off: bool) -> bool:
    """Whether torque is as configured on every servo that answers, after it was closed or killed; servo 2 is dead."""
    with Driven(python, arm, torque_off=torque_off) as driven:
        driven.wait("step")
        driven.bus.servos[2].dead = True
        if how == "closed":
            driven.wait("fault")
            driven.tell("close")
            driven.wait("closed")
        else:
            driven.kill()
        time.sleep(6.0)
        return all(on != torque_off for servo, on in driven.bus.torque().items() if servo != 2)


def soak(python: Path, arm: str, for_s: float) -> dict[str, Any]:
    """At 0.1 % lost packets."""
    with Driven(python, arm) as driven:
        driven.wait("step")
        since_s = time.monotonic()
        driven.bus.faults.lost = 1
        while time.monotonic() < since_s + for_s and not driven.first("fault", since_s):
            time.sleep(0.5)
        steps = [e for e in driven.events if e["event"] == "step"]
        return {
            "seconds": round(time.monotonic() - since_s),
            "steps": len(steps),
            "packets_lost": driven.bus.faulty,
            "lost_replies": steps[-1]["lost"],
            "coasted": sum(step["coasted"] for step in steps),
            "holds": driven.count("fault", since_s),
        }


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--lerobot", type=Path, required=True, metavar="FOLDER")
    made.add_argument("--arm", choices=sorted(ARMS), default="so101_follower")
    made.add_argument("--only", choices=[*faults(), "mirrored", "connect", "disconnect", "killed", "soak"])
    made.add_argument("--soak-s", type=float, default=0.0)
    flags = made.parse_args()
    in_time()  # the servos answer whatever else runs
    python = environment(flags.lerobot.absolute())
    found: dict[str, Any] = {"machine": machine(), "arm": flags.arm, "faults": []}
    good = True
    names = [name for name in faults() if flags.only in (None, name)]
    while names:
        with Driven(python, flags.arm) as driven:
            while names:
                found["faults"].append(row := measure(driven, names.pop(0)))
                print(row, flush=True)
                if not row.get("resumes", True):
                    break
    if flags.only in (None, "mirrored"):
        with Driven(python, flags.arm, mirrored=True) as driven:
            row = {**measure(driven, "gripper blocked"), "fault": "gripper blocked, mounted the other way round"}
            found["faults"].append(row)
            print(row, flush=True)
    if flags.only in (None, "connect"):
        found["stale_goal_deg"] = moved = round(connects(python, flags.arm), 2)
        print(f"stale goal: moved {moved} degrees in the first 200 ms", flush=True)
        good &= moved <= 1.0
    if flags.only in (None, "disconnect"):
        for how in ("closed", "killed"):
            for off in (True, False):
                right = leaves(python, flags.arm, how, off)
                found[f"torque_{how}_{'off' if off else 'on'}"] = right
                print(f"{how}, torque {'off' if off else 'on'}: {'as configured' if right else 'WRONG'}", flush=True)
                good &= right
    if flags.only in (None, "killed"):
        for park, off in product((False, True), (True, False)):
            found["faults"].append(row := killed(python, flags.arm, park, off))
            print(row, flush=True)
            good &= row["good"]
    if flags.soak_s:
        found["soak"] = row = soak(python, flags.arm, flags.soak_s)
        print(row, flush=True)
        good &= row["holds"] == 0
    if flags.json:
        Path(flags.json).write_text(json.dumps(found, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
