"""One open page of the operator, and the robot server's socket behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from agent.wire.untrusted import WireError
from robot_server.command import EVENTS
from robot_server.control_client import Operator, answer, question
from tools.panel.robot import deliver
from tools.panel.robots import Robots

STATE_S = 0.05  # between two states to a browser: what it sends tells which it has seen, and so how old it is
LATE_S = 0.2  # a command, or what it answers to, was under way for too long


class Browser:
    """One open page: what it is sent, and what it asks for."""

    def __init__(self, socket: web.WebSocketResponse, robots: Robots, shown: str) -> None:
        self._robots, self._shown, self._robot = robots, shown, robots.robots[shown]
        self._socket, self._operator = socket, self._robot.operator()
        self._others: dict[str, Operator] = {}  # of the other robots, to stop them
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._refused = ""
        self._late, self._late_s = 0, 0.0
        self.used_s = -math.inf  # when somebody drove or pressed something here
        self._leaving: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        tasks = [asyncio.create_task(each()) for each in (self._tell, self._show, self._recall, self._answers)]
        self._robot.watchers += 1
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT and not await self._take(message.data):
                    await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)
        finally:
            self._robot.watchers -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*self._stopping.values(), return_exceptions=True)  # asked for before the page closed
            for operator in (self._operator, *self._others.values()):
                operator.close()

    def leave(self, why: str) -> None:
        closing = self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=why.encode())
        self._leaving = asyncio.create_task(closing)

    async def _take(self, text: str) -> bool:
        """Pass on what the page asks for; False when it is nothing that the page would."""
        try:
            asked = json.loads(text)
            self.used_s = time.monotonic()
            event, drive = asked.get("event"), asked.get("drive")
            if event == "stop" and asked.get("robot", self._shown) != self._shown:
                self._stop(str(asked["robot"]))
            elif event in EVENTS:
                saw = {name: asked.get(name) for name in ("stop", "pause", "seen_s")}
                if not await deliver(self._operator, question("event", event=event, **saw)):
                    why = "The robot server does not answer."
                    await self._socket.send_json({"ignored": event, "why": why})
            else:
                motion = [float(number) for number in drive["motion"]]
                gripper = None if drive["gripper"] is None else float(drive["gripper"])
                now, seen_s = time.monotonic(), float(drive["seen"])
                age_s = now - seen_s
                if self._robot.away or not 0 <= age_s <= LATE_S:
                    self._late, self._late_s = self._late + 1, age_s
                    return True
                self._refused = ""
                sent_s = min(now, seen_s + STATE_S)  # what it took to come here counts, too
                fields = {"motion": motion, "gripper": gripper, "enabled": drive["enabled"], "sent_s": sent_s}
                message = question("drive", **fields)
                await deliver(self._operator, message)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return False
        return True

    def _stop(self, name: str) -> None:
        """Another robot than the shown one, which does not wait for it.

        Nothing is answered: the state of that robot tells the page whether it has stopped.
        """
        robot = self._robots.robots.get(name)
        if not robot or (name in self._stopping and not self._stopping[name].done()):
            return
        if name not in self._others:
            self._others[name] = robot.operator()
        operator = self._others[name]

        async def stop() -> None:
            while await operator.socket.poll(0):
                await operator.socket.recv_multipart()  # answers to earlier ones
            await deliver(operator, question("event", event="stop"))

        self._stopping[name] = asyncio.create_task(stop())

    async def _tell(self) -> None:
        robot = self._robot
        while True:
            away = robot.why_away if robot.away else ""
            told = {"away": away, "refused": self._refused, "late": self._late, "vectors": robot.vectors}
            told |= {"late_s": self._late_s, "shown": self._shown, "robots": self._robots.summary()}
            state = {} if away else robot.state
            await self._socket.send_json(finite({**told, "seen": time.monotonic(), "state": state}))
            await asyncio.sleep(STATE_S)

    async def _show(self) -> None:
        """Every newest image, as fast as this browser takes them: a slow one sees fewer, and slows nobody."""
        robot, number = self._robot, -1
        while True:
            async with robot.news:
                while robot.number == number:
                    await robot.news.wait()
                number, images = robot.number, robot.images
            for name, image in images.items():
                text = name.encode()[:255]
                await self._socket.send_bytes(bytes([len(text)]) + text + image)

    async def _recall(self) -> None:
        """All that is known of the past, and then whatever is new."""
        robot, boot, number = self._robot, "", 0
        while True:
            history = robot.history
            anew = history.boot != boot
            told = {"anew": anew, "entries": history.entries(0 if anew else number)}
            told |= {
                "learner": history.learner,
                "names": history.names,
                "offline": robot.offline,
                "recorded": robot.recorded,
            }
            boot, number = history.boot, history.number
            await self._socket.send_json(finite({"history": told}))
            async with robot.changed:
                while (history.boot, history.number) == (boot, number):
                    await robot.changed.wait()

    async def _answers(self) -> None:
        while True:
            with contextlib.suppress(WireError):
                told = answer(await self._operator.socket.recv_multipart())
                self._refused = told.get("refused", "")
                if told.keys() & {"done", "ignored"}:
                    words = ("done", "ignored", "why")
                    await self._socket.send_json({word: told[word] for word in words if word in told})


def finite(value: Any) -> Any:
    """`value` for JSON, which has no word for numbers that are not finite: they become null."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
