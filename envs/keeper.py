"""What keeps an arm safe, whoever commands it: the safety filter, the watchdog, the latch of an error.

An arm that gets no command for `watchdog_s` is held, until the next one. After an error (the driver's, or an axis that
does not follow) it is held until a person clears that. A command that was under way for longer than `watchdog_s` is
refused: what it was meant for has passed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.arm import Arm, ArmError, State
from envs.safety import Filter, Limits

BRAKES = (OSError, RuntimeError)  # of a driver: the arm is held, a person has to look


@dataclass(frozen=True)
class Setup:
    """kind, options: of make_arm. setpoint_hz: targets are reached in so many even steps a second; 0: at once.

    lag: float64 (n,), how far the arm may be from where it was sent `lag_s` before; then it is stuck.
    """

    kind: str
    options: Mapping[str, Any]
    limits: Limits
    period_s: float
    watchdog_s: float
    release_s: float
    setpoint_hz: float
    lag: np.ndarray
    lag_s: float
    realtime: bool = True


class Keeper:
    """The arm and all that keeps it safe; `turn` is called again and again. All in one thread."""

    def __init__(self, setup: Setup, arm: Arm) -> None:
        self.setup, self.arm = setup, arm
        self.filter = Filter(setup.limits, setup.period_s)
        self.error: ArmError | None = None
        self.holds = 0  # by the watchdog
        self._held = True
        self._commanded_s = 0.0
        self._from, self._to, self._from_s = self.filter.position, self.filter.position, 0.0
        self._sent: list[tuple[float, np.ndarray]] = []  # targets, to compare with what the arm does

    def connect(self) -> State:
        self.arm.connect()
        return self._rest(self.arm.state())

    def command(self, wish: np.ndarray, sent_s: float) -> tuple[np.ndarray, np.ndarray, State]:
        """(where it was sent before, where it is sent now, its state before). The driver's own limits count, too."""
        if self.error:
            raise self.error
        now_s = time.monotonic()
        if now_s - sent_s > self.setup.watchdog_s:
            raise TimeoutError(f"a command was {now_s - sent_s:.2f} s under way, and was not carried out")
        state = self._driver(self.arm.state)
        self._follow(state)
        if self._held:
            self._rest(state)
            self.filter.rest(state.position, now_s - self.setup.period_s)
        begun, self._from = self.filter.position, self._setpoint(now_s)
        self._to, self._from_s = self.filter.target(wish, now_s), now_s
        self._held, self._commanded_s = False, now_s
        self._send(now_s)
        self._sent.append((now_s, self._to))
        return begun, self._to, state

    def state(self) -> State:
        if self.error:
            raise self.error
        state = self._driver(self.arm.state)
        self._follow(state)
        return state

    def hold(self) -> State:
        """Also after an error; but then it is raised."""
        self._held = True
        with contextlib.suppress(*BRAKES):
            self.arm.hold()
        if self.error:
            raise self.error
        return self._rest(self._driver(self.arm.state))

    def scene(self, seed: int) -> State:
        if rearrange := getattr(self.arm, "reset_scene", None):
            self._driver(lambda: rearrange(seed))
        return self.state()

    def clear(self) -> State:
        """The arm is connected again, for whatever was the matter."""
        if self.error:
            with contextlib.suppress(*BRAKES):
                self.arm.disconnect()
            self.error = None
            try:
                return self.connect()
            except BRAKES as error:
                raise self._broken(error) from None
        return self.hold()

    def turn(self) -> None:
        """What is due: the next setpoint, or the watchdog."""
        now_s = time.monotonic()
        if self._held or self.error:
            return
        if now_s - self._commanded_s > self.setup.watchdog_s:
            self.holds += 1
            with contextlib.suppress(ArmError):
                self.hold()
        elif self.setup.setpoint_hz:
            with contextlib.suppress(ArmError):
                self._send(now_s)

    @property
    def wait_s(self) -> float:
        """Until the next `turn`."""
        if self._held or self.error:
            return 0.5
        left_s = self._commanded_s + self.setup.watchdog_s - time.monotonic()
        return max(0.0, min(left_s + 0.001, 1 / self.setup.setpoint_hz if self.setup.setpoint_hz else left_s + 0.001))

    def _setpoint(self, now_s: float) -> np.ndarray:
        share = (now_s - self._from_s) / self.setup.period_s if self.setup.setpoint_hz else 1.0
        return self._from + min(max(share, 0.0), 1.0) * (self._to - self._from)

    def _send(self, now_s: float) -> None:
        setpoint = self._setpoint(now_s + (1 / self.setup.setpoint_hz if self.setup.setpoint_hz else 0.0))
        sent = self._driver(lambda: self.arm.command(setpoint))
        if (short := np.asarray(sent, np.float64) - setpoint).any():
            self.filter.position = self._to = self._to + short
            self._from = self._from + short

    def _rest(self, state: State) -> State:
        self.filter.rest(state.position, state.time_s)
        self._from = self._to = self.filter.position.copy()
        self._sent.clear()
        return state

    def _follow(self, state: State) -> None:
        """Latches an error when the arm is far from where it was sent a while ago: stuck, pushed or without power."""
        due = [target for sent_s, target in self._sent if sent_s <= state.time_s - self.setup.lag_s]
        if not due:
            return
        self._sent = self._sent[len(due) - 1 :]
        reach = np.stack([due[-1], *(target for _, target in self._sent[1:]), self._setpoint(state.time_s)])
        off = np.maximum(reach.min(axis=0) - state.position, state.position - reach.max(axis=0))
        beyond = off - self.setup.lag
        if (axis := int(beyond.argmax())) >= 0 and beyond[axis] > 0:
            name, lag_s = self.arm.axes[axis], self.setup.lag_s
            raise self._broken(
                ArmError(f"axis '{name}' is {off[axis]:.3g} from where it was sent {lag_s:g} s ago: stuck, or pushed")
            )

    def _driver(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BRAKES as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> ArmError:
        self.error = ArmError(" ".join(str(error).split()) or type(error).__name__)
        self._held = True
        with contextlib.suppress(*BRAKES):
            self.arm.hold()
        return self.error
