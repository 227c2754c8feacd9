"""Keys from the terminal that the program runs in, by termios: no window system, over ssh as well."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

from agent.spec import UserError

# An arrow key is "ESC [ A" or "ESC O A"; an unknown sequence is one (unknown) key, not the letters in it.
TOKEN = re.compile(r"\x1b[\[O][0-9;]*[ -/]*[@-~]|\x1b.|[^\x1b]", re.DOTALL)
UNFINISHED = re.compile(r"\x1b(?:[\[O][0-9;]*[ -/]*)?\Z")
NAMES = {
    "\r": "enter", "\n": "enter", " ": "space", "\x7f": "backspace", "\b": "backspace",
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
}  # fmt: skip


SWITCHES = ("space", "p", "e")  # keys that switch something over: once, however long they are held
ONCE_S = 0.7  # a key that is held repeats after 0.25 to 0.66 s with the usual settings, then every 0.03 s


class Terminal:
    """Takes the terminal on stdin over until `close`; Ctrl-C remains Ctrl-C. Raises UserError if stdin is none."""

    def __init__(self, what: str, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._seen = now, dict[str, float]()
        self._file, self._rest = sys.stdin.fileno() if sys.stdin else -1, ""
        if self._file < 0 or not os.isatty(self._file):
            raise UserError(f"{what} needs a terminal, and stdin is not one (over ssh: ssh -t)")
        self._before: list[Any] | None = termios.tcgetattr(self._file)
        changed = termios.tcgetattr(self._file)
        changed[0] &= ~(termios.IXON | termios.ICRNL)  # Ctrl-S would stop the status line, and with it the arm's loop
        changed[3] &= ~(termios.ICANON | termios.ECHO)
        changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
        changed[6][termios.VSUSP] = os.fpathconf(self._file, "PC_VDISABLE").to_bytes(1, "little")
        termios.tcsetattr(self._file, termios.TCSADRAIN, changed)

    def keys(self) -> list[str]:
        """What was pressed, or repeats, since the last call, in order: "w", "enter", "up", ...; never blocks.

        Raises UserError when the terminal was closed.
        """
        text = self._rest
        while select.select([self._file], [], [], 0)[0]:
            try:
                read = os.read(self._file, 4096)
            except OSError:
                read = b""
            if not read:
                raise UserError("the terminal was closed")
            text += read.decode("ascii", "replace")
        unfinished = UNFINISHED.search(text)
        self._rest = unfinished[0] if unfinished and unfinished[0] != self._rest else ""
        text = text[: len(text) - len(self._rest)]
        return [key for token in TOKEN.findall(text) if self._pressed(key := NAMES.get(token, token))]

    def _pressed(self, key: str) -> bool:
        """False for one of SWITCHES that is only held."""
        if key not in SWITCHES:
            return True
        before, self._seen[key] = self._seen.get(key, -ONCE_S), self._now()
        return self._seen[key] - before >= ONCE_S

    def close(self) -> None:
        """The terminal as it was. What was typed and not read is dropped: it was not meant for the shell."""
        if self._before:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._file, termios.TCSAFLUSH, self._before)
            self._before = None


class Marks:
    """The keys that speak of an episode, from the terminal; the same for every device."""

    keys = """\
  Enter       end the episode, kept as the environment judges it
  y / n       end it: success / failure        Backspace   discard it
  p           pause, go on                     q, Ctrl-C   stop recording"""
    EVENTS = {"enter": "end", "y": "success", "n": "failure", "backspace": "discard", "q": "stop"}

    def __init__(self) -> None:
        self._paused = False

    def reset(self) -> None:
        """A new episode begins, which is not paused."""
        self._paused = False

    def events(self, keys: list[str]) -> tuple[str, ...]:
        """Those among `keys` as events of robot_server.command."""
        found = []
        for key in keys:
            if key == "p":
                self._paused = not self._paused
                found.append("pause" if self._paused else "resume")
            elif key in self.EVENTS:
                self._paused = False
                found.append(self.EVENTS[key])
        return tuple(found)


def terminal_if_any() -> Terminal | None:
    """For the marks, beside a device that has few buttons."""
    return Terminal("") if sys.stdin and sys.stdin.isatty() else None
