"""How a command ends: signals, exit codes, and pipes that nobody reads.

Exit codes: 0 done, 2 usage or configuration error (one line), 1 anything else; 130, 143 and 129 (128 + the signal's
number) when Ctrl-C, SIGTERM or SIGHUP stopped it before its work was done. SIGHUP (the terminal closed) is treated as
SIGTERM, and ignored under nohup. What runs until it is stopped (robot server, panel, teleop) exits with 0 then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from agent import logs
from agent.spec import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # each asks a command to stop
_received: int = signal.SIGINT  # the newest of them


def heeded() -> list[signal.Signals]:
    """SIGNALS, without SIGHUP under nohup."""
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]


def _note(number: int) -> None:
    global _received
    _received = number
    if number == signal.SIGHUP:
        signal.signal(number, _nothing)  # kernel and shell may both send it: the second must not interrupt a checkpoint
        for file in (1, 2):
            if _dead(file):  # writing to a terminal that has closed is an error, which must not stop one either
                _silence(file)


def _nothing(number: int, frame: types.FrameType | None) -> None:
    """The handler of SIGHUP after the first one."""


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    _note(number)
    raise KeyboardInterrupt


class Stop:
    """In its `with` block, turns true at the first of SIGNALS; a second, not SIGHUP, raises KeyboardInterrupt.

    After `closing` two more only set at_once, so that what must be closed is closed; then one raises. at_once:
    there was a second. number: of the first, 0 before. exit_code: for a command that was stopped before its
    work was done.
    """

    def __init__(self) -> None:
        self.asked = self.at_once = self._closing = False
        self.number = self._more = 0
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        return 128 + self.number if self.asked else 0

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._ask) for number in heeded()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) is not _nothing:
                signal.signal(number, handler)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            self.at_once = True
            if self._closing and self._more < 2:
                self._more += 1
                return
            _interrupt(number, frame)
        _note(number)
        self.asked, self.number = True, number

    def closing(self) -> None:
        """What follows closes a robot, a socket, a spool: the next signal is not to cut that short."""
        self._closing = True

    def __call__(self) -> bool:
        return self.asked


def run(main: Callable[[list[str]], int | None]) -> typing.NoReturn:
    """Set up logging, run a command with sys.argv, and exit. A UserError is one line; a closed pipe (`... | head`) is
    silent.
    """
    logs.configure()
    for number in heeded():
        if number != signal.SIGINT:
            signal.signal(number, _interrupt)
    try:
        try:
            code: Any = main(sys.argv[1:]) or 0
        except SystemExit as end:  # --help
            code = end.code
        if sys.stdout:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 128 + _received
    except BrokenPipeError:
        if not (_dead(1) or _dead(2)):
            raise
        code = 128 + signal.SIGPIPE
    for file in (1, 2):
        if _dead(file):
            _silence(file)  # Python flushes it once more
    sys.exit(code)


def _dead(file: int) -> bool:
    """Whether it is a pipe that nobody reads any more, or a terminal that has closed."""
    poll = select.poll()
    poll.register(file, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _silence(file: int) -> None:
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, file)
        os.close(nothing)
