"""A servo bus without hardware: a pseudo-terminal that a driver opens as its serial port, and servos behind it.

    with Bus(FEETECH, 6) as bus:
        ...  # a driver opens bus.port
        bus.faults.lost = 10  # from now on

What the servos did is in `bus.history`, a row each TICK_S.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import tempfile
import threading
import time
import tty
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from envs.real.bus.protocol import BROADCAST, PING, READ, SYNC_READ, SYNC_WRITE, WRITE, Protocol
from envs.real.bus.servo import Servo

TICK_S = 0.005
KEPT_S = 60.0  # of the history
PRIORITY = 20  # above the arm's process, which polls its port


def in_time() -> None:
    """Let this thread run whenever it can, so that servos answer in time; where the system allows that."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))


@dataclass
class Faults:
    """lost: of 1000 packets, requests and replies. corrupted, late (by late_s): of 1000 replies. power: of all."""

    lost: float = 0.0
    corrupted: float = 0.0
    late: float = 0.0
    late_s: float = 0.08
    power: bool = True


class Bus:
    """`count` servos with the numbers 1, 2, ... port: its path, the same after `unplug` and `plug`.

    models: of the servos, where they are not the protocol's. in_time: as the function of that name. servo: their class,
    for servos with other physics. port: where it is to be; empty: in a temporary folder.
    history: (time.monotonic(), degrees of each servo).
    """

    def __init__(
        self,
        protocol: Protocol,
        count: int = 6,
        models: list[int] | None = None,
        in_time: bool = False,
        servo: type[Servo] = Servo,
        port: Path | None = None,
    ) -> None:
        self.protocol, self.faults = protocol, Faults()
        given = models or [protocol.model] * count
        self.servos = {n: servo(protocol, n, model=model) for n, model in enumerate(given, 1)}
        self.history: deque[tuple[float, tuple[float, ...]]] = deque(maxlen=int(KEPT_S / TICK_S))
        self.requests = self.faulty = 0
        self._random, self._in_time = random.Random(0), in_time
        self._folder = tempfile.TemporaryDirectory()
        self.port = port or Path(self._folder.name, "port")
        self._buffer, self._due = bytearray(), deque[tuple[float, bytes]]()
        self._lock, self._over = threading.RLock(), threading.Event()
        self._advanced_s = time.monotonic()
        self._ends: tuple[int, int] | None = None
        self.plug()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.unplug()
        self._folder.cleanup()

    def plug(self) -> None:
        """Put the cable in."""
        with self._lock:
            self._ends = os.openpty()
            tty.setraw(self._ends[1])
            os.set_blocking(self._ends[0], False)
            self.port.unlink(missing_ok=True)
            self.port.symlink_to(os.ttyname(self._ends[1]))

    def unplug(self) -> None:
        """Pull the cable: the port is gone, the servos keep their power."""
        with self._lock:
            for end in self._ends or ():
                os.close(end)
            self._ends = None
            self._buffer.clear()
            self._due.clear()
            self.port.unlink(missing_ok=True)

    def power(self, on: bool) -> None:
        """Of all servos. Without it they answer nothing, and stand."""
        with self._lock:
            self.faults.power = on
            for servo in self.servos.values():
                servo.power_lost()

    def place(self, degrees: float, goal: float | None = None) -> None:
        """Every servo there, without torque; `goal`: what its register still has from before."""
        with self._lock:
            for servo in self.servos.values():
                servo.position = degrees
                servo.power_lost()
                if goal is not None:
                    servo.set("goal", round(goal * 4096 / 360))

    def torque(self) -> dict[int, bool]:
        """Whether each servo has torque."""
        return {number: servo.torque for number, servo in self.servos.items()}

    def _serve(self) -> None:
        if self._in_time:
            in_time()
        while not self._over.is_set():
            with self._lock:
                ends = self._ends
            if ends is None:
                time.sleep(TICK_S)
            else:
                with contextlib.suppress(OSError, ValueError):  # unplugged meanwhile
                    ready = select.select([ends[0]], [], [], 0.001 if self._due else TICK_S)[0]
                    with self._lock:
                        if ready and self._ends is ends:  # else its number may be another file's by now
                            self._buffer += os.read(ends[0], 4096)
            with self._lock:
                self._advance()
                self._answer_all()
                self._send_due()

    def _advance(self) -> None:
        now_s = time.monotonic()
        if now_s - self._advanced_s < TICK_S:
            return
        if self.faults.power:
            for servo in self.servos.values():
                servo.advance(now_s - self._advanced_s)
        self._advanced_s = now_s
        self.history.append((now_s, tuple(servo.position for servo in self.servos.values())))

    def _answer_all(self) -> None:
        while True:
            try:
                packet = self.protocol.take(self._buffer)
            except ConnectionError:
                continue  # no servo answers it
            if packet is None:
                return
            self.requests += 1
            if self.faults.power and not self._chance(self.faults.lost):
                self._answer(*packet)

    def _answer(self, number: int, body: bytes) -> None:
        code, given, width = body[0], body[1:], self.protocol.width
        address, size = given[:width], int.from_bytes(given[width : 2 * width], "little")
        if code == SYNC_READ:
            for one in given[2 * width :]:
                self._ask(one, READ, given[: 2 * width])
        elif code == SYNC_WRITE:
            rows = given[2 * width :]
            for at in range(0, len(rows), size + 1):
                self._ask(rows[at], WRITE, address + rows[at + 1 : at + 1 + size], silent=True)
        elif number == BROADCAST:
            for one in self.servos:
                self._ask(one, code, given, silent=code != PING)
        else:
            self._ask(number, code, given)

    def _ask(self, number: int, code: int, given: bytes, silent: bool = False) -> None:
        servo = self.servos.get(number)
        if servo is None or servo.dead:
            return
        body = servo.answer(code, given)
        if body is not None and not silent:
            self._reply(self.protocol.frame(number, body))

    def _reply(self, packet: bytes) -> None:
        if self._chance(self.faults.lost):
            return
        if self._chance(self.faults.corrupted):
            at = self._random.randrange(len(packet))
            packet = packet[:at] + bytes([packet[at] ^ 1 << self._random.randrange(8)]) + packet[at + 1 :]
        late_s = self.faults.late_s if self._chance(self.faults.late) else 0.0
        last_s = self._due[-1][0] if self._due else 0.0  # one wire: they do not overtake each other
        self._due.append((max(last_s, time.monotonic() + late_s), packet))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, packet = self._due.popleft()
            if self._ends:
                with contextlib.suppress(BlockingIOError):  # nobody reads: they are lost, and the servos go on
                    os.write(self._ends[0], packet)

    def _chance(self, per_mille: float) -> bool:
        happens = per_mille > 0 and self._random.random() < per_mille / 1000
        self.faulty += happens
        return happens
