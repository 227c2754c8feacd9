"""The TCP connections of a ROUTER, watched from outside libzmq: how many there may be, and how much each may bring.

libzmq bounds the size of a frame, but not the number of frames of a message: an incomplete message piles up inside it,
2 bytes on the wire becoming 64 in memory, and nothing of it is seen by `recv`. The kernel counts what a connection
brought, `recv` tells which connection a message came from, so the difference is what libzmq holds. Whoever brings too
much is disconnected; a robot connects anew and sends again what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from agent.files import raise_descriptor_limit
from agent.wire.bad_messages import Faults

PERIOD_S = 0.05  # between two looks at all connections
PER_ADDRESS = 64  # connections of one address; beyond, the oldest one that is no robot's ends
RESERVE = 256  # descriptors kept for files
MOST = 1024  # connections, whatever the limit of descriptors is
STRANGER_BYTES = 1 << 19  # under way of a connection that is no robot's: a HELLO with thousands of episodes
GUEST_BYTES = 6 << 20  # of one that has sent a PROBE, which measures the network
STRANGERS_BYTES = 8 << 20  # and of all such connections together
STRIKES, STRIKES_S = 3, 10.0  # so many disconnections in so long, and that address is not let in for as long
SETTLE_S = 0.02  # libzmq may take so long to hand on what it has read
BATCH = 200  # events read between two looks
BYTES_RECEIVED = struct.Struct("128xQ")  # where tcpi_bytes_received lies in Linux's struct tcp_info

log = logging.getLogger(__name__)


@dataclass
class Connection:
    """One, by the descriptor that libzmq has for it.

    peer: its address and port. robot: a robot's message came over it. received: bytes that libzmq had read from it at
    the last look. taken: how far the messages that `recv` gave went, at least.
    """

    fd: int
    peer: tuple[str, int]
    budget: int
    robot: bool = False
    received: int = 0
    looked_s: float = 0.0
    settled: int = 0  # `received` at a look after which everything complete was taken
    taken: int = 0

    @property
    def under_way(self) -> int:
        """Bytes inside libzmq."""
        return self.received - self.taken


@dataclass
class Limits:
    """Bytes that one connection may have inside libzmq: `message`, the largest one that there is, which has not ended;
    `robot`, of a robot, between two drains.
    """

    message: int
    robot: int


class Connections:
    """Watches `socket`, which is not bound yet, in a thread of its own until `close`.

    faults: where it is noted what was disconnected, as "disconnected".
    """

    def __init__(self, watched: zmq.Socket[bytes], limits: Limits, faults: Faults) -> None:
        self.limits, self._faults = limits, faults
        self._watched = watched
        self._most = max(16, min(MOST, raise_descriptor_limit() - RESERVE))
        self._strikes: dict[str, list[float]] = {}  # of an address: when it was disconnected
        self.by_fd: dict[int, Connection] = {}
        self._drained_s = 0.0  # when everything complete had been taken
        self._events = watched.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._events.rcvhwm = 0  # libzmq's own thread would wait for a reader
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        self._thread.start()

    def took(self, fd: int, size: int) -> None:
        """Note that a message of `size` bytes, with framing, was taken that came over `fd`."""
        if each := self.by_fd.get(fd):  # its end lies beyond what had been read when all before had been taken
            each.taken = max(each.taken + size, each.settled)

    def trust(self, fd: int, robot: bool) -> None:
        """Let `fd` have more under way: a robot is there, or somebody who measures the network."""
        if each := self.by_fd.get(fd):
            each.robot |= robot
            each.budget = self.limits.robot if each.robot else GUEST_BYTES

    def drained(self) -> None:
        """Note that there is no complete message any more."""
        self._drained_s = time.monotonic()

    def disconnect(self, fd: int, why: str) -> None:
        """End the connection `fd`, which sent what no robot sends."""
        if connection := self.by_fd.get(fd):
            self._end(connection, why)

    def close(self) -> None:
        """To be called before the socket is closed."""
        self._stop.set()
        self._thread.join()
        self._watched.disable_monitor()
        self._events.close(0)

    def _run(self) -> None:
        look_s = 0.0
        while not self._stop.is_set():
            try:
                self._read_events()
                if (now := time.monotonic()) >= look_s:
                    look_s = now + PERIOD_S
                    self._look()
            except Exception:  # this thread guards memory for the whole run
                log.exception("error while checking connections")
                self._stop.wait(PERIOD_S)

    def _read_events(self) -> None:
        timeout_ms = int(PERIOD_S * 1000)
        for _ in range(BATCH):
            if not self._events.poll(timeout_ms):
                return
            event, timeout_ms = parse_monitor_message(self._events.recv_multipart()), 0
            if event["event"] == zmq.EVENT_DISCONNECTED:
                self.by_fd.pop(int(event["value"]), None)
            else:
                self._accept(int(event["value"]))

    def _accept(self, fd: int) -> None:
        with _borrowed(fd) as connection:
            peer = _peer(connection)
        if peer is None:
            return
        self.by_fd[fd] = Connection(fd, peer, STRANGER_BYTES)
        everywhere = list(self.by_fd.values())  # in one go: the learner's thread may end some meanwhile
        here = [each for each in everywhere if each.peer[0] == peer[0]]
        for crowd, most, where in ((here, PER_ADDRESS, f"from {peer[0]}"), (everywhere, self._most, "in all")):
            if len(crowd) > most and (oldest := next((each for each in crowd if not each.robot), None)):
                self._end(oldest, f"more than {most} connections {where}", strike=False)

    def refuses(self, address: str) -> bool:
        """Whether no peer of `address` is let in now, robots included: some were disconnected again and again.

        Connections that are there stay. For `agent.wire.keys`, which asks before anything of a peer gets in.
        """
        since_s = time.monotonic() - STRIKES_S
        return sum(at_s > since_s for at_s in self._strikes.get(address, ())) >= STRIKES

    def _look(self) -> None:
        """At all connections: who has more under way than may be?"""
        drained_s = self._drained_s
        for each in list(self.by_fd.values()):
            incomplete = 0
            if each.looked_s + SETTLE_S < drained_s:  # all complete messages of that look were taken since
                each.settled = each.received
                incomplete = each.settled - each.taken
            received = _received(each)
            if received is None:
                self.by_fd.pop(each.fd, None)
                continue
            each.received, each.looked_s = received, time.monotonic()
            if incomplete > self.limits.message:
                self._end(each, f"an incomplete message of {incomplete} bytes")
            elif each.under_way > each.budget:
                self._end(each, f"{each.under_way} bytes not read yet", strike=not each.robot)
        strangers = [each for each in list(self.by_fd.values()) if not each.robot]
        if sum(each.under_way for each in strangers) > STRANGERS_BYTES:
            self._end(max(strangers, key=lambda each: each.under_way), "unknown peers sent too much")

    def _end(self, each: Connection, why: str, strike: bool = True) -> None:
        """strike: it sent too much."""
        with _borrowed(each.fd) as connection:
            if connection is None or _peer(connection) != each.peer or not self.by_fd.pop(each.fd, None):
                return
            if strike:
                self.strike(each.peer[0])
            self._faults.note("disconnected", f"{each.peer[0]}:{each.peer[1]}", why)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def strike(self, address: str) -> None:
        if len(self._strikes) >= MOST:
            self._strikes.clear()
        self._strikes[address] = [*self._strikes.get(address, [])[1 - STRIKES :], time.monotonic()]


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket | None]:
    """The socket `fd` of libzmq's, which stays open afterwards; None when there is none any more."""
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        yield None
        return
    try:
        yield connection
    finally:
        connection.detach()


def _received(each: Connection) -> int | None:
    """Bytes that libzmq has read from it; None when it is not there any more: libzmq may close it at any moment."""
    with _borrowed(each.fd) as connection:
        if connection is None or _peer(connection) != each.peer:
            return None
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            unread = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
        except OSError:
            return None
    return int(BYTES_RECEIVED.unpack_from(info)[0]) - int.from_bytes(unread, sys.byteorder)


def _peer(connection: socket.socket | None) -> tuple[str, int] | None:
    """Address and port at the other end; None when there is none, or it is not TCP."""
    try:
        host, port = connection.getpeername()[:2] if connection else ("", 0)
    except (OSError, ValueError):
        return None
    return (host, port) if isinstance(port, int) and port else None
