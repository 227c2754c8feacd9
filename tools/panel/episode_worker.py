"""A process that reads or edits recorded episodes for the page: the robot's page never waits for a disk, and lives on
when a damaged file ends that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from agent.spec import UserError

EDITS = "edits"  # instead of a source's kind: tools.panel.episode_edits
ANSWER_S = 60.0  # for one question; then the process is ended
EDIT_S = 1800.0  # for an edit: some hundred episodes, on a slow disk
MOST_WAITING = 100  # questions of one worker


class Busy(UserError):
    """Too many questions wait; nothing is wrong with what this one is about."""


class Worker:
    """Answers one question at a time. kind: of a Reader, or EDITS. nice: how much it gives way to others, 0 to 19."""

    def __init__(self, place: Path, kind: str, nice: int) -> None:
        self._arguments = place, kind, nice
        self._answer_s, self._doing = (EDIT_S, "edit") if kind == EDITS else (ANSWER_S, "read")
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._turn, self._waiting = asyncio.Lock(), 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def ask(self, what: str, *arguments: Any) -> Any:
        """What the method `what` of its Reader or Edits returns. Raises UserError in one line, whatever went wrong."""
        if self._waiting >= MOST_WAITING:
            raise Busy("too many requests at once")
        self._waiting += 1
        task = asyncio.create_task(self._ask(what, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._settle)
        return await asyncio.shield(task)  # whoever asked may have left: the answer is taken all the same

    async def _ask(self, what: str, *arguments: Any) -> Any:
        try:
            async with self._turn:
                done, value = await asyncio.to_thread(self._exchange, what, arguments)
        finally:
            self._waiting -= 1
        if not done:
            raise UserError(value)
        return value

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was raised to whoever asked, if they are still there

    def _exchange(self, what: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        if not self.alive:
            self.close()
            self._start()
        assert self._pipe
        try:
            self._pipe.send((what, arguments))
            if self._pipe.poll(self._answer_s):
                done, value = self._pipe.recv()
                return bool(done), value
            trouble = f"took longer than {self._answer_s:.0f} s"
        except (EOFError, OSError):
            trouble = f"ended the process that {self._doing}s it"
        self.close()
        named = f": {arguments[0]}" if arguments and isinstance(arguments[0], str) else ""
        return False, f"{self._arguments[0]}{named}: {self._doing}ing it {trouble}"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is noticed

    @property
    def alive(self) -> bool:
        """Whether there is a process, which has not ended."""
        return self._process is not None and self._process.is_alive()

    def finish(self, what: str) -> None:
        """Ask a last question, if there is a process, and end it. Not while another question is asked."""
        if self.alive:
            self._exchange(what, ())
        self.close()

    def close(self) -> None:
        """End the process; the next question starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def serve(pipe: Connection, place: Path, kind: str, nice: int) -> None:
    """The process: answers until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the page's server ends it
    if kind == EDITS:
        for number in (signal.SIGTERM, signal.SIGHUP):  # to all processes of a service: an edit is not left half done
            signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(nice)
    made: Any = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            what, arguments = pipe.recv()
            try:
                made = made or _make(place, kind)
                answer = True, getattr(made, what)(*arguments)
            except UserError as error:
                answer = False, " ".join(str(error).split())
            except (Exception, MemoryError) as error:  # a file may come from anybody
                answer = False, " ".join(f"{place}: cannot be read: {error or type(error).__name__}".split())
            pipe.send(answer)


def _make(place: Path, kind: str) -> Any:
    """What answers. Imported in the process itself: the page's server has no use for it."""
    if kind == EDITS:
        from tools.panel.episode_edits import Edits

        return Edits(place)
    from tools.panel.episode_reader import Reader

    return Reader(place, kind)
