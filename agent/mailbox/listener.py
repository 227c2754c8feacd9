"""The learner's socket: who may connect, how much they may send, messages as they arrive. Nothing is unpacked here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.auth.thread import ThreadAuthenticator

from agent.mailbox.connections import Connections, Limits
from agent.mailbox.cpu_budget import CpuBudget
from agent.spec import Spec, UserError
from agent.wire.bad_messages import Faults
from agent.wire.keys import Guard, refuse_old_protocols
from agent.wire.messages import (
    MAX_HEADER_BYTES,
    SOCKET_OPTIONS,
    check_address,
    held_bytes,
    largest_step,
    wire_bytes,
)

NOWAIT = int(zmq.NOBLOCK)  # much cheaper than the enum, message by message
MAX_FRAMES = 3  # of a message: its route, a header, arrays
MAX_SKIPPED = 50_000  # frames of longer messages, in one drain


class Arrived(NamedTuple):
    """A message. fd: its connection. holder: name of the robot whose key it came with; None without encryption."""

    route: bytes
    frames: list[memoryview]
    fd: int
    holder: str | None


class Listener:
    """Binds `address` for robots that send steps of `spec`. faults: where refused messages are noted.

    address: as bound (tells the port where 0 or * was asked for). budget: CPU time of senders; whoever has had theirs
    is not listened to. Raises UserError when the address is taken, impossible, or beyond this machine without `keys` (a
    folder, see agent.wire.keys) and not `insecure`, or a key is missing.
    """

    def __init__(self, address: str, spec: Spec, faults: Faults, keys: str | Path = "", insecure: bool = False) -> None:
        check_address(address, insecure or bool(keys))
        self._faults = faults
        self.budget = CpuBudget()
        self._context = zmq.Context()
        self._guard: Guard | None = None
        self._authenticator: ThreadAuthenticator | None = None
        self._socket = self._context.socket(zmq.ROUTER)
        largest = max(MAX_HEADER_BYTES, largest_step(spec))
        options = {
            **SOCKET_OPTIONS,
            zmq.MAXMSGSIZE: largest,  # libzmq hangs up on a longer frame before it takes memory
            zmq.ROUTER_HANDOVER: 1,  # a robot that reconnects replaces its half-dead connection
            zmq.ROUTER_MANDATORY: 1,  # sending tells whether there is a connection
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        self._socket.ipv6 = "[" in address
        self.connections = Connections(self._socket, Limits(message=2 * largest, robot=held_bytes(spec)), faults)
        self.skipping = False  # the frames that are left of a message of too many
        try:
            if keys:
                self._guard = Guard(self._socket, self._context, Path(keys))
            else:
                self._authenticator = refuse_old_protocols(self._socket, self._context, self.connections.refuses)
            self._socket.bind(address)
        except UserError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            hint = "; is another learner running?" if error.errno == zmq.EADDRINUSE else ""
            raise UserError(f"cannot listen at {address}: {error.strerror.lower()}{hint}") from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait(self, timeout_s: float) -> bool:
        """Block until something arrives; False when nothing did."""
        return bool(self._socket.poll(int(timeout_s * 1000)))

    def messages(self, seconds: float) -> Iterator[Arrived | None]:
        """Yields what has arrived, for so long at most; None once there is nothing any more. Never blocks."""
        self.budget.renew()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            try:
                if self.skipping and not self._skip():
                    return
                frames = [self._socket.recv(NOWAIT, copy=False)]
                while frames[-1].more and len(frames) < MAX_FRAMES:
                    frames.append(self._socket.recv(copy=False))
            except zmq.Again:
                self.connections.drained()
                yield None
                return
            route, sender = frames[0], frames[0].bytes
            fd = int(frames[0].get(zmq.SRCFD))
            if frames[-1].more:
                self.skipping = True
                self._faults.note("frames", repr(sender), f"more than {MAX_FRAMES - 1} frames in one message")
                self.connections.disconnect(fd, f"more than {MAX_FRAMES - 1} frames in one message")
                continue
            self.connections.took(fd, wire_bytes(frames[1:]))
            if not self.budget.has(sender):
                self._faults.counts["ignored"] += 1  # not held against a limit: what piles up here is memory
                continue
            holder = self._guard.holder(route) if self._guard else None
            yield Arrived(sender, [frame.buffer for frame in frames[1:]], fd, holder)

    def _skip(self) -> bool:
        """Whether the end of the message that is being skipped has come, and there is time for others."""
        for _ in range(MAX_SKIPPED):
            self._socket.recv(NOWAIT)
            if not self._socket.rcvmore:
                self.skipping = False
                return True
        return False

    def send(self, route: bytes, frames: Iterable[bytes], copy: bool = True) -> bool:
        """Whether there is a connection. What it cannot take is dropped.

        Each promise is kept by a report that asks again, not by a queue.
        """
        try:
            self._socket.send_multipart([route, *frames], zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                self._faults.note("unsent", repr(route), error)
            return False
        return True

    def close(self) -> None:
        """Flush what was sent (half a second at most) and free the address."""
        self.connections.close()
        self._socket.close()
        for thread in (self._guard, self._authenticator):
            if thread:
                thread.stop()
        self._context.term()
