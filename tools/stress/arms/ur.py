"""A Universal Robots controller (e-Series, PolyScope 5.12), as far as ur_rtde 1.6 speaks with it.

  python -m tools.stress.arms.ur --host 127.0.0.21

Dashboard (29999), script upload (30003), RTDE (30004: protocol 2, input and output recipes) and a Robotiq gripper's
URCap (63352). The uploaded control script is not interpreted: what its main loop does with the commands that the arm's
class sends is done here, and a script that lacks the lines which that rests on is refused. A protective stop ends the
program, or pauses it (`protective_stop paused`). Faults and `report`: a line each on standard input.
"""

from __future__ import annotations

import asyncio
import math
import struct
import time
from typing import Any

from tools.stress.arms.controller import Controller, Handler, Joints, main

VERSION = (5, 12, 4, 0)
HOME = [0.0, -90.0, 90.0, -90.0, -90.0, 0.0]  # degrees
GRIPPER_SPEED = 450  # of its 255 units, a second: 85 mm at 150 mm/s
MAX_SPEED = math.radians(180.0)  # a second, of each joint (UR5e)
STOPPED, PLAYING, PAUSED = 1, 2, 4  # runtime_state
POWER_OFF, RUNNING = 3, 7  # robot_mode
NORMAL, PROTECTIVE, SAFEGUARD, ROBOT_EMERGENCY, EMERGENCY = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7  # safety_status_bits
SERVOJ, SERVO_STOP, STOP_SCRIPT = 11, 16, 255
READY, DONE = 1, 2  # output_int_register_0
NEEDED = (  # of the script: what the commands below rest on
    "servoj(q, t=dt, lookahead_time=lh_time, gain=g)",
    "cmd = read_input_integer_reg(0)",
    "write_output_integer_reg(0, 1)",
)
FORMATS = {"DOUBLE": "d", "UINT32": "I", "INT32": "i", "VECTOR6D": "6d", "UINT64": "Q", "VECTOR3D": "3d"}
OUTPUTS = {
    "timestamp": "DOUBLE",
    "actual_q": "VECTOR6D",
    "robot_mode": "INT32",
    "runtime_state": "UINT32",
    "robot_status_bits": "UINT32",
    "safety_status_bits": "UINT32",
}


def kind_of(name: str) -> str:
    """RTDE's type of an input or output; NOT_FOUND of one that the emulator does not have."""
    for part, kind in (("put_int_register_", "INT32"), ("put_double_register_", "DOUBLE")):
        if part in name:
            return kind
    return "VECTOR6D" if name == "external_force_torque" else OUTPUTS.get(name, "NOT_FOUND")


class URController(Controller):
    def __init__(self, host: str) -> None:
        super().__init__(host, Joints([math.radians(angle) for angle in HOME], MAX_SPEED, lag_s=0.1))
        self.registers: dict[str, float] = {"output_int_register_0": 0, "input_int_register_0": 0}
        self.runtime, self.mode, self.safety = STOPPED, RUNNING, NORMAL
        self.remote = True
        self.scripts = 0
        self.gripper = {"STA": 3, "FLT": 0, "POS": 3, "PRE": 3, "SPE": 0, "FOR": 0, "GTO": 0, "ACT": 1, "OBJ": 3}
        self.blocked_at = 255  # where it meets a thing
        self._servoing = self._executed = False
        self._protective_s = 0.0
        self._begun_s = time.monotonic()
        self.faults |= {
            "protective_stop": self._protective_stop,
            "emergency_stop": self._emergency_stop,
            "safeguard_stop": self._safeguard_stop,
            "stop_program": self._stop_program,
            "gripper": self._gripper_is,
            "thing": lambda at: setattr(self, "blocked_at", int(at)),
            "local": lambda: setattr(self, "remote", False),
            "mend": self._mend,
            "forget_stop": lambda: setattr(self, "_protective_s", 0.0),  # as if 5 s had passed
        }

    def servers(self) -> dict[int, Handler]:
        return {29999: self._dashboard, 30003: self._script, 30004: self._rtde, 63352: self._robotiq}

    def report(self) -> dict[str, Any]:
        return {
            **super().report(),
            "runtime": self.runtime,
            "scripts": self.scripts,
            "servoing": self._servoing,
            "gripper": self.gripper,
        }

    def _stop_program(self) -> None:
        self.runtime, self._servoing = STOPPED, False
        self.joints.stop()

    def _protective_stop(self, paused: str = "") -> None:
        self._stop_program()
        self.runtime = PAUSED if paused else STOPPED
        self.safety, self._protective_s = PROTECTIVE, time.monotonic()

    def _emergency_stop(self) -> None:
        self._stop_program()
        self.safety, self.mode = ROBOT_EMERGENCY | EMERGENCY, POWER_OFF

    def _safeguard_stop(self) -> None:
        self._stop_program()
        self.safety, self.runtime = SAFEGUARD, PAUSED

    def _mend(self) -> None:
        self.safety, self.mode, self.remote = NORMAL, RUNNING, True

    def tick(self) -> None:
        """One turn of the control script's main loop, and the gripper's."""
        at, to = self.gripper["POS"], min(self.gripper["PRE"], self.blocked_at)
        most = max(1, round(GRIPPER_SPEED / self.hz))
        if self.gripper["GTO"]:
            self.gripper["POS"] = at + max(-most, min(most, to - at))
            self.gripper["OBJ"] = 0 if self.gripper["POS"] != to else 3 if to == self.gripper["PRE"] else 2
        if self.runtime != PLAYING:
            return
        command = int(self.registers["input_int_register_0"])
        if command == SERVOJ:
            self._servoing = True
            self.joints.target = [self.registers[f"input_double_register_{n}"] for n in range(6)]
            self.registers["output_int_register_0"] = READY
        elif command == 0:
            self._executed = False
            self.registers["output_int_register_0"] = READY
        elif command == STOP_SCRIPT:
            self._stop_program()
        elif not self._executed:
            self._executed = True
            if command == SERVO_STOP:
                self._servoing = False
                self.joints.stop()
            else:
                self.unknown.append(f"command {command}")
            self.registers["output_int_register_0"] = DONE

    async def _dashboard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.link()
        writer.write(b"Connected: Universal Robots Dashboard Server\n")
        while line := await reader.readline():
            await self.link()
            writer.write(self._dashboard_answer(line.decode().strip()).encode() + b"\n")

    def _dashboard_answer(self, asked: str) -> str:
        if asked == "PolyscopeVersion":
            return "URSoftware 5.12.4.1101661 (Jun 02 2022)"
        if asked == "get serial number":
            return "20195500001"
        if asked == "is in remote control":
            return str(self.remote).lower()
        if asked == "running":
            return f"Program running: {str(self.runtime == PLAYING).lower()}"
        if asked == "stop":
            self._stop_program()
            return "Stopped"
        if asked == "unlock protective stop":
            if time.monotonic() - self._protective_s < 5.0:
                return (
                    "Cannot unlock protective stop until 5s after occurrence. "
                    "Always inspect cause of protective stop before unlocking"
                )
            self.safety = NORMAL
            return "Protective stop releasing"
        self.unknown.append(f"dashboard: {asked}")
        return f"could not understand: {asked}"

    def _gripper_is(self, name: str, value: str) -> None:
        self.gripper[name] = int(value)

    async def _robotiq(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await self.link()
            word, *given = line.decode().split()
            if word == "GET":
                value = "?" if self.mode != RUNNING else self.gripper.get(given[0], "?")
                writer.write(f"{given[0]} {value}\n".encode())
                continue
            for name, text in zip(given[::2], given[1::2], strict=True):
                self.gripper["PRE" if name == "POS" else name] = int(text)
            writer.write(b"ack")

    async def _script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = b""
        while some := await reader.read(65536):
            text += some
            if text.startswith(b"def ") and text.endswith(b"\nend\n"):
                self._start(text.decode())
                text = b""

    def _start(self, script: str) -> None:
        missing = [line for line in NEEDED if line not in script]
        if missing:
            self.unknown.append(f"a control script without {missing}")
            return
        self.scripts += 1
        if self.safety == NORMAL and self.mode == RUNNING:
            self._stop_program()
            self.registers["output_int_register_0"] = 0
            self.runtime, self._executed = PLAYING, False

    async def _rtde(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inputs: list[list[str]] = []
        outputs: list[str] = []
        sending: asyncio.Task[None] | None = None
        period_s = 1 / self.hz
        try:
            while True:
                size, kind = struct.unpack(">HB", await reader.readexactly(3))
                body = await reader.readexactly(size - 3)
                await self.link()
                if kind == ord("V"):
                    answer = bytes([struct.unpack(">H", body)[0] <= 2])
                elif kind == ord("v"):
                    answer = struct.pack(">4I", *VERSION)
                elif kind == ord("O"):
                    period_s = 1 / struct.unpack(">d", body[:8])[0]
                    outputs = body[8:].decode().strip(",").split(",")
                    answer = b"\x01" + ",".join(map(kind_of, outputs)).encode()
                elif kind == ord("I"):
                    inputs.append(body.decode().strip(",").split(","))
                    answer = bytes([len(inputs)]) + ",".join(map(kind_of, inputs[-1])).encode()
                elif kind == ord("S"):
                    answer = b"\x01"
                    sending = sending or asyncio.create_task(self._send(writer, outputs, period_s))
                elif kind == ord("U"):
                    self._receive(inputs[body[0] - 1], body[1:])
                    continue
                else:
                    self.unknown.append(f"RTDE package {chr(kind)}")
                    continue
                writer.write(struct.pack(">HB", 3 + len(answer), kind) + answer)
        finally:
            if sending:
                sending.cancel()

    def _receive(self, names: list[str], values: bytes) -> None:
        at = 0
        for name in names:
            form = ">" + FORMATS[kind_of(name)]
            value, *rest = struct.unpack_from(form, values, at)
            at += struct.calcsize(form)
            if not rest:
                self.registers[name] = value

    async def _send(self, writer: asyncio.StreamWriter, names: list[str], period_s: float) -> None:
        due_s = time.monotonic()
        while True:
            await self.link()
            body = b"\x01" + b"".join(map(self._packed, names))
            writer.write(struct.pack(">HB", 3 + len(body), ord("U")) + body)
            due_s = max(due_s + period_s, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _packed(self, name: str) -> bytes:
        running = self.mode == RUNNING
        state: dict[str, Any] = {
            "timestamp": time.monotonic() - self._begun_s,
            "actual_q": self.joints.position,
            "robot_mode": self.mode,
            "runtime_state": self.runtime,
            "robot_status_bits": running | (self.runtime == PLAYING) << 1,
            "safety_status_bits": self.safety,
        }
        kind = kind_of(name)
        value = state.get(name, self.registers.get(name, 0))
        return struct.pack(">" + FORMATS[kind], *(value if isinstance(value, list) else [value]))


if __name__ == "__main__":
    main(URController, __doc__ or "")
