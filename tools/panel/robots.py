"""The robot servers that one page shows: those that were named, or all that run on this computer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from robot_server.control_address import AUTO, bound, running
from tools.panel.robot import Robot

LOOK_S = 1.0  # between two looks for robot servers that have started
SUMMARY = ("robot", "stopped", "stop", "paused", "driven", "state", "fault")  # of the robots beside the shown one


class Robots:
    """name -> Robot. addresses: theirs by their names; `found`: also every one that starts later on this computer.

    offline: as of Robot. recorded: there is a page of recorded episodes.
    """

    def __init__(self, addresses: Mapping[str, str], found: bool = False, offline: float | None = None) -> None:
        self._found, self._offline, self.recorded = found, offline, False
        self.robots = {name: Robot(address, offline) for name, address in addresses.items()}
        self._watching: dict[str, asyncio.Task[None]] = {}

    def shown(self, name: str) -> str:
        """The robot of a page: the named one, else the first that answers, else the first."""
        answering = [each for each, robot in self.robots.items() if not robot.away]
        return name if name in self.robots else (answering or list(self.robots))[0]

    def summary(self) -> list[dict[str, Any]]:
        """What a page is told of each robot; those that never answered are left out."""
        known = [(name, robot) for name, robot in self.robots.items() if robot.heard]
        return [
            {"name": name, "away": robot.away, **{key: robot.state[key] for key in SUMMARY if key in robot.state}}
            for name, robot in known
        ]

    async def watch(self) -> None:
        """For ever."""
        try:
            while True:
                for name in running() if self._found else []:
                    if name not in self.robots:
                        self.robots[name] = Robot(bound(AUTO, name), self._offline)
                for name in self.robots.keys() - self._watching.keys():
                    self.robots[name].recorded = self.recorded
                    self._watching[name] = asyncio.create_task(self.robots[name].watch())
                await asyncio.sleep(LOOK_S)
        finally:
            for task in self._watching.values():
                task.cancel()
            await asyncio.gather(*self._watching.values(), return_exceptions=True)
            for robot in self.robots.values():
                robot.context.destroy(linger=0)
