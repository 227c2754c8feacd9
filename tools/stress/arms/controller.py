"""What the emulated controllers have in common: joints, TCP servers, a link that fails, commands on standard input.

The emulators are programs (`python -m tools.stress.arms.ur --host 127.0.0.21`): a vendor's client library that keeps
Python's lock while it waits for an answer would never get one from its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from envs.real.realtime import real_time

HISTORY = 200_000  # rows
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Joints:
    """position, target: radians. They follow `target` with a lag of `lag_s`, at most at `speed` (rad/s)."""

    def __init__(self, at: list[float], speed: float, lag_s: float) -> None:
        self.position, self.target, self.speed, self.lag_s = list(at), list(at), speed, lag_s

    def stop(self) -> None:
        self.target = list(self.position)

    def step(self, period_s: float) -> None:
        share, most = min(1.0, period_s / self.lag_s), self.speed * period_s
        for n, (at, to) in enumerate(zip(self.position, self.target, strict=True)):
            self.position[n] = at + max(-most, min(most, share * (to - at)))


class Controller:
    """faults: what can happen to it, by name; `mend` undoes what software can, as a person would.

    history: (time.monotonic(), degrees of each joint...) of each period.
    """

    hz = 125.0

    def __init__(self, host: str, joints: Joints) -> None:
        self.host, self.joints = host, joints
        self.history: deque[tuple[float, ...]] = deque(maxlen=HISTORY)
        self.unknown: list[str] = []  # what a client asked for that the emulator does not know
        self._link = asyncio.Event()
        self._link.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.faults: dict[str, Callable[..., None]] = {
            "silent": self._link.clear,  # the cable is out
            "plug": self._link.set,
            "drop": self._drop,
            "forget_unknown": self.unknown.clear,
        }

    def servers(self) -> dict[int, Handler]:
        """By port."""
        raise NotImplementedError

    def tick(self) -> None:
        """Once a period, before the joints move."""

    def report(self) -> dict[str, Any]:
        return {"unknown": self.unknown}

    async def link(self) -> None:
        """Returns while the cable is in."""
        await self._link.wait()

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _run(self) -> None:
        for port, handler in self.servers().items():
            await asyncio.start_server(self._tracked(handler), self.host, port)
        threading.Thread(target=self._listen, args=(asyncio.get_running_loop(),), daemon=True).start()
        say("ready")
        due_s = time.monotonic()
        while True:
            self.tick()
            self.joints.step(1 / self.hz)
            self.history.append((time.monotonic(), *map(math.degrees, self.joints.position)))
            due_s = max(due_s + 1 / self.hz, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _tracked(self, handler: Handler) -> Handler:
        async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            except Exception as error:  # a request of which it can make nothing
                self.unknown.append(repr(error))
            finally:
                self._writers.discard(writer)
                writer.close()

        return tracked

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(self._told, line.split())
        os._exit(0)  # whoever started it has gone

    def _told(self, words: list[str]) -> None:
        if words[:1] == ["history"]:
            say(json.dumps([row for row in self.history if row[0] >= float(words[1])]))
        elif words == ["report"]:
            say(json.dumps(self.report()))
        else:
            try:
                self.faults[words[0]](*words[1:])
            except Exception as error:  # whoever told it waits for an answer
                say(f"{error!r}")
            else:
                say("done")


def say(line: str) -> None:
    print(line, flush=True)


def main(make: Callable[[str], Controller], about: str) -> None:
    flags = argparse.ArgumentParser(description=about)
    flags.add_argument("--host", default="127.0.0.1", help="any address of this machine, such as 127.0.0.21")
    host = flags.parse_args().host
    real_time()  # it answers whatever else runs
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(make(host)._run())
