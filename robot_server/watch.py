"""What becomes of a connection: why there is none, in plain words, and how often there was one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from agent.spec import UserError
from agent.wire.arrays import MAX_FRAME_BYTES
from agent.wire.keys import present
from agent.wire.messages import SOCKET_OPTIONS


def dial(
    address: str, robot: str, keys: str | Path, options: Mapping[Any, Any]
) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes], Watch]:
    """A socket that connects to the learner at `address`, which need not be there yet, with its context and its watch.

    keys: the folder of the keys of `robot`, if the connection is encrypted. options: of the socket, besides those of
    every robot. Raises UserError for missing keys, and for an address that cannot be.
    """
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    every: dict[Any, Any] = {**SOCKET_OPTIONS, zmq.MAXMSGSIZE: MAX_FRAME_BYTES, **options}
    for option, value in every.items():
        socket.setsockopt(option, value)
    socket.ipv6 = "[" in address
    watch = Watch(socket, address, robot, encrypted=bool(keys))
    try:
        if keys:
            present(socket, Path(keys), robot)
        socket.connect(address)
    except UserError:
        context.destroy(linger=0)
        raise
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        raise UserError(f"cannot connect to {address}: {error.strerror.lower()}") from None
    return context, socket, watch


class Watch:
    """Watches `socket`, made before that connects to `address` as `robot`, encrypted or not.

    connections: made so far. trouble: why there is none now; empty while there is one. gave_up: libzmq does not try
    again by itself after a handshake that failed.
    """

    def __init__(self, socket: zmq.Socket[bytes], address: str, robot: str, encrypted: bool) -> None:
        self.connections = 0
        self.trouble = f"no connection to {address} yet"
        self.gave_up = False
        self._failures = {
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: f"what listens at {address} hangs up at once: "
            + ("learner.key is not its key" if encrypted else "it is no learner, or one that wants keys (--keys)"),
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: f"{address}: "
            + ("keys were given (--keys), its learner has none" if encrypted else "its learner wants keys (--keys)"),
            zmq.EVENT_HANDSHAKE_FAILED_AUTH: f"the learner at {address} "
            + (
                f"does not know the key of '{robot}': it wants {robot}.key in keys/authorized/"
                if encrypted
                else "refuses this address for some seconds: another program there sent too much"
            ),
        }
        self._said = {
            zmq.EVENT_CLOSED: f"nobody listens at {address}",
            zmq.EVENT_CONNECTED: f"what listens at {address} does not answer as a learner does",
            zmq.EVENT_DISCONNECTED: f"the connection to {address} is lost",
            zmq.EVENT_HANDSHAKE_SUCCEEDED: "",
            **self._failures,
        }
        host = address.partition("://")[2].rpartition(":")[0]
        named = re.search(r"[^0-9.\[\]:]", host)
        self._unknown = f"unknown host name '{host}' (in {address})" if named else ""
        self._tried = False  # since it last waited: libzmq looks the name up first, and tries nothing without
        self._socket = socket
        where = f"inproc://watch-{id(self)}"
        socket.monitor(where, sum(self._said) + zmq.EVENT_CONNECT_DELAYED + zmq.EVENT_CONNECT_RETRIED)
        self._events = socket.context.socket(zmq.PAIR)
        self._events.rcvhwm = 0  # libzmq's own thread would wait for a reader
        self._events.connect(where)

    def read(self) -> None:
        """Take in what has happened since. Never blocks."""
        while self._events.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            event = zmq.Event(parse_monitor_message(self._events.recv_multipart())["event"])
            if event == zmq.EVENT_CONNECT_RETRIED and not self._tried:
                self.trouble = self._unknown or self.trouble
            self._tried = event != zmq.EVENT_CONNECT_RETRIED
            if event not in self._said:
                continue
            self.connections += event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.gave_up |= event in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
            old_news = {
                zmq.EVENT_CONNECTED: self.trouble in self._failures.values(),  # and it will fail again
                zmq.EVENT_DISCONNECTED: self.trouble != "",
            }
            if not old_news.get(event, False):
                self.trouble = self._said[event]

    def close(self) -> None:
        """To be called before the socket is closed."""
        if not self._events.closed:
            self._socket.disable_monitor()
            self._events.close(0)
