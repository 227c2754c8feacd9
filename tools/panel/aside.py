"""An event loop in a thread of its own: what takes long there delays nothing in the loop of its caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Aside:
    """Its thread starts with the first `do`. A long call into C may hold the caller up all the same."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="aside", daemon=True)

    async def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns or raises there; whoever is cancelled here cancels it."""
        if self._loop is None:
            self._thread.start()
            self._ready.wait()
        assert self._loop
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._over.wait()

    def close(self) -> None:
        """Cancel what is under way there, and wait until it has ended, its threads too."""
        if self._loop and self._over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
