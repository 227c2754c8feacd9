"""Hand actions of a joint arm: how exact they are, what they cost, and whether hostile ones lead outside of a limit.

  python -m tools.stress.hand [--poses 10000] [--actions 1000000] [--seed 0]
  python -m tools.stress.hand --lerobot FOLDER [--driven 500]

The arm is the SO-101. A reachable pose is that of joints drawn at random from their ranges; the joints found for it
start at others. Each 10,000 hostile actions are of an arm with ranges, speeds and accelerations drawn at random; they
become joint targets and go through the safety filter, as in envs.real.env. Every second arm gets them on time; the
others also at the same instant, or late.

--lerobot: instead LeRobot's own so101_follower is driven, on an emulated servo bus, with the hand of
configs/hardware/so101_hand.yaml: so many actions, five in a random direction and then six that ask for nothing, again
and again. FOLDER is that of tools.stress.bus_faults. Exits with 1 if the arm was held, or a goal was written that is
outside of an axis's range.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from envs.real.bus.bus import in_time
from envs.real.bus.protocol import WRITE
from envs.real.bus.servo import DEGREES, Servo
from envs.real.hand import Hand, HandActions, HandOptions
from envs.real.kinematics import Kinematics
from envs.real.options import Axis, limits_of
from envs.real.safety_filter import Filter
from tools.common.report import Report, parser
from tools.stress.bus_drive import MOVED
from tools.stress.driven import ROOT
from tools.stress.driven_lerobot import ZERO_DEG, Driven, environment
from tools.stress.safety_filter import EACH, PERIOD_S, violations

CONFIG = ROOT / "configs" / "hardware" / "so101_hand.yaml"


class Arm:
    """An SO-101 with ranges and speeds drawn at random, its hand actions and their filter."""

    def __init__(self, rng: np.random.Generator) -> None:
        kinematics = Kinematics("so101")
        middle, half = (
            np.rad2deg(kinematics.high + kinematics.low) / 2,
            np.rad2deg(kinematics.high - kinematics.low) / 2,
        )
        low, high = middle - half * rng.uniform(0.3, 1, 5), middle + half * rng.uniform(0.3, 1, 5)
        speed = rng.uniform(10, 120)
        named = {
            name: Axis(low=float(low[n]), high=float(high[n]), speed=speed, acceleration=speed * rng.uniform(1, 20))
            for n, name in enumerate(kinematics.joints)
        }
        options = HandOptions("so101", speed=rng.uniform(0.02, 0.5), rotation=["roll", "pitch"])
        hand = Hand(options, named, PERIOD_S)
        self.actions = HandActions(hand, named, list(named), PERIOD_S)
        self.limits = limits_of(list(named.values()), PERIOD_S)
        self.filter = Filter(self.limits, PERIOD_S)
        self.rest(rng.uniform(low, high))

    def rest(self, position: np.ndarray) -> None:
        self.filter.rest(position, 0.0)
        self.actions.rest(self.filter.position, True)


def hostile(rng: np.random.Generator, actions: HandActions, filter: Filter) -> Iterator[np.ndarray]:
    """For ever, what becomes of actions that are random, extreme, huge, NaN, tiny, or the same for a long time."""
    size = len(actions.meaning["names"])
    while True:
        kind, times = rng.integers(6), 1
        if kind == 0:
            action = rng.uniform(-1, 1, size)
        elif kind == 1:
            action = rng.choice([-1.0, 0.0, 1.0], size)
        elif kind == 2:
            action = rng.choice([-1e300, 1e300, -np.inf, np.inf, np.nan, 0.0], size)
        elif kind == 3:
            action = rng.normal(0, 1e-9, size)
        elif kind == 4:
            action = np.zeros(size)
        else:
            action, times = rng.choice([-1.0, 0.0, 1.0], size), int(rng.integers(1, 60))
        for _ in range(times):
            yield actions.requested(action, filter.position)


def add_poses(report: Report, poses: int, rng: np.random.Generator) -> None:
    arm = Kinematics("so101")
    off, turned = np.zeros(poses), np.zeros(poses)
    for number in range(poses):
        goal, start = arm.pose(rng.uniform(arm.low, arm.high)), rng.uniform(arm.low, arm.high)
        found, _ = arm.solve(goal, start, arm.low, arm.high, seed=number)
        motion = arm.motion(goal, arm.pose(found))
        off[number], turned[number] = np.linalg.norm(motion[:3]), np.abs(motion[3:]).max()
    report.add(f"FK(IK) of {poses:,} reachable poses: position, median", float(np.median(off)) * 1e9, "nm")
    report.add("position, worst", float(off.max()) * 1e9, "nm", 1000)
    report.add("roll and pitch, worst", float(turned.max()) * 1e9, "nrad", 1000)


class Watched(Servo):
    """lowest, highest: goals that were written while it had torque, degrees."""

    lowest, highest = np.inf, -np.inf

    def answer(self, instruction: int, given: bytes) -> bytes | None:
        body = super().answer(instruction, given)
        if instruction == WRITE and self.torque:
            raw = self.get("goal")
            goal = DEGREES * (-(raw & 0x7FFF) if raw & 0x8000 else raw)
            self.lowest, self.highest = min(self.lowest, goal), max(self.highest, goal)
        return body


def add_driven(report: Report, folder: Path, actions: int) -> bool:
    """Whether no goal was outside. Raises SystemExit when it is held."""
    given = yaml.safe_load(CONFIG.read_text())["env"]
    with Driven(environment(folder.absolute()), "so101_follower", servo=Watched, **given) as driven:
        stood = [driven.wait("stood")]
        while MOVED * len(stood) < actions:
            stood.append(driven.wait("stood", stood[-1]["time_s"] + 0.001))
        off = np.array([event["off_mm"] for event in stood])
        outside = 0.0
        for servo, (name, axis) in zip(driven.bus.servos.values(), given["axes"].items(), strict=True):
            assert isinstance(servo, Watched)
            low, high = (goal_degrees(name, axis[end]) for end in ("low", "high"))
            outside = max(outside, low - servo.lowest, servo.highest - high)
        ways = np.linalg.norm(np.diff([event["place"] for event in stood], axis=0), axis=1)
    report.add("hand actions through LeRobot's driver", MOVED * len(stood), "", actions, "higher")
    report.add("from stand to stand, median", float(np.median(ways)) * 1e3, "mm")
    report.add("off where it was led, median", float(np.median(off)), "mm")
    report.add("off where it was led, worst", float(off.max()), "mm")
    report.add("goals outside of an axis's range, by at most", max(outside, 0.0), "degrees", DEGREES)
    report.add("lost replies", driven.lost, "")
    return outside <= DEGREES


def goal_degrees(joint: str, value: float) -> float:
    """Of a servo, with the calibration of Driven: LeRobot's gripper is in % of a whole turn."""
    return 3.6 * value if joint == "gripper" else ZERO_DEG + value


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--lerobot", type=Path, metavar="FOLDER")
    made.add_argument("--driven", type=int, default=500, metavar="ACTIONS")
    made.add_argument("--poses", type=int, default=10_000)
    made.add_argument("--actions", type=int, default=1_000_000)
    made.add_argument("--seed", type=int, default=0)
    flags = made.parse_args()
    if flags.lerobot:
        in_time()  # the servos answer whatever else runs
        report = Report("hand actions of an SO-101 through LeRobot's driver, on an emulated bus")
        good = add_driven(report, flags.lerobot, flags.driven)
        report.finish(flags.json)
        return 0 if good else 1
    rng = np.random.default_rng(flags.seed)
    arms = -(-flags.actions // EACH)
    report = Report(f"hand actions: {flags.poses:,} poses, {flags.actions:,} hostile actions to {arms} arms")
    if flags.poses:
        add_poses(report, flags.poses, rng)
    outside, refused, took = 0, 0, list[float]()
    for number in range(arms):
        arm, steps = Arm(rng), min(EACH, flags.actions - number * EACH)
        source = timed(hostile(rng, arm.actions, arm.filter), took)
        outside += violations(arm.filter, arm.limits, steps, rng, exact=number % 2 == 0, source=source)
        refused += arm.filter.refused
    report.add("hostile actions: commands outside of any limit", outside, "", 0)
    report.add("hostile actions refused for NaN", refused, "")
    took = took or [np.nan]
    report.add("an action into joint targets, CPU time, median", float(np.median(took)) * 1e3, "ms")
    report.add("an action into joint targets, CPU time, 99.9 %", float(np.quantile(took, 0.999)) * 1e3, "ms")
    report.finish(flags.json)
    return 1 if outside else 0


def timed(source: Iterator[np.ndarray], took: list[float]) -> Iterator[np.ndarray]:
    while True:
        begun_s = time.thread_time()
        request = next(source)
        took.append(time.thread_time() - begun_s)
        yield request


if __name__ == "__main__":
    sys.exit(main())
