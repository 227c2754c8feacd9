"""A scripted expert for robosuite's Door: grips the handle from above, presses it down, and pulls the door open."""

from __future__ import annotations

import numpy as np

from envs.scripted import CLOSE, OPEN, PickExpert

ALONG_M, OUT_M = 0.12, 0.10  # where the hand takes the handle: from its axis along it, and from the latch's plane
CLEAR_M = 0.02  # how far in front of the handle's centre, so that the hand stays clear of the door
FRONT_M = 0.08  # how far in front of the handle the hand rises
FREE_RAD = 1.2  # from here on the latch lets the door open
GRIPPED_M = 0.02  # the handle is 3 cm thick: fingers closer together than this hold nothing
REACH_M = 0.08


class DoorExpert(PickExpert):
    hover_m = 0.12
    misses = ("beside", "short")

    def begin(self) -> None:
        super().begin()
        if self.failure == "beside":
            self.offset = FRONT_M * self._outwards()

    def object_position(self) -> np.ndarray:
        """(3,) between the fingers when they close on the handle, in the world's frame."""
        rotation, latch = self._latch()
        return np.asarray(latch + rotation @ [ALONG_M, -OUT_M, 0] + CLEAR_M * self._outwards())

    def holds(self, hand: np.ndarray) -> bool:
        near = np.linalg.norm(self.object_position() - hand) < REACH_M
        return bool(near and np.abs(self.env.fingers).sum() > GRIPPED_M)

    def carry(self, hand: np.ndarray) -> tuple[np.ndarray, float]:
        if self.failing and (self.failure != "drop" or self.waited > self.drop_after):
            return hand + [0, 0, 0.05], OPEN if self.failure == "drop" else CLOSE
        inner, data = self.env.robosuite, self.env.data
        if abs(data.qpos[inner.handle_qpos_addr]) < FREE_RAD and data.qpos[inner.hinge_qpos_addr] < 0.05:
            place = self.object_position()
            return np.array([place[0], place[1], hand[2] - 0.05]), CLOSE
        return hand + 0.05 * self._outwards(), CLOSE

    def towards(self, target: np.ndarray, hand: np.ndarray, grip: float) -> np.ndarray:
        if self.phase == "above" and hand[2] < self.start[2] + self.hover_m / 2:
            target = target + FRONT_M * self._outwards()
        return super().towards(target, hand, grip)

    def _latch(self) -> tuple[np.ndarray, np.ndarray]:
        """Its rotation (3, 3): first axis along the handle, second into the door. And its place (3,)."""
        body = self.env.robosuite.object_body_ids["latch"]
        return self.env.data.xmat[body].reshape(3, 3), self.env.data.xpos[body]

    def _outwards(self) -> np.ndarray:
        """(3,) of length 1, out of the door."""
        return -self._latch()[0][:, 1]
