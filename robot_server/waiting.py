"""What an episode waits for: a person who paused it, a prompt of the reset, a learner that cannot keep up."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from agent.spec import Observation, Spec, Transition
from envs.base import ask_in_terminal
from envs.clock import Clock
from robot_server.control import Control

SAY_S = 0.5  # a shorter hold is not worth a line: a driver's connection that stutters makes many

log = logging.getLogger(__name__)


class StepSink(Protocol):
    """Where the steps of an episode go, and the newest weights come from: what is needed of robot_server.link.Link."""

    spec: Spec

    @property
    def version(self) -> int: ...

    @property
    def hold_s(self) -> float: ...

    @property
    def backlog(self) -> int: ...

    def begin(self, meta: Mapping[str, Any] | None = None) -> int: ...

    def send(self, transition: Transition) -> None: ...

    def cut(self, observation: Observation | None = None, ending: str = "") -> None: ...

    def save(self) -> None: ...

    def pump(self) -> None: ...

    def wait(self, timeout_s: float) -> None: ...

    def newest_weights(self) -> tuple[int, dict[str, np.ndarray]] | None: ...


class Pauses:
    """What a real arm asks while a step or a reset takes its time: whether it is to be held now.

    held_s: for how long it was.
    """

    def __init__(self, link: StepSink, control: Control | None, stop: Callable[[], bool] = lambda: False) -> None:
        self._link, self._control, self._stop = link, control, stop
        self.held_s = 0.0
        self._since_s = math.inf  # when it was looked at last, if it was held then

    def __call__(self, left_s: float) -> bool:
        """Gives the time to link and operator. Raises KeyboardInterrupt when `stop()`."""
        if self._stop():
            raise KeyboardInterrupt
        self._link.wait(min(left_s, 0.01))
        if self._control:
            self._control.serve()
        held, now_s = bool(self._control and self._control.hold_reason), time.monotonic()
        self.held_s += max(0.0, now_s - self._since_s)
        self._since_s = now_s if held else math.inf
        return held


class Prompt:
    """What a reset asks a person to do: they say that it is done by "resume", or without a page in the terminal.

    count, waited_s: how often and how long one was asked.
    """

    def __init__(self, link: StepSink, control: Control | None, stop: Callable[[], bool] = lambda: False) -> None:
        self._control, self._pauses = control, Pauses(link, control, stop)
        self.count, self.waited_s = 0, 0.0

    def __call__(self, prompt: str) -> None:
        began = time.monotonic()
        self.count += 1
        try:
            self._ask(prompt)
        finally:
            self.waited_s += time.monotonic() - began

    def _ask(self, prompt: str) -> None:
        if not self._control:
            ask_in_terminal(prompt)
            return
        log.info("%s (then press Resume in the panel)", prompt, extra={"kind": "stop"})
        self._control.latch_pause(prompt)
        while self._pauses(0.05):
            pass


def hold_for_learner(link: StepSink, stop: Callable[[], bool], max_backlog: float, control: Control | None) -> None:
    """Simulation only: wait while the learner asks for it or takes no steps: data must not run ahead of learning."""
    while ((hold_s := link.hold_s) > 0 or link.backlog > max_backlog) and not stop():
        link.wait(min(hold_s or 0.1, 0.1))
        if control:
            control.serve()


def pause(control: Control, link: StepSink, clock: Clock, stop: Callable[[], bool]) -> float:
    """Until a person lets go on, or ends the episode, or `stop()`. Returns how long that took, s."""
    began_s = time.monotonic()
    say_s: float = began_s + SAY_S
    while control.hold_reason and not control.waiting and not stop():
        if time.monotonic() >= say_s:
            log.info("%s: held between two steps", control.hold_reason, extra={"kind": "stop"})
            say_s = math.inf
        link.pump()
        control.wait(0.02)
    clock.start()
    return time.monotonic() - began_s
