"""One emulated servo: its registers, and a simple physics."""

from __future__ import annotations

from envs.real.bus.protocol import PING, READ, WRITE, Protocol

TICKS = 4096  # a turn
DEGREES = 360 / TICKS
SPEED = 300.0  # degrees/s at most
GAIN = 25.0  # 1/s: speed per degree that is left
STALL_DEGREES = 10.0  # so far from its goal it gives all its force
ROOM_C, HEAT_C, WARMS_S = 25.0, 60.0, 60.0  # it warms up by HEAT_C under full load, within WARMS_S
HOT_C = 70.0


class Servo:
    """number: its place on the bus. position: degrees. dead: it answers nothing. blocked: something is in its way."""

    def __init__(self, protocol: Protocol, number: int, position: float = 180.0, model: int | None = None) -> None:
        self.protocol, self.number, self.position = protocol, number, position
        self.memory = bytearray(256)
        self.temperature = ROOM_C
        self.dead = self.blocked = self.overloaded = False
        self.set("model", protocol.model if model is None else model)
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
        self.memory[address : address + size] = value.to_bytes(size, "little")

    def advance(self, elapsed_s: float) -> None:
        """Move, and report."""
        left = self.get("goal") * DEGREES - self.position if self.torque else 0.0
        load = min(abs(left) / STALL_DEGREES, 1.0)
        if not self.blocked:
            step = min(abs(left) * min(GAIN * elapsed_s, 1.0), SPEED * elapsed_s)
            self.position += step if left > 0 else -step
        self.report(load, elapsed_s)

    def report(self, load: float, elapsed_s: float) -> None:
        """Warm up, and write what can be read of it. load: share of its torque."""
        self.temperature += (ROOM_C + HEAT_C * load**2 - self.temperature) * min(elapsed_s / WARMS_S, 1.0)
        self.set("position", max(0, self.ticks))
        self.set("load", round(1000 * load))
        self.set("current", round(200 * load))
        self.set("temperature", min(255, round(self.temperature)))

    def power_lost(self) -> None:
        """What a servo forgets without power."""
        self.set("torque", 0)
        self.set("goal", self.ticks)
        self.overloaded = False

    @property
    def error(self) -> int:
        protocol = self.protocol
        return (protocol.overload if self.overloaded else 0) | (protocol.hot if self.temperature >= HOT_C else 0)

    def answer(self, instruction: int, given: bytes) -> bytes | None:
        """The body of its reply; None for what it does not know."""
        protocol, width = self.protocol, self.protocol.width
        address = int.from_bytes(given[:width], "little")
        if instruction == PING:
            about = self.memory[:0] if protocol.width == 1 else self.memory[:2] + b"\x01"
            return protocol.reply(self.error, bytes(about))
        if instruction == READ:
            size = int.from_bytes(given[width : 2 * width], "little")
            return protocol.reply(self.error, bytes(self.memory[address : address + size]))
        if instruction == WRITE:
            self.memory[address : address + len(given) - width] = given[width:]
            if self.overloaded and not self.torque:
                self.overloaded = False  # as the real ones: torque off ends it
            return protocol.reply(self.error, b"")
        return None
