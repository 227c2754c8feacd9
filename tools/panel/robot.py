"""The robot server as the operator's page sees it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import zmq.asyncio

from agent.wire.untrusted import WireError
from robot_server.control_address import AUTO, bound, running
from robot_server.control_client import Operator, answer, question
from robot_server.history import History
from tools.common.video import jpeg

FRAME_S = 0.05  # between two looks at the robot, however many browsers watch
SEND_S = 0.5
SILENT_S = 1.0  # a robot server that does not answer for so long is away


async def deliver(operator: Operator, frame: bytes) -> bool:
    """Whether it is on its way to a robot server: for SEND_S there was none, or it took nothing."""
    operator.refresh()
    operator.socket.sndtimeo = int(1000 * SEND_S)
    try:
        await operator.socket.send(frame)
    except zmq.Again:
        return False
    return True


class Robot:
    """What the panel knows of the robot server, asked once for all browsers.

    offline: success rate of the offline policy, if it is known. recorded: there is a page of recorded episodes.
    history: as the robot server has it; changed: whenever something in it is new. heard: it has answered once.
    """

    def __init__(self, address: str, offline: float | None = None) -> None:
        self.address, self.offline, self.recorded = address, offline, False
        self.context = zmq.asyncio.Context()
        self.state: dict[str, Any] = {}
        self.vectors: dict[str, list[float]] = {}
        self.images: dict[str, bytes] = {}  # JPEG
        self.number = -1
        self.watchers = 0
        self.news = asyncio.Condition()
        self.history, self.changed = History("unknown"), asyncio.Condition()
        self._heard_s, self.heard = -SILENT_S, False

    def operator(self) -> Operator:
        return Operator(self.address, self.context)

    @property
    def away(self) -> bool:
        return time.monotonic() - self._heard_s > SILENT_S

    @property
    def why_away(self) -> str:
        others = [name for name in running() if bound(AUTO, name) != self.address]
        more = f"; running here: {', '.join(others)} (tools.panel --robot-name)" if others else ""
        return f"no robot server answers at {self.address}{more}"

    async def watch(self) -> None:
        """Ask for the state, and while somebody watches for the cameras; for ever."""
        operator = self.operator()
        while True:
            began = time.monotonic()
            with contextlib.suppress(WireError):
                await self._look(operator)
            await asyncio.sleep(max(0.005, FRAME_S - (time.monotonic() - began)))

    async def _look(self, operator: Operator) -> None:
        watched = {"kind": "frames", "have": self.number} if self.watchers else {"kind": "state"}
        told = await self._ask(operator, **watched)
        self.state = told.get("state", {})
        if "observation" in told:
            await self._see(told)
        news = (self.state.get("boot"), self.state.get("news"))
        if self.watchers and self.state and news != (self.history.boot, self.history.number):
            await self._recall(operator)

    async def _see(self, told: dict[str, Any]) -> None:
        images = {name: array for name, array in told["observation"].items() if array.ndim == 3}
        vectors = {name: array for name, array in told["observation"].items() if array.ndim == 1}
        encoded = await asyncio.to_thread(lambda: {name: jpeg(image) for name, image in images.items()})
        async with self.news:
            self.images, self.number = encoded, told["number"]
            self.vectors = {name: [round(float(number), 3) for number in array] for name, array in vectors.items()}
            self.news.notify_all()

    async def _recall(self, operator: Operator) -> None:
        """Ask for the next entries of the history: some now, more at the next look."""
        told = await self._ask(operator, "history", since=self.history.number, boot=self.history.boot)
        if not told:
            return
        async with self.changed:
            self.history.mirror(told)
            self.changed.notify_all()

    async def _ask(self, operator: Operator, kind: str, **more: Any) -> dict[str, Any]:
        asked = time.monotonic_ns()
        if not await deliver(operator, question(kind, id=asked, **more)):
            return {}
        while await operator.socket.poll(int(SILENT_S * 1000)):
            told = answer(await operator.socket.recv_multipart())
            if told.get("id") == asked:  # not a late answer to an earlier question
                self._heard_s, self.heard = time.monotonic(), True
                return told
        return {}
