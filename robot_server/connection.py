"""The socket that connects to the learner: sends, receives, and knows why there is no connection."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from agent.spec import UserError
from agent.wire.arrays import MAX_FRAME_BYTES
from agent.wire.frames import NOWAIT, Frames
from agent.wire.keys import present
from agent.wire.messages import SOCKET_OPTIONS

EVENTS, READABLE, MORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.SNDMORE)  # much cheaper than the enums


class Connection:
    """Connects to the learner at `address`, which need not be there yet, as `robot`.

    keys: the folder of the keys of `robot`, if the connection is encrypted. options: of the socket, besides those of
    every robot.
    count: connections made so far. error: why there is none now; empty while there is one. gave_up: libzmq does not try
    again by itself after a handshake that failed. frames: of the message that is being received.
    Raises UserError for missing keys, and for an address that cannot be.
    """

    def __init__(self, address: str, robot: str, keys: str | Path, options: Mapping[Any, Any]) -> None:
        self.address, self.count, self.gave_up = address, 0, False
        self.error = f"no connection to {address} yet"
        self._failures = _failures(address, robot, encrypted=bool(keys))
        self._meaning = {
            zmq.EVENT_CLOSED: f"nothing listens at {address}",
            zmq.EVENT_CONNECTED: f"what listens at {address} does not answer as a learner does",
            zmq.EVENT_DISCONNECTED: f"the connection to {address} is lost",
            zmq.EVENT_HANDSHAKE_SUCCEEDED: "",
            **self._failures,
        }
        host = address.partition("://")[2].rpartition(":")[0]
        named = re.search(r"[^0-9.\[\]:]", host)
        self._unknown_host = f"unknown host name '{host}' (in {address})" if named else ""
        self._tried = False  # since it last waited: libzmq looks the name up first, and tries nothing without
        self.frames = Frames()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        every: dict[Any, Any] = {**SOCKET_OPTIONS, zmq.MAXMSGSIZE: MAX_FRAME_BYTES, **options}
        for option, value in every.items():
            self.socket.setsockopt(option, value)
        self.socket.ipv6 = "[" in address
        self._events = self._monitor()
        try:
            if keys:
                present(self.socket, Path(keys), robot)
            self.socket.connect(address)
        except UserError:
            self._context.destroy(linger=0)
            raise
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UserError(f"cannot connect to {address}: {error.strerror.lower()}") from None

    def _monitor(self) -> Any:
        where = f"inproc://monitor-{id(self)}"
        self.socket.monitor(where, sum(self._meaning) + zmq.EVENT_CONNECT_DELAYED + zmq.EVENT_CONNECT_RETRIED)
        events = self._context.socket(zmq.PAIR)
        events.rcvhwm = 0  # libzmq's own thread would wait for a reader
        events.connect(where)
        return events

    @property
    def reconnects(self) -> int:
        """How often the connection had to be made anew."""
        return max(0, self.count - 1)

    def read_events(self) -> None:
        """Update count, error and gave_up by what has happened since. Never blocks."""
        while self._events.get(EVENTS) & READABLE:
            event = zmq.Event(parse_monitor_message(self._events.recv_multipart())["event"])
            if event == zmq.EVENT_CONNECT_RETRIED and not self._tried:
                self.error = self._unknown_host or self.error
            self._tried = event != zmq.EVENT_CONNECT_RETRIED
            if event not in self._meaning:
                continue
            self.count += event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.gave_up |= event in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
            old_news = {
                zmq.EVENT_CONNECTED: self.error in self._failures.values(),  # and it will fail again
                zmq.EVENT_DISCONNECTED: self.error != "",
            }
            if not old_news.get(event, False):
                self.error = self._meaning[event]

    def send(self, frames: Sequence[bytes]) -> bool:
        """Whether the socket took them. It would take some without a connection: for those the outbox is the queue.

        (zmq.IMMEDIATE would do that, too, but libzmq 4.3.5 with it can abort the process: a connection that ends while
        a message of several frames is being read takes the unread ones away.)
        """
        if self.error:
            return False
        try:
            for frame in frames[:-1]:
                self.socket.send(frame, NOWAIT | MORE)
            self.socket.send(frames[-1], NOWAIT)
        except zmq.Again:
            return False
        return True

    @property
    def readable(self) -> bool:
        """Whether `receive` has something: half as expensive as its exception."""
        return bool(int(self.socket.getsockopt(EVENTS)) & READABLE)

    def receive(self) -> list[bytes] | None:
        """Take one frame; the message when that was its last, else None. Raises zmq.Again when nothing has come."""
        return self.frames.read(self.socket)

    def wait(self, timeout_s: float) -> bool:
        """Wait until something has arrived; False when the time is over."""
        return bool(self.socket.poll(max(0, int(timeout_s * 1000))))

    def retry(self) -> None:
        """Connect again where libzmq has given up: the keys may have been corrected."""
        self.gave_up = False
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.address)
        self.socket.connect(self.address)

    def close(self, last: Sequence[bytes] = (), linger_ms: int | None = None) -> None:
        """Send the message `last`, if there is a connection, and close. May be called again.

        linger_ms: how long to wait for what is under way, instead of SOCKET_OPTIONS.
        """
        if not self.socket.closed:
            self.read_events()
            if last:
                self.send(last)
            self.socket.disable_monitor()
            self._events.close(0)
            self.socket.close(linger_ms)
        self._context.term()


def _failures(address: str, robot: str, encrypted: bool) -> dict[int, str]:
    """What a handshake that failed means, by libzmq's event."""
    return {
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: f"what listens at {address} hangs up at once: "
        + ("learner.key is not its key" if encrypted else "it is not a learner, or it requires keys (--keys)"),
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: f"{address}: "
        + ("keys were given (--keys), its learner has none" if encrypted else "its learner requires keys (--keys)"),
        zmq.EVENT_HANDSHAKE_FAILED_AUTH: f"the learner at {address} "
        + (
            f"does not know the key of '{robot}': it wants {robot}.key in keys/authorized/"
            if encrypted
            else "refuses this address for some seconds: another program there sent too much"
        ),
    }
