"""A TCP proxy on this machine that can be a bad network."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Literal

Mode = Literal["pass", "drop", "stall"]


class Proxy:
    """Carries connections to `port` here to 127.0.0.1:`target`, in a thread of its own, until close().

    mode: "pass"; "drop" closes connections, new ones at once; "stall" keeps them, new ones too, and carries nothing.
    What was under way in a stall goes on its way after it.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.mode: Mode = "pass"
        self._open = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.become("pass")

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def become(self, mode: Mode) -> None:
        async def change() -> None:
            self.mode = mode
            (self._open.clear if mode == "stall" else self._open.set)()
            if mode == "drop":
                self._hang_up()

        self._call(change())

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            self._hang_up()
            carrying = asyncio.all_tasks() - {asyncio.current_task()}
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        ends = [writer]
        self._writers.add(writer)
        try:
            await self._open.wait()
            if self.mode == "drop":
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(back)
            self._writers.add(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass  # one end is gone: so is the other, in a moment
        finally:
            for end in ends:
                self._writers.discard(end)
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        await self._open.wait()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
