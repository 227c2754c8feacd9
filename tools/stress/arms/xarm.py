"""A UFACTORY controller of an xArm 6 (firmware 2.5), as far as xarm-python-sdk 1.18 speaks with it.

  python -m tools.stress.arms.xarm --host 127.0.0.31

Control port 502 (its private protocol: transaction, protocol, length, function, state, data) and the report at 5 Hz on
port 30001. In servo mode a target is followed at once; one that asks for more than 180 degrees a second is error C24.
C31 (collision), C60 (speed of the hand) and the others are made: `error 31`. Port 502 needs root, or
`sysctl net.ipv4.ip_unprivileged_port_start=502`. Faults and `report`: a line each on standard input.
"""

from __future__ import annotations

import asyncio
import math
import struct
import time
from typing import Any

from tools.stress.arms.controller import Controller, Handler, Joints, main

VERSION = b"6,6,XI130406D10L02,AC130401D10L02,v2.5.0"
HOME = [0.0, -45.0, -45.0, 0.0, 90.0, 0.0]  # degrees
MAX_SPEED = math.radians(180.0)  # a second
SERVO_PERIOD_S = 1 / 250
MOVING, READY, STOPPED = 1, 2, 4  # states
ENABLED = 0x7F  # all motors
REPORT_S = 0.2
FUNCTIONS = {  # of the private protocol, those that the SDK uses for the arm's class
    1: "version",
    11: "enable",
    12: "set_state",
    13: "state",
    14: "queued",
    15: "errors",
    16: "clear_error",
    17: "clear_warning",
    19: "set_mode",
    29: "servo",
    41: "pose",
    42: "angles",
}


class XArmController(Controller):
    hz = 250.0

    def __init__(self, host: str) -> None:
        super().__init__(host, Joints([*map(math.radians, HOME), 0.0], MAX_SPEED, lag_s=0.02))
        self.error, self.state, self.mode, self.enabled = 0, STOPPED, 0, 0
        self.pressed = False  # the emergency stop: its error can't be cleared
        self._commanded_s = 0.0
        self._lost = 0
        self.faults |= {
            "error": self._fail,
            "emergency_stop": self._press,
            "stop": self._stop,
            "lose": self._lose,
            "mend": lambda: setattr(self, "pressed", False),
            "clear": lambda: setattr(self, "error", 0),  # in UFACTORY Studio
        }

    def servers(self) -> dict[int, Handler]:
        return {502: self._control, 30001: self._report}

    def report(self) -> dict[str, Any]:
        more = {"error": self.error, "state": self.state, "mode": self.mode, "enabled": self.enabled}
        return {**super().report(), **more}

    def _stop(self) -> None:
        self.state = STOPPED
        self.joints.stop()

    def _fail(self, code: str) -> None:
        self._stop()
        self.error = int(code)

    def _lose(self, count: str) -> None:
        self._lost = int(count)  # answers

    def _press(self) -> None:
        self._fail("1")
        self.pressed, self.enabled = True, 0

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            transaction, protocol, size, function = struct.unpack(">HHHB", await reader.readexactly(7))
            body = await reader.readexactly(size - 1)
            await self.link()
            data = self._answer(function, body)
            if self._lost:
                self._lost -= 1
                continue
            ready = self.state != STOPPED and self.enabled == ENABLED
            state = (0 if ready else 0x10) | (0x40 if self.error else 0) | (0x08 if data is None else 0)
            answer = bytes([function, state]) + (data or b"")
            writer.write(struct.pack(">HHH", transaction, protocol, len(answer)) + answer)

    def _answer(self, function: int, body: bytes) -> bytes | None:
        """The data of the answer; None to what the emulator does not know."""
        name = FUNCTIONS.get(function)
        if name is None:
            self.unknown.append(f"function {function}")
            return None
        if name == "version":
            return VERSION.ljust(41, b"\0")
        if name == "enable":
            self.enabled = ENABLED if body[1] and not self.pressed else 0
        elif name == "set_state":
            self._set_state(body[0])
        elif name == "clear_error" and not self.pressed:
            self.error = 0
        elif name == "set_mode":
            self.mode, self.state = body[0], STOPPED
        elif name == "servo":
            self._servo([*struct.unpack("<10f", body)[:7]])
        answers = {
            "state": bytes([self.state]),
            "queued": b"\0\0",
            "errors": bytes([self.error, 0]),
            "pose": struct.pack("<6f", *[0.0] * 6),
            "angles": struct.pack("<7f", *self.joints.position),
        }
        return answers.get(name, b"")

    def _set_state(self, wanted: int) -> None:
        if wanted == STOPPED:
            self._stop()
        elif not self.error and self.enabled == ENABLED:
            self.state = READY

    def _servo(self, target: list[float]) -> None:
        if self.error or self.state == STOPPED or self.mode != 1:
            return
        now_s = time.monotonic()
        period_s = max(SERVO_PERIOD_S, min(now_s - self._commanded_s, 0.1))
        if max(abs(to - at) for to, at in zip(target, self.joints.target, strict=True)) > MAX_SPEED * period_s:
            self._fail("24")
            return
        self.joints.target, self._commanded_s = target, now_s

    async def _report(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.link()
            body = struct.pack(">BH", self.state | self.mode << 4, 0)
            body += struct.pack("<20f", *self.joints.position, *[0.0] * 13)
            body += bytes([self.enabled, self.enabled, self.error, 0])
            body += struct.pack("<10f", *[0.0] * 10) + bytes([3, 3]) + struct.pack("<3f", 0, 0, -1)
            writer.write(struct.pack(">I", 4 + len(body)) + body)
            await writer.drain()
            await asyncio.sleep(REPORT_S)


if __name__ == "__main__":
    main(XArmController, __doc__ or "")
