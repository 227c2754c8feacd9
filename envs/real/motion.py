"""How a real arm's environment moves its arm: one command a period, none while a person has stopped or paused it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from envs.base import PacedEnv
from envs.real.arm import ArmError, State
from envs.real.arm_process import ArmProcess
from envs.real.route import Ways

LOOK_S = 0.02  # what waits looks after cameras and operator so often
STAND_TIMEOUT_S = 1.0  # for which the arm may swing before it stands


class Motion:
    """Of `arm`, by the clock of `env`, whose `paused` gets the time that is left of each period.

    rested: called with the target whenever the arm stands anew. watch: called while a period passes; what it raises
    ends that.
    target: float64 (n,), where all axes were sent last. held: the arm stands until the next command.
    """

    target: np.ndarray
    held: bool

    def __init__(
        self,
        env: PacedEnv,
        arm: ArmProcess,
        ways: Ways,
        rested: Callable[[np.ndarray], None],
        watch: Callable[[], None],
    ) -> None:
        self._env, self._arm, self._ways, self._rested, self._watch = env, arm, ways, rested, watch
        self._seen: deque[np.ndarray] = deque(maxlen=ways.window)  # since it stood last
        self.rest(arm.first)

    def rest(self, state: State) -> None:
        """The arm stands at `state`, and is sent to its target."""
        self.target, self.held = (state.position if state.target is None else state.target).copy(), True
        self._seen.clear()
        self._rested(self.target)

    def hold(self) -> None:
        """Raises ArmError."""
        self.held = True
        self.rest(self._arm.hold())

    def command(self, requested: np.ndarray) -> tuple[np.ndarray, State]:
        """(where the arm was sent before, its state before). Raises ArmError."""
        begun, self.target, state = self._arm.command(requested)
        self.held = False
        self._seen.append(state.position)
        return begun, state

    def go(self, place: Mapping[str, float]) -> None:
        """Move the named axes there, evenly. Raises ArmError when the arm does not arrive."""
        self.await_release()
        route = self._ways.route(self.target, place)
        while not route.over:
            _, state = self.command(route.next())
            if route.arrived(state.position):
                return
            while self.wait():  # a person has stopped or paused it: from here again, when they let go
                route.restart(self.target)
        if (axis := route.missed()) is not None:
            where = f"{route.goal[axis]:.3g}, it is at {state.position[axis]:.3g}"
            raise ArmError(f"axis '{self._arm.axes[axis]}' does not reach {where}")

    def settle(self, place: Mapping[str, float]) -> None:
        """After `go` to `place`: until all of the arm stands there, grippers too; for STAND_TIMEOUT_S at most."""
        goal = self._ways.goal(self.target, place)
        for _ in range(math.ceil(STAND_TIMEOUT_S * self._env.clock.hz)):
            while self.wait():  # a person has stopped or paused it: from here again, when they let go
                pass
            self.command(goal)
            if self._ways.stands(self._seen):
                return

    def wait(self) -> bool:
        """Until the end of the period; whether the arm had to be held meanwhile."""
        held = False

        def idle(left_s: float) -> None:
            nonlocal held
            self._watch()
            held = self._pauses(min(left_s, LOOK_S)) or held

        self._env.clock.wait(idle)
        return held

    def await_release(self) -> None:
        """Before something moves anew: until nobody has stopped or paused it."""
        left_s = 0.0
        while self._pauses(left_s):
            left_s = LOOK_S
        self._env.clock.start()

    def _pauses(self, left_s: float) -> bool:
        """Give the time to the operator; whether the arm must not move now, which is held then."""
        pauses = self._env.paused(left_s)
        if pauses and not self.held:
            self.hold()
        return pauses
