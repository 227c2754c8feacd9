"""One emulated servo: its registers, and a simple physics."""

from __future__ import annotations

from envs.real.bus.protocol import OVERHEATING, OVERLOAD, PING, READ, WRITE, Protocol

TICKS = 4096  # a turn
DEGREES = 360 / TICKS
SPEED = 300.0  # degrees/s at most
GAIN = 25.0  # 1/s: speed per degree that is left
STALL_DEGREES = 10.0  # so far from its goal it gives all its force
ROOM_C, HEAT_C, WARMS_S = 25.0, 60.0, 60.0  # it warms up by HEAT_C under full load, within WARMS_S
HOT_C = 70.0
SHARE, TIME, LOAD = 20, 200, 80  # of its protection: what it gives then, %; after how long, 10 ms; of what load, %
FULL_CURRENT = 200  # 6.5 mA
XL330, XL330_MOST_MA = 1200, 1750


class Servo:
    """number: its place on the bus. position: degrees. dead: it answers nothing. blocked: something is in its way.

    temperature: degrees C. overloaded: until its torque goes off, or its power where the protocol latches.
    """

    def __init__(self, protocol: Protocol, number: int, position: float = 180.0, model: int | None = None) -> None:
        self.protocol, self.number, self.position = protocol, number, position
        self.memory = bytearray(256)
        self.temperature = ROOM_C
        self.dead = self.blocked = self.overloaded = self.overheated = False
        self._pressed_s = self._way = 0.0  # in which direction its load was too much
        for name, value in (("overload_share", SHARE), ("overload_time", TIME), ("overload_load", LOAD)):
            if name in protocol.registers:
                self.set(name, value)
        self.set("model", protocol.model if model is None else model)
        if self.get("model") == XL330:
            self.set("current_limit", XL330_MOST_MA)
        self.set("high", TICKS - 1)
        self.set("goal", self.ticks)
        self.advance(0.0)

    @property
    def ticks(self) -> int:
        return round(self.position / DEGREES)

    @property
    def torque(self) -> bool:
        return bool(self.get("torque"))

    def get(self, name: str) -> int:
        address, size = self.protocol.registers[name]
        return int.from_bytes(self.memory[address : address + size], "little")

    def set(self, name: str, value: int) -> None:
        address, size = self.protocol.registers[name]
        self.memory[address : address + size] = (value % 256**size).to_bytes(size, "little")

    def advance(self, elapsed_s: float) -> None:
        """Move, and report."""
        left = self._goal * DEGREES - self.position if self.torque and not self.overheated else 0.0
        most = self._limit("overload_share", SHARE) / 100 if self.overloaded else 1.0
        load = min(max(left / STALL_DEGREES, -most), most)
        if not self.blocked:
            step = min(abs(left) * min(GAIN * elapsed_s, 1.0), SPEED * elapsed_s)
            self.position += step if left > 0 else -step
        self._protect(load, elapsed_s)
        self.report(load, elapsed_s)

    @property
    def _goal(self) -> int:
        """Ticks. A Feetech servo, of which bit 15 is the sign, stops at its limits; a Dynamixel, in its extended mode,
        turns on, in two's complement.
        """
        goal = self.get("goal")
        if self.protocol.latches:
            return goal - (goal >> 31 << 32)
        goal = -(goal & 0x7FFF) if goal & 0x8000 else goal
        return min(max(goal, self.get("low")), self.get("high"))

    def _protect(self, load: float, elapsed_s: float) -> None:
        """As its firmware does: one that is overloaded for too long gives less, until it is sent the other way."""
        if self._way * load < 0 and not self.protocol.latches:
            self.overloaded = False
        high = 100 * abs(load) > self._limit("overload_load", LOAD) and not self.overloaded
        self._pressed_s = self._pressed_s + elapsed_s if high else 0.0
        if self._pressed_s > self._limit("overload_time", TIME) / 100:
            self.overloaded, self._way = True, load
        elif not self.overloaded:
            self._way = 0.0

    def _limit(self, name: str, default: int) -> int:
        return self.get(name) if name in self.protocol.registers else default

    def report(self, load: float, elapsed_s: float) -> None:
        """Warm up, and write what can be read of it. load: share of its torque; below 0 it pulls back."""
        self.temperature += (ROOM_C + HEAT_C * load**2 - self.temperature) * min(elapsed_s / WARMS_S, 1.0)
        self.overheated = self.temperature >= HOT_C or (self.overheated and self.protocol.latches)
        if self.status and self.protocol.latches:
            self.set("torque", 0)
        self.set("position", self.ticks if self.protocol.latches else max(0, self.ticks))
        self.set("load", self._signed(round(1000 * load), 10))
        full = self.get("current_limit") or 1000 if self.protocol.latches else FULL_CURRENT
        self.set("current", self._signed(round(full * load), 15))
        self.set("temperature", min(255, round(self.temperature)))
        self.set("status", self.status)

    def _signed(self, value: int, bit: int) -> int:
        """As two bytes: Feetech's have the sign in `bit`."""
        return value & 0xFFFF if self.protocol.latches else abs(value) | (value < 0) << bit

    def power_lost(self) -> None:
        """What a servo forgets without power."""
        self.set("torque", 0)
        self.set("goal", self.ticks)
        self.overloaded = self.overheated = False
        self.set("status", 0)

    @property
    def status(self) -> int:
        """The register of that name."""
        return (OVERLOAD if self.overloaded else 0) | (OVERHEATING if self.overheated else 0)

    def answer(self, instruction: int, given: bytes) -> bytes | None:
        """The body of its reply; None for what it does not know, or cannot be."""
        protocol, width = self.protocol, self.protocol.width
        address = int.from_bytes(given[:width], "little")
        if instruction == PING:
            about = self.memory[:0] if protocol.width == 1 else self.memory[:2] + b"\x01"
            return protocol.reply(self.status, bytes(about))
        if instruction == READ and len(given) == 2 * width:
            size = int.from_bytes(given[width : 2 * width], "little")
            return protocol.reply(self.status, bytes(self.memory[address : address + size]))
        if instruction == WRITE and width < len(given) <= width + len(self.memory) - address:
            self.memory[address : address + len(given) - width] = given[width:]
            if self.status and protocol.latches:
                self.set("torque", 0)
            elif not self.torque:
                self.overloaded = False
                self.set("status", self.status)
            return protocol.reply(self.status, b"")
        return None
