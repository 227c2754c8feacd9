"""Connections of the operator's page: those without a request are few and short, so that there is always a place.

A half-sent request must not keep whoever wants to press STOP from the page. So a connection is waiting until it has
sent a whole request, and again when that is answered. A new connection always gets in: when too many wait, the oldest
of the address with the most of them is closed. A page's WebSocket is a request that lasts: it is never closed here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp.http import HttpProcessingError

MAX_WAITING = 64
REQUEST_S = 5.0  # for the first request to be sent
IDLE_S = 30.0  # after an answer, its way to the browser included
SWEEP_S = 0.5
BACKLOG = 1024


class Connections:
    """begin(transport) and end(transport): a request of that connection begins, and is answered."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.BaseTransport, float] = {}  # until when; the oldest first

    def begin(self, transport: asyncio.BaseTransport | None) -> None:
        if transport:
            self._waiting.pop(transport, None)

    def end(self, transport: asyncio.BaseTransport | None, seconds: float = IDLE_S) -> None:
        if transport and not transport.is_closing():
            self._waiting[transport] = time.monotonic() + seconds

    async def serve(self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept for ever."""
        loop, sweeping = asyncio.get_running_loop(), asyncio.create_task(self._sweep_for_ever())
        listener.setblocking(False)
        try:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(listener)
                    transport, _ = await loop.connect_accepted_socket(factory, accepted)
                except OSError:  # no descriptor is left, or it has gone
                    self._sweep(MAX_WAITING // 2)
                    await asyncio.sleep(0.02)
                    continue
                self.end(transport, REQUEST_S)
                self._sweep(MAX_WAITING)
        finally:
            sweeping.cancel()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._sweep(MAX_WAITING)

    def _sweep(self, most: int) -> None:
        now = time.monotonic()
        for transport, until_s in list(self._waiting.items()):
            if transport.is_closing() or until_s < now:
                self._close(transport)
        while len(self._waiting) > most:
            crowded = Counter(map(_address, self._waiting)).most_common(1)[0][0]
            self._close(next(each for each in self._waiting if _address(each) == crowded))

    def _close(self, transport: Any) -> None:
        del self._waiting[transport]
        transport.abort()


def is_of_a_request(record: logging.LogRecord) -> bool:
    """False for aiohttp's report of bytes that are no HTTP: a traceback and all the bytes, for each such connection."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return peer[0] if peer else ""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
