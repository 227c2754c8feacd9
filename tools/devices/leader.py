"""Device `lerobot:<type>`: a leader arm, or whatever else LeRobot calls a teleoperator, by its public API.

What it says is where the follower's axes are to go; the arm's own limits decide how fast. In LeRobot's own environment.
A lost reply is bridged as an arm's is: the last place stands for COAST_S, and the follower stops there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import Any

from agent.spec import UserError
from envs.real.arm import described
from envs.real.lerobot_bus import asked, not_connected, wait_for_replies
from envs.real.lost_replies import COAST_S, CONNECT_TRIES, Bridge, LostReplies
from robot_server.command import Command, Device
from tools.devices.terminal import Marks, terminal_if_any
from tools.recording.config import CollectConfig

log = logging.getLogger(__name__)


def connect(leader: Any) -> None:
    """Connect LeRobot's teleoperator; a reply that is lost meanwhile is no reason to give up. Raises OSError."""
    wait_for_replies(getattr(leader, "bus", None))
    first: Exception | None = None  # later ones may be of the retry's own making
    for _ in range(CONNECT_TRIES):
        try:
            leader.connect(calibrate=False)
            return
        except Exception as error:
            first = first or error
            with contextlib.suppress(Exception):
                leader.disconnect()
    assert first
    raise ConnectionError(not_connected(leader, first)) from None


class Leader(Device):
    """Connects the teleoperator `kind` with the options collect.leader. Raises UserError, one line."""

    def __init__(self, kind: str, config: CollectConfig) -> None:
        from envs.real.arm_lerobot import SUFFIX, configuration, load

        self._kind, self._suffix = kind, SUFFIX
        try:
            package = load("teleoperators")
            self.leader = package.make_teleoperator_from_config(
                configuration(package.TeleoperatorConfig, "teleoperator", kind, config.leader)
            )
            connect(self.leader)
        except Exception as error:
            raise UserError(f"device 'lerobot:{kind}': {described(error)}") from None
        self._terminal, self._marks, self._enabled = terminal_if_any(), Marks(), False
        self._last: dict[str, float] = {}
        self._measured_s = -math.inf
        self._bridge, self._report = Bridge(COAST_S), LostReplies("the leader's bus")
        self.keys = f"lerobot:{kind}: the arm follows it\n  e           from now on / not any more\n{Marks.keys}"

    def read(self) -> Command:
        keys = self._terminal.keys() if self._terminal else []
        self._enabled ^= bool(keys.count("e") % 2)
        place = self._place()
        return Command(enabled=self._enabled, events=self._marks.events(keys), place=place if self._enabled else None)

    def _place(self) -> dict[str, float]:
        try:
            self._last = self._bridge.call(self._measured, self._remembered)
        except Exception as error:
            raise UserError(f"device 'lerobot:{self._kind}': {described(error)}") from None
        self._report.update(self._bridge.lost)
        return self._last

    def _measured(self) -> dict[str, float]:
        told = asked(f"lerobot:{self._kind}", self.leader, self.leader.get_action)
        place = {key.removesuffix(self._suffix): float(value) for key, value in told.items()}
        if not all(map(math.isfinite, place.values())):  # of a gripper, too: it would open
            raise ConnectionError(f"it reports {place}")
        self._measured_s = time.monotonic()
        return place

    def _remembered(self) -> dict[str, float] | None:
        return self._last if time.monotonic() - self._measured_s <= COAST_S else None

    def reset(self, gripper: float = -1.0) -> None:
        self._marks.reset()

    def close(self) -> None:
        if self._terminal:
            self._terminal.close()
        try:
            self.leader.disconnect()
        except Exception as error:  # it has gone, perhaps: that has been reported
            log.warning("lerobot:%s: not disconnected: %s", self._kind, described(error))
