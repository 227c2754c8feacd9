"""Actions that move the hand of a joint arm: each is a step of the hand's pose, and becomes targets of the joints.

The hand's target moves, not its measured place, and it is remembered: what the safety filter cuts off a step is made up
for by the next ones, so that nothing drifts. What cannot be reached is dropped at once: a hand that is driven against
its boundary stops there, and comes back with the first step that leads back.

- Joints end at the axes' `low` and `high`, and turn at most as fast as the filter allows. Where not all can be had,
  what the action does not ask to change is kept first.
- The hand comes no nearer to a singularity than CLEAREST, but slides along it. So the joints stay small and steady, and
  the arm never flips: the solution of each step is the one next to the joints that were commanded last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agent.options import build, nearest, option
from envs.real.actions import AxisActions
from envs.real.kinematics import Kinematics, Pose
from envs.real.options import Axis, RealOptions, limits_of

# m by rad of all joints together: what the hand can still be moved at least. An arm that is stretched out has 0.
CLEAREST = 0.01
KEPT = 10.0  # how much more than a number that is fully asked for one weighs that the action leaves alone
WIDEST = 4 * np.pi  # rad: no joint has such a range
RADIANS = {"degrees": np.pi / 180, "rad": 1.0}


@dataclass
class HandOptions:
    """`env.hand`."""

    description: str = option("", "the arm: so101 (also the SO-100), or a URDF or MJCF file; its meshes are not needed")
    frame: str = option("", "the hand, a link, body or site of it; empty: 'hand'")
    speed: float = option(0.1, "what an action of 1 asks for, m a second", above=0)
    rotation: list[str] = option(
        [], "what actions turn: [rx, ry, rz] about the base's axes with six joints, else of roll and pitch"
    )
    rotation_speed: float = option(0.5, "what an action of 1 asks for, rad a second", above=0)
    units: Literal["degrees", "rad"] = option("degrees", "of the arm's joints")
    joints: dict[str, str] = option({}, "axis: its joint in the description, where that has another name")
    zero: dict[str, float] = option({}, "axis: where it is when the description's joint is at 0, in the arm's units")
    reversed: list[str] = option([], "axes that turn the other way than the description's joints")
    low: list[float] = option([], "x y z that the hand's target stays above, m in the base's frame; empty: no limit")
    high: list[float] = option([], "x y z that it stays below")


class Hand:
    """The kinematics, and how the arm's own axes are its joints. axes: their names, in the joints' order.

    Joints are rad here, and in the kinematics.
    """

    def __init__(self, options: HandOptions, named: Mapping[str, Axis], period_s: float) -> None:
        self.options = options
        if not options.description:
            raise ValueError("hand: description: none; so101, or a URDF or MJCF file of the arm")
        self.kinematics = Kinematics(options.description, options.frame)
        self.axes = [self._axis_of(joint, named) for joint in self.kinematics.joints]
        for key in (*options.joints, *options.zero, *options.reversed):
            if key not in self.axes:
                raise ValueError(
                    f"hand: '{key}' is none of its joints{nearest(key, self.axes)}: {', '.join(self.axes)}"
                )
        sign = np.array([-1.0 if axis in options.reversed else 1.0 for axis in self.axes])
        self._rad = sign * RADIANS[options.units]
        self._zero = np.array([options.zero.get(axis, 0.0) for axis in self.axes])
        self._limits, self._period_s = limits_of([named[axis] for axis in self.axes], period_s), period_s
        for axis, span in zip(self.axes, (self._limits.high - self._limits.low) * abs(self._rad), strict=True):
            if span > WIDEST:
                raise ValueError(
                    f"axes: '{axis}': a range of {span:.0f} rad; hand: units: {options.units}, is that so?"
                )
        self._check()

    def rad(self, values: np.ndarray) -> np.ndarray:
        """Of the arm's own (..., k)."""
        return np.asarray((values - self._zero) * self._rad)

    def units(self, joints: np.ndarray) -> np.ndarray:
        """The inverse of `rad`."""
        return np.asarray(joints / self._rad + self._zero)

    def reach(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), (k,) each: where the safety filter lets `joints` go in one step."""
        ends = self.rad(np.stack(self._limits.reach(self.units(joints), self._period_s)))
        return ends.min(axis=0), ends.max(axis=0)

    def _axis_of(self, joint: str, named: Mapping[str, Axis]) -> str:
        names = {theirs: ours for ours, theirs in self.options.joints.items()}
        axis = names.get(joint, joint)
        if axis not in named:
            raise ValueError(
                f"hand: the joint '{joint}' of its description is none of axes{nearest(axis, named)}: "
                f"{', '.join(named)}; hand: joints: {{axis: {joint}}} says which one it is"
            )
        if named[axis].gripper:
            raise ValueError(f"hand: the joint '{joint}' is the gripper: frame: a link before it")
        return axis

    def _check(self) -> None:
        options, turns = self.options, self.kinematics.turns
        asked = tuple(options.rotation)
        whole = turns if self.kinematics.free else tuple(turn for turn in turns if turn in asked)
        if asked and (set(asked) != set(whole) or len(asked) != len(whole)):
            all_of = "" if self.kinematics.free else "some of "
            raise ValueError(f"hand: rotation is {list(asked)}; of this arm it must be {all_of}{list(turns)}, or []")
        for key in ("low", "high"):
            if len(getattr(options, key)) not in (0, 3):
                raise ValueError(f"hand: {key} is {getattr(options, key)}; it must be x, y and z")
        if (self.workspace[0] > self.workspace[1]).any():
            raise ValueError(f"hand: low {options.low} is above high {options.high}")

    @property
    def workspace(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) float64 (3,) each, m."""
        low, high = self.options.low or [-np.inf] * 3, self.options.high or [np.inf] * 3
        return np.array(low, np.float64), np.array(high, np.float64)


def read_hand(options: RealOptions, named: Mapping[str, Axis]) -> Hand | None:
    """What `options` say of the hand; None: actions move each axis. Raises ValueError, one line."""
    if not options.hand:
        return None
    return Hand(build(HandOptions, options.hand, "hand: "), named, 1 / options.control_hz)


class HandActions:
    """An envs.real.actions.Actions: steps of the hand in the base's frame, then those axes that are not its joints."""

    def __init__(self, hand: Hand, named: Mapping[str, Axis], axes: Sequence[str], period_s: float) -> None:
        self._hand, self._kinematics = hand, hand.kinematics
        self._places = [axes.index(axis) for axis in hand.axes]
        turns = self._kinematics.turns
        turned = [turn for turn in turns if turn in hand.options.rotation]
        self.names = ["x", "y", "z", *turned]
        self._moves = [0, 1, 2, *(3 + turns.index(turn) for turn in turned)]
        speeds = [hand.options.speed] * 3 + [hand.options.rotation_speed] * len(turns)
        self._scale = np.array(speeds) * period_s
        others = {name: axis for name, axis in named.items() if name not in hand.axes}
        self._others = AxisActions(others, axes, period_s)
        self._goal = self._kinematics.pose(np.zeros(len(hand.axes)))
        more, reach = self._others.meaning, self._scale[self._moves].tolist()
        self.meaning: dict[str, Any] = {
            "quantity": "end-effector pose" if turned else "end-effector position",
            "frame": "the robot's base",
            "units": "m and rad" if turned else "m",
            "names": [*self.names, *more["names"]],
            "low": [-value for value in reach] + more["low"],
            "high": reach + more["high"],
        }

    @property
    def goal(self) -> np.ndarray:
        """float64 (3,), m in the base's frame: where the hand is to be."""
        return np.array(self._goal.position)

    def rest(self, target: np.ndarray, anew: bool) -> None:
        self._goal = self._kinematics.pose(self._joints(target))
        self._others.rest(target, anew)

    def requested(self, action: np.ndarray, target: np.ndarray) -> np.ndarray:
        count = len(self._moves)
        requested = self._others.requested(action[count:], target)
        if np.isfinite(action).all():
            motion = np.zeros(len(self._scale))
            motion[self._moves] = np.clip(action[:count], -1, 1) * self._scale[self._moves]
            requested[self._places] = self._hand.units(self._plan(self._joints(target), motion))
        else:
            requested[self._places] = np.nan
        return requested

    def executed(self, begun: np.ndarray, target: np.ndarray) -> np.ndarray:
        there, here = (self._kinematics.pose(self._joints(at)) for at in (target, begun))
        moved = (self._kinematics.motion(there, here) / self._scale)[self._moves]
        return np.append(np.clip(moved, -1, 1), self._others.executed(begun, target)).astype(np.float32)

    def towards(self, position: Mapping[str, float], target: np.ndarray) -> np.ndarray:
        """position: of the hand (x y z, and the angles of an arm that does not turn freely), or of its joints."""
        goal = self._goal
        if joints := [axis for axis in self._hand.axes if axis in position]:
            there = target.copy()
            for axis in joints:
                there[self._places[self._hand.axes.index(axis)]] = position[axis]
            goal = self._kinematics.pose(self._joints(there))
        motion = self._kinematics.motion(goal, self._goal)
        here = [*self._goal.position, *([] if self._kinematics.free else self._goal.turn)]
        for number, (name, at) in enumerate(zip(("x", "y", "z", *self._kinematics.turns), here, strict=False)):
            if name in position:
                motion[number] = position[name] - at
        wanted = np.clip((motion / self._scale)[self._moves], -1, 1)
        return np.append(wanted, self._others.towards(position, target))

    def states(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """ee_pos (3,): the hand in the base's frame, m. ee_rot (6,): the first two columns of its rotation matrix."""
        joints = self._joints(position)
        place, axes = self._kinematics.pose(joints).position, self._kinematics.axes(joints)
        return {"ee_pos": place.astype(np.float32), "ee_rot": axes[:, :2].T.ravel().astype(np.float32)}

    def _joints(self, target: np.ndarray) -> np.ndarray:
        return self._hand.rad(target[self._places])

    def _plan(self, joints: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """The joints, rad, for the hand's target moved by `motion`, or by less of it."""
        for less in self._less_and_less(joints, motion):
            found = self._found(joints, less)
            if self._clear(found, joints):
                return self._kept(found, less)
        return joints

    def _kept(self, found: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """`found`, with the hand's target moved by what of `motion` that reaches."""
        goal = self._moved(motion)
        left = self._kinematics.motion(goal, self._kinematics.pose(found))
        dropped = np.where(left * motion > 0, np.sign(left) * np.minimum(abs(left), abs(motion)), 0.0)
        self._goal = self._kinematics.moved(goal, -dropped)
        return found

    def _found(self, joints: np.ndarray, motion: np.ndarray) -> np.ndarray:
        low, high = self._hand.reach(joints)
        weights = 1 / (1 / KEPT + abs(motion) / self._scale)
        return self._kinematics.nearest(self._moved(motion), joints, low, high, weights)

    def _moved(self, motion: np.ndarray) -> Pose:
        """The hand's target moved, within its workspace; from outside of that it only comes back."""
        low, high = self._hand.workspace
        here, goal = self._goal.position, self._kinematics.moved(self._goal, motion)
        return goal._replace(position=np.clip(goal.position, np.minimum(low, here), np.maximum(high, here)))

    def _clear(self, found: np.ndarray, joints: np.ndarray) -> bool:
        """Whether `found` is far enough from singularities, or no nearer than `joints`."""
        clear = self._kinematics.clearance(found)
        return clear >= CLEAREST or clear >= self._kinematics.clearance(joints)

    def _less_and_less(self, joints: np.ndarray, motion: np.ndarray) -> Iterator[np.ndarray]:
        """`motion`, then what of it does not lead into the nearest singularity, then none."""
        yield motion
        weighted = self._kinematics.weights * motion
        weakest = np.linalg.svd(self._kinematics.weights[:, None] * self._kinematics.jacobian(joints))[0][:, -1]
        asked = abs(weighted) * weakest  # nothing comes in that was not asked for
        share = (weakest @ weighted) / max(float(weakest @ asked), np.finfo(float).tiny)
        yield (weighted - asked * share) / self._kinematics.weights
        yield np.zeros_like(motion)
