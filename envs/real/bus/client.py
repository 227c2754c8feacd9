"""A minimal driver of a servo bus, and an arm made of it: they test the emulator without other packages."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
import tty
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from envs.real.arm import State
from envs.real.bus.protocol import (
    BROADCAST,
    DYNAMIXEL,
    FEETECH,
    PING,
    READ,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Protocol,
)
from envs.real.bus.registers import Registers

SILENCE_S = 0.02  # after which no further reply to a request comes
TICKS_PER_DEGREE = 4096 / 360
PROTOCOLS = {protocol.name: protocol for protocol in (FEETECH, DYNAMIXEL)}


class BusError(RuntimeError):
    """A servo refuses an instruction."""


class Client:
    """Speaks `protocol` at the serial port `port`. Raises TimeoutError (no reply), ConnectionError (a bad one)."""

    def __init__(self, protocol: Protocol, port: str | Path, timeout_s: float = 0.02) -> None:
        self.protocol, self._timeout_s = protocol, timeout_s
        self._port = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._port)
        self._buffer = bytearray()

    def close(self) -> None:
        os.close(self._port)

    def ping(self, servo: int) -> None:
        self._send(servo, bytes([PING]))
        self._receive(servo)

    def read(self, servo: int, name: str) -> int:
        address, size = self.protocol.registers[name]
        self._send(servo, bytes([READ]) + self.protocol.number(address) + self.protocol.number(size))
        return int.from_bytes(self._receive(servo, size), "little")

    def write(self, servo: int, name: str, value: int) -> None:
        address, size = self.protocol.registers[name]
        self._send(servo, bytes([WRITE]) + self.protocol.number(address) + value.to_bytes(size, "little"))
        self._receive(servo)

    def sync_read(self, servos: list[int], name: str) -> list[int]:
        address, size = self.protocol.registers[name]
        about = self.protocol.number(address) + self.protocol.number(size)
        self._send(BROADCAST, bytes([SYNC_READ]) + about + bytes(servos))
        try:
            return [int.from_bytes(self._receive(servo, size), "little") for servo in servos]
        except (OSError, BusError):
            self._drain()
            raise

    def sync_write(self, values: dict[int, int], name: str) -> None:
        """No servo answers it."""
        address, size = self.protocol.registers[name]
        rows = b"".join(bytes([servo]) + value.to_bytes(size, "little") for servo, value in values.items())
        self._send(BROADCAST, bytes([SYNC_WRITE]) + self.protocol.number(address) + self.protocol.number(size) + rows)

    def _send(self, servo: int, body: bytes) -> None:
        try:
            termios.tcflush(self._port, termios.TCIFLUSH)  # a reply that came too late is not that of this request
        except termios.error as error:  # no OSError, though it says that the port is gone
            raise OSError(*error.args) from None
        self._buffer.clear()
        os.write(self._port, self.protocol.frame(servo, body))

    def _drain(self) -> None:
        """Discard what the other servos still send: it would be taken for replies to the next request."""
        with contextlib.suppress(OSError):
            while select.select([self._port], [], [], SILENCE_S)[0] and os.read(self._port, 4096):
                pass

    def _receive(self, servo: int, size: int | None = None) -> bytes:
        end_s = time.monotonic() + self._timeout_s
        while (packet := self.protocol.take(self._buffer)) is None:
            if not select.select([self._port], [], [], max(0.0, end_s - time.monotonic()))[0]:
                raise TimeoutError(f"servo {servo} does not answer")
            read = os.read(self._port, 4096)
            if not read:
                raise OSError("the port is gone: is its cable in?")
            self._buffer += read
        number, body = packet
        if len(body) < self.protocol.width:
            raise ConnectionError(f"servo {number} replies without its status")
        refused, data = body[self.protocol.width - 1] & self.protocol.refusals, body[self.protocol.width :]
        if size is not None and len(data) != size:
            raise ConnectionError(f"servo {servo} replies with {len(data)} bytes in the place of {size}")
        if number != servo:
            raise ConnectionError(f"servo {number} answers for servo {servo}")
        if refused:
            raise BusError(f"servo {servo} refuses an instruction: error {refused:#x}")
        return data


class BusArm:
    """An Arm (envs.real.arm) of six servos, in degrees. Before torque goes on, the goal becomes where each servo is."""

    sags = True
    axes: tuple[str, ...] = ("a", "b", "c", "d", "e", "f")

    def __init__(self, port: str, protocol: str = "feetech", torque_off: bool = True) -> None:
        self._given, self._torque_off = (PROTOCOLS[protocol], port), torque_off
        self._servos = list(range(1, 1 + len(self.axes)))
        self._client: Client | None = None
        self._motors, self._lost = Registers((), self._read), 0  # lost in the sessions before
        self._most_ma = np.ones(len(self.axes))

    def connect(self) -> None:
        client = self._client = Client(*self._given)
        positions = client.sync_read(self._servos, "position")
        client.sync_write(dict(zip(self._servos, positions, strict=True)), "goal")
        for servo in self._servos:
            client.write(servo, "torque", 1)
        self._lost = self.lost
        self._motors = Registers(("current", "load", "temperature", "status"), self._read)
        if "current_limit" in client.protocol.registers:
            self._most_ma = np.array(client.sync_read(self._servos, "current_limit"), np.float64)

    def state(self) -> State:
        client = self._open
        raw = self._motors.update()
        ticks = client.sync_read(self._servos, "position")
        status = zip(self.axes, map(client.protocol.reports, raw["status"].tolist()), strict=True)
        errors = {name: error for name, error in status if error}
        at = np.array(ticks, np.uint32).astype(np.int32) / TICKS_PER_DEGREE
        return State(at, time.monotonic(), effort=self._effort(raw), errors=errors)

    def _read(self, name: str) -> np.ndarray:
        return np.array(self._open.sync_read(self._servos, name))

    def _effort(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        temperature = raw["temperature"].astype(np.float64)
        if self._given[0] is FEETECH:
            load = (raw["load"] & 0x3FF) / 10
            return {"load": load, "current": 6.5 * (raw["current"] & 0x7FFF), "temperature": temperature}
        current = np.abs(raw["current"].astype(np.int16)).astype(np.float64)
        return {"load": 100 * current / self._most_ma, "current": current, "temperature": temperature}

    @property
    def lost(self) -> int:
        """Replies that it has gone on without."""
        return self._lost + self._motors.lost

    def command(self, target: np.ndarray) -> np.ndarray:
        ticks = np.round(target * TICKS_PER_DEGREE).astype(np.int64)
        if self._given[0] is DYNAMIXEL:
            ticks %= 2**32
        self._open.sync_write(dict(zip(self._servos, ticks.tolist(), strict=True)), "goal")
        return target

    def hold(self) -> None:
        self.command(self.state().position)
        self._motors.expire()

    def disconnect(self) -> None:
        """Torque off on every servo that answers."""
        client, self._client = self._client, None
        if client is None:
            return
        for servo in self._servos if self._torque_off else ():
            for _ in range(3):
                try:
                    client.write(servo, "torque", 0)
                    break
                except BusError:  # it is written all the same
                    break
                except OSError:
                    continue
        client.close()

    @property
    def _open(self) -> Client:
        if self._client is None:
            raise ConnectionError("not connected")
        return self._client
