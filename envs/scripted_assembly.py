"""Scripted experts that put one thing on another: robosuite's Stack and Square."""

from __future__ import annotations

import numpy as np

from envs.scripted import CLOSE, OPEN, PickExpert
from envs.sim import STEP_RAD, rotation_vector

OVER_M = 0.006  # how far from above its place a held thing may be when it goes down
DROP_STEPS = 30  # a thing that is not yet on the other by then was put beside it: the hand lets go


class _PlaceExpert(PickExpert):
    """Picks, carries its thing high over the other one, lowers it, lets go, and moves up."""

    misses = ("beside", "short")
    clear_m = 0.05  # how high above its rest the thing is carried
    drop_m = 0.02  # how high it is above its rest when the hand lets go

    def begin(self) -> None:
        super().begin()
        self.lifted = self.over = False
        self.settled = self.lowered = self.released = 0

    def place(self) -> np.ndarray:
        """(3,) where the thing's centre is to rest, in the world's frame."""
        raise AssertionError("each task has its own")

    def centre(self) -> np.ndarray:
        """(3,) of the thing; object_position is where it is grasped."""
        return self.object_position()

    def turned(self) -> bool:
        """Whether the thing has the rotation that its place asks for."""
        return True

    def holds(self, hand: np.ndarray) -> bool:
        return self.released > 0 or super().holds(hand)

    def carry(self, hand: np.ndarray) -> tuple[np.ndarray, float]:
        place, centre = self.place(), self.centre()
        held = hand - centre  # so that the thing, not the hand, comes to its place
        high = place[2] + self.clear_m
        self.lifted = self.lifted or centre[2] > high - 0.01
        off = float(np.linalg.norm((place - centre)[:2]))
        there = self.lifted and off < OVER_M and self.turned()
        self.settled = self.settled + 1 if there else 0  # a hand that has only just come overshoots
        self.over = self.settled > 2 or (self.over and (off < 2 * OVER_M or centre[2] < high - self.clear_m / 2))
        if self.released:
            self.released += 1
            return hand + [0, 0, 0.05] if self.released > self.steps_to_settle else hand, OPEN
        if not self.lifted:
            return np.array([hand[0], hand[1], high + 0.01]) + [0, 0, held[2]], CLOSE
        if not self.over:
            return np.array([place[0], place[1], high]) + held, CLOSE
        self.lowered += 1
        if centre[2] < place[2] + self.drop_m or self.lowered > DROP_STEPS:
            self.released = 1
        return place + held, CLOSE


class StackExpert(_PlaceExpert):
    """The small cube on the large one."""

    drop_m = 0.004

    def object_position(self) -> np.ndarray:
        return np.array(self.env.data.xpos[self.env.robosuite.cubeA_body_id])

    def place(self) -> np.ndarray:
        inner = self.env.robosuite
        height = inner.cubeA.size[2] + inner.cubeB.size[2]
        return np.asarray(self.env.data.xpos[inner.cubeB_body_id] + [0, 0, height])


class SquareExpert(_PlaceExpert):
    """The square nut, by its handle, on its peg. Needs an environment with action "pose": the nut lies at any angle."""

    clear_m = 0.13  # the peg is 10 cm high
    turned_rad = 0.06

    def __init__(self, env: object, *given: object) -> None:
        super().__init__(env, *given)  # type: ignore[arg-type]
        if self.env.options.action != "pose":
            raise ValueError("the expert for 'Square' turns the hand: env.action must be pose")

    def begin(self) -> None:
        super().begin()
        self.upright = self.env.eef_rotation

    def object_position(self) -> np.ndarray:
        return np.array(self.env.data.site_xpos[self._site("handle_site")])

    def centre(self) -> np.ndarray:
        return np.array(self.env.data.xpos[self._nut])

    def place(self) -> np.ndarray:
        inner = self.env.robosuite
        peg = self.env.data.xpos[inner.peg1_body_id]
        return np.array([peg[0], peg[1], inner.table_offset[2] + 0.03])

    @property
    def _nut(self) -> int:
        inner = self.env.robosuite
        return int(inner.obj_body_id[inner.nuts[0].name])

    def _site(self, name: str) -> int:
        inner = self.env.robosuite
        return int(inner.sim.model.site_name2id(f"{inner.nuts[0].naming_prefix}{name}"))

    def _yaw(self) -> float:
        """The nut's rotation about the vertical axis."""
        x, y = self.env.data.xmat[self._nut].reshape(3, 3)[:2, 0]
        return float(np.arctan2(y, x))

    def turned(self) -> bool:
        return abs(least_turn(-self._yaw(), np.pi / 2)) < self.turned_rad

    def towards(self, target: np.ndarray, hand: np.ndarray, grip: float) -> np.ndarray:
        action = super().towards(target, hand, grip)
        now = self.env.eef_rotation
        if self.phase == "carry" and not self.lifted:
            turn = 0.0
        elif self.phase == "carry":
            turn = least_turn(-self._yaw(), np.pi / 2)
        else:  # the fingers close along their x axis, on the nut's y axis
            x, y = now[:2, 0]
            turn = least_turn(self._yaw() + np.pi / 2 - np.arctan2(y, x), np.pi)
        action[3:6] = np.clip(rotation_vector(about_z(turn) @ self._levelled(now) @ now.T) / STEP_RAD, -1, 1)
        return action

    def _levelled(self, now: np.ndarray) -> np.ndarray:
        """`now`, with its z axis as at the start of the episode."""
        turned = now @ self.upright.T
        return np.asarray(about_z(float(np.arctan2(turned[1, 0], turned[0, 0]))) @ self.upright)


def least_turn(angle: float, period: float) -> float:
    """The turn of least size that is `angle` up to whole periods; radians."""
    return float((angle + period / 2) % period - period / 2)


def about_z(angle: float) -> np.ndarray:
    """(3, 3)"""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
