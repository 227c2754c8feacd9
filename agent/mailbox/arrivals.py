"""Episodes that have arrived and are not on disk yet: robots take turns, so that none holds up the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from agent.spec import Episode


class Arrivals:
    """One queue for each robot."""

    def __init__(self) -> None:
        self._by_robot: dict[str, deque[Episode]] = {}  # whose turn it is comes first

    def __len__(self) -> int:
        return sum(map(len, self._by_robot.values()))

    def add(self, episodes: Iterable[Episode]) -> None:
        for episode in episodes:
            self._by_robot.setdefault(episode.meta["robot"], deque()).append(episode)

    def put_back(self, episode: Episode) -> None:
        """One that was popped is `next` again."""
        robot = episode.meta["robot"]
        queue = self._by_robot.pop(robot, deque())
        queue.appendleft(episode)
        self._by_robot = {robot: queue, **self._by_robot}

    @property
    def next(self) -> Episode:
        """The oldest one of the robot whose turn it is; it stays here until `pop`."""
        return next(iter(self._by_robot.values()))[0]

    def pop(self) -> None:
        """Remove `next`; the turn passes on."""
        robot, queue = next(iter(self._by_robot.items()))
        del self._by_robot[robot]
        queue.popleft()
        if queue:
            self._by_robot[robot] = queue
