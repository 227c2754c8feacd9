"""Second robots: each takes a robot's name while that one is cut off, works, and leaves before or after it is back."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tools.stress.processes import RobotSide

TOGETHER_S = 8.0  # longest time that the second one stays when the first has its connection again
ALONE_S = 4.0  # longest time that the second one works without the first
WAIT_S = 60.0  # for the second one to work: it may be refused until the first one's connection is known to be lost
PAUSE_S = 6.0  # longest time between two


class Namesakes:
    """count: second robots that are to work under a robot's name. robots: the first ones; `sides`: a second of each.

    joined: how often one has worked.
    """

    def __init__(self, count: int, root: Path, robots: list[RobotSide], port: int, rng: random.Random) -> None:
        self.left, self.rng = count, rng
        self.sides = {
            one.name: RobotSide(root, len(robots) + one.number, port, one.hz, rng, one.robot) for one in robots
        }
        self.joined = 0
        self.first: RobotSide | None = None  # that is cut off, or shares its name
        self.second: RobotSide | None = None
        self._next_s = time.monotonic() + rng.uniform(0, PAUSE_S)
        self._steps: list[str] = []

    @property
    def over(self) -> bool:
        return not (self.left or self.first)

    def turn(self, robots: list[RobotSide]) -> None:
        """Go on with what is due. robots: those whose connection nobody else plays with."""
        now = time.monotonic()
        if self.first is None:
            ready = [robot for robot in robots if robot.alive and robot.working()]
            if self.left and now > self._next_s and ready:
                self._begin(self.rng.choice(ready))
            return
        assert self.second is not None
        if self._steps[0] == "join":
            if not self.second.working() and now < self._next_s and self.second.alive:
                return
            self.joined += self.second.working()
            self.left -= self.second.working()
            self._then(ALONE_S)
        elif now > self._next_s:
            if self._steps[0] == "back":
                self.first.proxy.become("pass")
            elif self.second.alive and self.rng.random() < 0.5:
                self.second.kill()
            elif self.second.alive:
                self.second.stop()
                self.second.finish()
            self._then(TOGETHER_S)

    def _begin(self, first: RobotSide) -> None:
        self.first, self.second = first, self.sides[first.name]
        first.proxy.become(self.rng.choice(("drop", "stall")))
        self.second.start()
        self._steps = ["join", *self.rng.choice((("back", "leave"), ("leave", "back")))]
        self._next_s = time.monotonic() + WAIT_S

    def _then(self, longest_s: float) -> None:
        del self._steps[0]
        self._next_s = time.monotonic() + self.rng.uniform(0, longest_s)
        if not self._steps:
            self.first = self.second = None
