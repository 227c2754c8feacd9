"""The operator's place at an evaluation: the socket of tools.panel and tools.teleop, and keys in the terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agent.spec import UserError
from robot_server.command import LATCHES
from robot_server.control import Control
from robot_server.session import REMIND_S
from tools.devices.terminal import terminal_if_any

KEYS = """\
keys, in this terminal or on the page (python -m tools.panel)
  y / n       success / failure; also ends the episode     Enter   confirm the verdict; also ends the episode
  Backspace   void: the episode is repeated                p       pause, resume; the scene is ready
  Space       STOP (on the page: Escape)                   R       release STOP, after you have inspected the arm
  Ctrl-C      stop the evaluation; the same command resumes it"""
EVENTS = {"y": "success", "n": "failure", "enter": "end", "backspace": "discard", "space": "stop", "R": "release"}
VERDICTS = {"success": "success", "failure": "failure", "discard": "void, to be repeated"}

log = logging.getLogger(__name__)


class Desk(Control):
    """A Control that also takes keys of the terminal, where stdin is one."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._terminal = terminal_if_any()
        self.running = False
        self._seen: dict[str, float] = {}  # what the person at the terminal knew when they pressed a key

    def serve(self) -> None:
        self._seen = self._seen or self._state_now()
        super().serve()
        self._read_keys()
        self._seen = self._state_now()

    def _read_keys(self) -> None:
        if not self._terminal:
            return
        try:
            keys = self._terminal.keys()
        except UserError:  # it has closed: SIGHUP ends the evaluation, and the page is still there
            self._terminal = None
            return
        for key in keys:
            event = ("resume" if self.paused else "pause") if key == "p" else EVENTS.get(key)
            if event:
                self.press(event)

    def press(self, event: str) -> None:
        """An event of the person at this terminal.

        They saw the arm as it was when the keys were last read: a stop that has come since, and a key that waited while
        an arm connected, are not what they meant to lift.
        """
        seen = self._seen if event in LATCHES else self._state_now()
        if why := self._event({"event": event, **seen}, 0.0):
            log.info("%s: %s", event, why)

    def _state_now(self) -> dict[str, float]:
        return {**self.numbers, "seen_s": time.monotonic()}

    def ask(self, episode: str, given: str, stop: Callable[[], bool]) -> str:
        """The person's verdict on the episode that has ended, once they have confirmed it; '' when stop().

        given: a verdict that they gave during the episode, or ''. It waits without limit, and reminds.
        """
        self.drop_events()
        self.running = True
        try:
            return self._asked(episode, given, stop)
        finally:
            self.running = False
            self.show(self._observation, {**self._status, "state": ""})

    def _asked(self, episode: str, given: str, stop: Callable[[], bool]) -> str:
        self._ask_for(episode, given)
        reminded_s = time.monotonic()
        while not stop():
            self.wait(0.02)
            for event in self.read().events:
                if event in VERDICTS:
                    given, reminded_s = event, time.monotonic()
                    self._ask_for(episode, given)
                elif event == "end" and given:
                    return given
            if time.monotonic() - reminded_s > REMIND_S:
                reminded_s = time.monotonic()
                self._ask_for(episode, given)
        return ""

    def _ask_for(self, episode: str, given: str) -> None:
        self.show(self._observation, {**self._status, "state": "confirm" if given else "ended"})
        if given:
            log.info("%s: %s? Enter confirms; y, n or Backspace changes it", episode, VERDICTS[given])
        else:
            log.info("%s has ended: y (success), n (failure) or Backspace (void), then Enter", episode)

    def close(self) -> None:
        if self._terminal:
            self._terminal.close()
        super().close()
