"""What keeps an arm safe, whoever commands it: the safety filter, the watchdog, the latch of an error.

An arm that gets no command for `watchdog_s` is held, until the next one. Its target is never farther ahead of it than
`lag`: it presses on what is in its way no harder than that, and does not jump when that gives way. After an error (the
driver's, or an axis that does not follow at all) it is held until a person clears that. A command that was under way
for longer than `watchdog_s` is not followed, the arm is held: what it was meant for has passed.

Coasting: a bus loses a reply now and then (ConnectionError, TimeoutError). What was lost is counted and bridged until
none has been answered for `coast_s` (see Bridge.call); then, and at once for any other exception, it is an error.
- A lost read: the last measurement stands, marked, until it is `coast_s` old; then the read is repeated. The next
  command does not build on it: it starts from the last target, moves by one step of the limits at most, and stays
  within `lag` of what was really measured. Motion after a hold starts from a new measurement only.
- A lost write is repeated only once, before it is an error. Otherwise the newest target comes next, planned from what
  was sent before: later, without a jump.
- A lost hold is repeated; after an error any is that fails. Meanwhile the motors stand at the last setpoint they got.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from envs.real.arm import Arm, ArmError, State, described
from envs.real.contact import Contact, MotorError
from envs.real.effort import measured
from envs.real.lost_replies import CONNECT_TRIES, LOST, Bridge
from envs.real.safety_filter import Filter
from envs.real.setpoints import Setpoints
from envs.real.setup import Setup
from envs.real.standing import leap

T = TypeVar("T")
HOLD_RETRY_S = 0.02  # between two tries to hold after an error
MOVED = 1.5  # times its sag from where it was held: it was moved by hand
LEAP_S, LOOK_S = 0.2, 0.02  # an arm is watched for so long after its torque came on, so often


class Guard:
    """The arm and all that keeps it safe; `tick` is called again and again. All in one thread."""

    def __init__(self, setup: Setup, arm: Arm) -> None:
        self.setup, self.arm = setup, arm
        self.filter = Filter(setup.limits, setup.period_s)
        self.error: ArmError | None = None
        self._lost = False  # the error is the driver's: it has to be connected again
        self.holds = 0  # by the watchdog
        self._held = True  # no setpoint is sent
        self._stands_s = -np.inf  # since when
        self._hold_due = False  # the driver has not answered the hold after an error yet
        self._commanded_s = 0.0
        self._way = Setpoints(setup.setpoint_hz, self.filter.position)
        self._contact = Contact(arm.axes, setup.lag, setup.stuck_s, setup.squeeze, setup.press, setup.effort)
        self._bridges = {kind: Bridge(setup.coast_s) for kind in ("read", "write", "hold")}
        self._sag = np.zeros(len(arm.axes)) if setup.sag is None else setup.sag
        self._grips = np.zeros(len(arm.axes), bool) if setup.squeeze is None else np.isfinite(setup.squeeze)
        self._last: State | None = None
        self._grace_s = 0.0  # what lost replies took since the last command: no sign of a robot server that is away

    @property
    def lost(self) -> int:
        """Replies, since the start."""
        return sum(bridge.lost for bridge in self._bridges.values()) + int(getattr(self.arm, "lost", 0))

    def connect(self) -> State:
        """A lost reply is no reason to give up. Raises the first error: later ones may be of the retry's own making."""
        first: Exception | None = None
        for left in reversed(range(CONNECT_TRIES)):
            try:
                self.arm.connect()
                break
            except ArmError:
                raise
            except Exception as error:
                first = first or error
                if not left or not isinstance(error, LOST):
                    raise first from None
                with contextlib.suppress(Exception):
                    self.arm.disconnect()
        return self._rest(self._watched())

    def _watched(self) -> State:
        """Raises ArmError for an arm that leaps when its torque comes on: it is held before."""
        first, end_s = self._measure(), time.monotonic() + LEAP_S
        while time.monotonic() < end_s:
            time.sleep(LOOK_S)
            state = self._measure()
            if line := leap(state.position - first.position, self.setup.lag, self.arm.axes):
                raise self.fail(ArmError(line))
        return state

    def command(self, requested: np.ndarray, sent_s: float) -> tuple[np.ndarray, np.ndarray, State]:
        """(where it was sent before, where it is sent now, its state before). The driver's own limits count, too."""
        if self.error:
            raise self.error
        if self._is_late(sent_s):
            state = self.hold()
            return self._way.goal, self._way.goal, state
        self._grace_s = 0.0
        state = self._measure() if self._held else self._state()
        now_s = time.monotonic()
        if self._held:
            self._stand(self._begin(state), now_s)
            if self._is_late(sent_s):  # lost replies took that long: no motion begins on it
                return self._way.goal, self._way.goal, state
        begun = self.filter.position
        target = self.filter.target(self._near(requested, state, now_s), now_s)
        self._way.lead(target, self.filter.elapsed_s, now_s)
        self._held, self._commanded_s = False, min(sent_s, now_s)  # the watchdog's time runs from it
        self._send()
        return begun, self._way.goal, state

    def _is_late(self, sent_s: float) -> bool:
        return time.monotonic() - sent_s > self.setup.watchdog_s

    def state(self) -> State:
        if self.error:
            raise self.error
        return self._state()

    def hold(self) -> State:
        """Also after an error; but then it is raised. A driver that cannot hold is an error, too."""
        self._held = True
        if self.error:
            self._try_hold()
            raise self.error
        stood = self._last if self._way.over(time.monotonic()) else None
        self._answered("hold", self.arm.hold)
        return self._rest(self._measure(), stood)

    def stand(self) -> State:
        """Where the next command begins, as its target: an arm that is held may have been moved by hand."""
        state = self.state()
        if self._held:
            self._stand(self._begin(state), time.monotonic())
        return replace(state, target=self._way.goal.copy())

    def proceed(self) -> np.ndarray:
        """Continue from the last target (n,), returned: held, it may have sagged. Not if it is farther than `lag`."""
        if self.error:
            raise self.error
        state, now_s = self._measure(), time.monotonic()
        if self._held:
            near = np.abs(self._way.goal - state.position) <= self.setup.lag
            self._stand(replace(state, position=self._way.goal) if near.all() else state, now_s)
            self._held, self._commanded_s = False, now_s
        return np.copy(self._way.goal)

    def scene(self, seed: int) -> State:
        if rearrange := getattr(self.arm, "reset_scene", None):
            self._driver(lambda: rearrange(seed))
        return self.state()

    def clear(self) -> State:
        """After an error of the driver the arm is connected again; otherwise it keeps its power: it may hang there."""
        lost, self.error, self._lost = self._lost, None, False
        self._reset_bridges()
        self._contact.reset()
        if lost:
            with contextlib.suppress(Exception):
                self.arm.disconnect()
            return self._driver(self.connect)
        return self.hold()

    def tick(self) -> None:
        """What is due: the next setpoint, the watchdog, or a hold that has not been answered."""
        now_s = time.monotonic()
        if self._hold_due:
            self._try_hold()
        if self._held or self.error:
            return
        if now_s - self._commanded_s > self.setup.watchdog_s + self._grace_s:
            self.holds += 1
            with contextlib.suppress(ArmError):
                self.hold()
        elif self.setup.setpoint_hz:
            with contextlib.suppress(ArmError):
                self._send()

    @property
    def wait_s(self) -> float:
        """Until the next `tick`."""
        if self._hold_due:
            return HOLD_RETRY_S
        if self._held or self.error:
            return 0.5
        left_s = self._commanded_s + self.setup.watchdog_s + self._grace_s - time.monotonic()
        return max(0.0, min(left_s + 0.001, 1 / self.setup.setpoint_hz if self.setup.setpoint_hz else left_s + 0.001))

    def _send(self) -> None:
        """The setpoint that is due now; one whose write is repeated is that of its repetition."""
        sent = self._answered("write", self._write, lambda: self._way.sent)
        if sent.shape != self._way.goal.shape or not np.isfinite(sent).all():
            raise self.fail(ArmError(f"the arm's driver reports that it sent {sent}; expected a number for each axis"))
        self._way.confirm(sent)
        self.filter.position = self._way.goal
        if not self.setup.setpoint_hz:  # a write that was repeated came later than the filter counted
            self.filter.time_s = self._way.sent_s

    def _write(self) -> np.ndarray:
        setpoint = self._way.next(time.monotonic())
        if not np.isfinite(setpoint).all():  # the last look: nothing that comes before lets it get here
            raise ArmError(f"the next target would be {setpoint}: not sent")
        return np.asarray(self.arm.command(setpoint), np.float64)

    def _rest(self, state: State, stood: State | None = None) -> State:
        """The arm has just been held, and stands at the measured `state`: nothing from before counts any more.

        stood: before, if no setpoint was to come. Motors that give way keep the target that they had then, if they have
        only sagged: it does not come down with every hold. A gripper goes on pressing, by its `squeeze` at most.
        """
        at, sag = state.position, self._sag
        if stood and sag.any() and getattr(self.arm, "sags", False):
            ahead = self._way.sent - stood.position
            at = np.where(self._grips | (abs(ahead) <= sag), stood.position + np.clip(ahead, -sag, sag), at)
            self._answered("write", lambda: self.arm.command(at))
        self._stands_s = time.monotonic()
        self._stand(replace(state, position=at), self._stands_s)
        return replace(state, target=at.copy())

    def _begin(self, state: State) -> State:
        """From where it was held, which its motors still make for; from where it is, if it was moved by hand."""
        sagged = np.abs(self._way.goal - state.position) <= MOVED * self._sag
        return replace(state, position=np.where(sagged, self._way.goal, state.position))

    def _stand(self, state: State, now_s: float) -> None:
        """It begins anew at `state`. The next command covers one period; without setpoints no more than it stood."""
        self._hold_due = False
        self._reset_bridges()
        begin_s = now_s - self.setup.period_s
        self.filter.rest(state.position, begin_s if self.setup.setpoint_hz else max(begin_s, self._stands_s))
        self._way.rest(state.position, self._stands_s)
        self._contact.rest()

    def _reset_bridges(self) -> None:
        for bridge in self._bridges.values():
            bridge.reset()

    def _near(self, requested: np.ndarray, state: State, now_s: float) -> np.ndarray:
        """As Contact.near. An arm that is stuck keeps its power when that is cleared: it may hang there."""
        try:
            return self._contact.near(requested, state, now_s)
        except ArmError as error:
            raise self.fail(error) from None

    def _state(self) -> State:
        """The newest measurement; when its reply is lost, the last one while that is not older than `coast_s`."""
        return self._read(self._remembered)

    def _measure(self) -> State:
        """A new measurement, and no remembered one."""
        return self._read(lambda: None)

    def _read(self, instead: Callable[[], State | None]) -> State:
        state = self._answered("read", lambda: measured(self.arm.state(), self.arm.axes), instead)
        relaxed, target = self._contact.relaxed, self._way.goal.copy()
        self._last = state = replace(state, lost=self.lost, target=target, relaxed=relaxed, held=self._held)
        try:
            if not state.coasted:
                self._contact.check(state, time.monotonic())
        except ArmError as error:
            self._lost = isinstance(error, MotorError)  # otherwise it keeps its power: it may hang there
            raise self.fail(error) from None
        return state

    def _remembered(self) -> State | None:
        young = self._last and time.monotonic() - self._last.time_s <= self.setup.coast_s
        return replace(self._last, coasted=True) if self._last and young else None

    def _answered(self, kind: str, call: Callable[[], T], instead: Callable[[], T | None] = lambda: None) -> T:
        """What the driver's `call` returns, its lost replies bridged; see Bridge.call."""
        bridge, begun_s = self._bridges[kind], time.monotonic()
        before = self.lost
        try:
            return self._driver(lambda: bridge.call(call, instead))
        finally:
            if self.lost != before:
                self._grace_s = min(self._grace_s + time.monotonic() - begun_s, self.setup.coast_s)

    def _driver(self, call: Callable[[], T]) -> T:
        """Whatever a driver raises, its own mistakes too, holds the arm: without power it might fall."""
        try:
            return call()
        except Exception as error:
            self._lost = True
            raise self.fail(error) from None

    def fail(self, error: Exception) -> ArmError:
        """The arm is held until a person clears that. Returns what is raised until then."""
        self.error = ArmError(described(error))
        self._held = True
        self._try_hold()
        return self.error

    def _try_hold(self) -> None:
        """Once; `tick` repeats it until it is answered."""
        try:
            self.arm.hold()
            self._hold_due = False
        except Exception:
            self._hold_due = True
