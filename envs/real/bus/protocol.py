"""The two protocols of hobby servo buses, as far as arms use them: Feetech's (SO-100, SO-101) and Dynamixel 2.0 (Koch).

Both know the same instructions under the same numbers. They differ in the frame, in the width of addresses and in
where a register is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 1, 2, 3, 0x82, 0x83
BROADCAST = 0xFE
OVERHEATING, OVERLOAD = 0x04, 0x20  # bits of the register "status"


@dataclass(frozen=True)
class Protocol:
    """registers: name -> (address, bytes). width: bytes of an address and of a length.

    errors: bit of the register "status" -> what it reports. refusals: bits of a reply's error byte that say that the
    instruction was refused; latches: a servo whose status is not 0 lets go until its power is cut.
    """

    name: str
    model: int
    registers: Mapping[str, tuple[int, int]]
    width: int
    errors: Mapping[int, str]
    refusals: int
    latches: bool

    def frame(self, servo: int, body: bytes) -> bytes:
        """The packet with `body`: an instruction and its parameters, or of a reply what `reply` gives."""
        raise NotImplementedError

    def take(self, buffer: bytearray) -> tuple[int, bytes] | None:
        """(servo, body) of the first packet, removed from `buffer`; None until it is whole.

        Raises ConnectionError for a wrong checksum, and one without a body; the packet is removed then, too.
        """
        raise NotImplementedError

    def reply(self, status: int, data: bytes) -> bytes:
        """The body of a status packet of a servo with this `status`."""
        raise NotImplementedError

    def reports(self, status: int) -> str:
        """What `status` means, in words; empty for nothing."""
        return ", ".join(word for bit, word in self.errors.items() if status & bit)

    def number(self, value: int) -> bytes:
        """An address or a length."""
        return value.to_bytes(self.width, "little")


class _Feetech(Protocol):
    def frame(self, servo: int, body: bytes) -> bytes:
        inner = bytes([servo, len(body) + 1]) + body
        return b"\xff\xff" + inner + bytes([~sum(inner) & 0xFF])

    def take(self, buffer: bytearray) -> tuple[int, bytes] | None:
        _to_header(buffer, b"\xff\xff")
        while buffer[2:3] == b"\xff":  # no servo has that number: the header begins later
            del buffer[0]
        if len(buffer) < 4 or len(buffer) < 4 + buffer[3]:
            return None
        packet = _cut(buffer, 4 + buffer[3])
        if ~sum(packet[2:-1]) & 0xFF != packet[-1]:
            raise ConnectionError("a reply with a wrong checksum")
        return packet[2], _body(packet[4:-1])

    def reply(self, status: int, data: bytes) -> bytes:
        return bytes([status]) + data


class _Dynamixel(Protocol):
    def frame(self, servo: int, body: bytes) -> bytes:
        body = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")  # so that no header is within
        packet = b"\xff\xff\xfd\x00" + bytes([servo]) + (len(body) + 2).to_bytes(2, "little") + body
        return packet + _crc(packet).to_bytes(2, "little")

    def take(self, buffer: bytearray) -> tuple[int, bytes] | None:
        _to_header(buffer, b"\xff\xff\xfd\x00")
        if len(buffer) < 7 or len(buffer) < (size := 7 + int.from_bytes(buffer[5:7], "little")):
            return None
        packet = _cut(buffer, size)
        if _crc(packet[:-2]) != int.from_bytes(packet[-2:], "little"):
            raise ConnectionError("a reply with a wrong checksum")
        return packet[4], _body(packet[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"))

    def reply(self, status: int, data: bytes) -> bytes:
        return bytes([0x55, 0x80 if status else 0]) + data  # an alert: the register has which


def _cut(buffer: bytearray, size: int) -> bytes:
    packet = bytes(buffer[:size])
    del buffer[:size]
    return packet


def _body(body: bytes) -> bytes:
    if not body:
        raise ConnectionError("a packet without a body")
    return body


def _to_header(buffer: bytearray, header: bytes) -> None:
    """Remove what stands before the first header; a header that has only begun stays."""
    at = buffer.find(header)
    del buffer[: at if at >= 0 else max(0, len(buffer) - len(header) + 1)]


def _crc(packet: bytes) -> int:
    """CRC-16 with the polynomial 0x8005, as Robotis gives it."""
    crc = 0
    for byte in packet:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


FEETECH = _Feetech(
    name="feetech",
    model=777,  # STS3215
    registers={
        "model": (3, 2),
        "low": (9, 2),
        "high": (11, 2),
        "overload_share": (34, 1),  # %, that an overloaded one gives
        "overload_time": (35, 1),  # 10 ms
        "overload_load": (36, 1),  # %
        "torque": (40, 1),
        "goal": (42, 2),
        "position": (56, 2),
        "load": (60, 2),  # 0.1 %; bit 10: its direction
        "temperature": (63, 1),
        "status": (65, 1),
        "current": (69, 2),  # 6.5 mA
    },
    width=1,
    errors={0x01: "voltage", 0x02: "encoder", OVERHEATING: "overheating", 0x08: "overcurrent", OVERLOAD: "overload"},
    refusals=0,
    latches=False,
)
DYNAMIXEL = _Dynamixel(
    name="dynamixel",
    model=1200,  # XL330-M288
    registers={
        "model": (0, 2),
        "current_limit": (38, 2),
        "high": (48, 4),
        "low": (52, 4),
        "torque": (64, 1),
        "status": (70, 1),
        "goal": (116, 4),
        "load": (124, 2),  # its PWM
        "current": (126, 2),  # mA; of an XL430 its load, 0.1 %
        "position": (132, 4),
        "temperature": (146, 1),
    },
    width=2,
    errors={
        0x01: "voltage",
        OVERHEATING: "overheating",
        0x08: "encoder",
        0x10: "electrical shock",
        OVERLOAD: "overload",
    },
    refusals=0x7F,
    latches=True,
)
