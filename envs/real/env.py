"""A real arm as a Gymnasium environment: an arm, cameras, the safety filter, a success source and a reset.

`step` returns at the end of its control period, with what is seen then: whoever calls it does not wait, but acts. Its
deadlines are absolute, so that errors do not add up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.base import EE_POS, EE_ROT, RESET_TASK, Info, Observation, PacedEnv, RobotFault, ask_in_terminal, is_flag
from envs.clock import Clock
from envs.real.actions import Actions, AxisActions
from envs.real.arm import ArmError, State
from envs.real.camera_options import CameraError
from envs.real.camera_set import CameraSet
from envs.real.effort import EffortReport
from envs.real.hand import HandActions, read_hand
from envs.real.lost_replies import LostReplies
from envs.real.motion import Motion
from envs.real.options import Axis, RealOptions, check, read_axis
from envs.real.ready import Ready
from envs.real.realtime import real_time
from envs.real.route import Ways
from envs.real.start_check import StartCheck, far_outside
from envs.real.startup import effort_limits, start_arm


class RealEnv(gymnasium.Env, PacedEnv):
    """Observation: each camera uint8 (size, size, 3); "proprio" float32 (n,): the axes, measured, in their units; with
    `observe`, "load" in %, "current" in mA, "temperature" in °C, float32 (k,), of the axes that have it, in order; with
    the option `hand` "ee_pos" (3,), m, and "ee_rot" (6,), two columns of its rotation matrix, in the base's frame.
    Action float32 (m,) in [-1, 1], of the axes that are named: motion, as a share of `speed`; a gripper: open, closed.
    With `hand` a step of the hand instead of those axes that are its joints.
    Reward 1 on success, where the arm's own world tells it, else 0: a classifier or a person says it then.

    info: "action" as it left the safety filter, less what lost setpoints and holds have cut off by the end of the step
    (one that is lost after that is in the next action); "observation_age_s", of the oldest part of what was seen;
    "action_latency_s", from what was seen to the command that followed; "coasted": the arm's newest state was lost.

    Raises ValueError, one line, for bad options and an arm or camera that is not there; RobotFault in step and reset.
    """

    metadata: dict[str, Any] = {"render_modes": []}
    has_reset_task = True

    def __init__(self, options: RealOptions) -> None:
        self.options, self.task_name = options, str(options.arm_options.get("task", options.arm))
        self.paused: Callable[[float], bool] = _sleep
        self.ask: Callable[[str], object] = ask_in_terminal
        check(options)
        self._named = {name: read_axis(name, given) for name, given in options.axes.items()}
        self._period_s = 1 / options.control_hz
        hand = read_hand(options, self._named)
        self.clock = Clock(options.control_hz)
        self._ready = Ready(options.ready) if options.ready else None  # before an arm is started
        self.resetting = options.reset_task
        self._cameras = CameraSet(options)
        self._start_check = StartCheck(options)
        self.realtime = self.realtime_denied = False
        self.motors: dict[str, dict[str, Any]] = {}
        self.lost_replies, self._lost = 0, LostReplies("the arm's bus")
        self._arm = start_arm(options, self._named)
        try:
            self.realtime = options.realtime and real_time()
            self.realtime_denied = options.realtime and not self.realtime
            self._cameras.start()
            named, axes, period_s = self._named, self._arm.axes, self._period_s
            limits = effort_limits(options, [named.get(name, Axis()) for name in axes])
            self._effort = EffortReport(limits, axes, options.observe, self._arm.first)
            self._actions: Actions = (
                HandActions(hand, named, axes, period_s) if hand else AxisActions(named, axes, period_s)
            )
            self._steps, self._anew, self._seen_s = 0, True, time.monotonic()
            ways = Ways(named, axes, options.reset_speed, period_s)
            self._motion = Motion(self, self._arm, ways, self._rested, self._cameras.watch)
            self._start_check.first_state(self._named, self.target[self.action_axes])
            self._uninspected = far_outside(self._named, self.target[self.action_axes])
            first, _ = self._observe()
            boxes: dict[str, gymnasium.Space[Any]] = {
                name: gymnasium.spaces.Box(0, 255, value.shape, np.uint8)
                if value.ndim == 3
                else gymnasium.spaces.Box(-np.inf, np.inf, value.shape, np.float32)
                for name, value in first.items()
            }
            self.observation_space = gymnasium.spaces.Dict(boxes)
            if self._ready:
                self._ready.check(self.observation_space)
        except (ArmError, RuntimeError) as error:
            self.close()
            raise ValueError(str(error)) from None
        except BaseException:
            self.close()
            raise
        self._size = len(self._actions.meaning["names"])
        self.action_space = gymnasium.spaces.Box(-1, 1, (self._size,), np.float32)

    @property
    def action_meaning(self) -> dict[str, Any]:
        """See envs.base.action_meaning. A gripper's number does not scale: beyond actions.GRIP it opens or closes."""
        return {
            "kind": "delta",
            **self._actions.meaning,
            "control_hz": float(self.options.control_hz),
            "robot": self.options.arm.removeprefix("lerobot:").removeprefix("mock:").removesuffix("_follower"),
        }

    @property
    def state_names(self) -> dict[str, list[str]]:
        """See envs.base.state_names."""
        hand = {"ee_pos": EE_POS, "ee_rot": EE_ROT} if isinstance(self._actions, HandActions) else {}
        return {"proprio": list(self._arm.axes), **hand, **self._effort.names}

    @property
    def action_axes(self) -> list[int]:
        """Where the axes that actions move are among the arm's."""
        return [self._arm.axes.index(name) for name in self._named]

    @property
    def target(self) -> np.ndarray:
        """float64 (n,), where all axes of the arm were sent last."""
        return self._motion.target

    def measure(self) -> State:
        """The arm's newest state, now. Raises RobotFault."""
        with self._faults():
            self.state = self._arm.state()
        return self.state

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        """Home, by way of `via`, through the safety filter; then the prompt, and a bounded random start.

        options: {"reset_task": True}: the arm stays where it is, and this episode's task is to put the scene back.
        """
        super().reset(seed=seed)
        self.resetting = bool((options or {}).get(RESET_TASK, self.options.reset_task))
        self._anew = not self.resetting  # else the gripper keeps what it holds
        with self._faults():
            self._motion.hold()
            if self._uninspected:
                raise ArmError(self._uninspected)
            self.clock.start()
            if not self.resetting:
                self._home()
            elif self.options.reset_task and self.options.prompt:  # no policy has made the scene that is to be put back
                self._ask(self.options.prompt)
            self._motion.hold()
            self.clock.start()
            self._motion.wait()
            observation, age_s = self._observe()
        self._steps, self._anew = 0, False
        if self._ready:
            self._ready.begin()
        return observation, {"success": False, "observation_age_s": age_s, "coasted": self.state.coasted}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        action = np.asarray(action, np.float64)
        if action.shape != (self._size,):
            raise ValueError(f"action must be {self._size} numbers, not of the shape {action.shape}")
        with self._faults():
            if self._motion.held:  # it may have been moved by hand: it does not go back
                self._motion.rest(self._arm.stand())
            requested = self._actions.requested(action, self.target)
            latency_s = time.monotonic() - self._seen_s
            begun, _ = self._motion.command(requested)
            self._motion.wait()
            observation, age_s = self._observe()
        self._steps += 1
        success = is_flag(self.state.success) and bool(self.state.success)
        if self.resetting:
            success = bool(self._ready and self._ready.shown(observation))
        truncated = not success and self._steps >= self.options.horizon
        info = {
            "success": success,
            "action": self._actions.executed(begun, self.target),
            "observation_age_s": age_s,
            "action_latency_s": latency_s,
            "coasted": self.state.coasted,
        }
        return observation, float(success), success, truncated, info

    def hold(self) -> None:
        if not self._motion.held:
            with self._faults():
                self._motion.hold()

    def clear(self) -> None:
        with self._faults():
            self._motion.rest(self._arm.clear())
            self._observe()
        self._uninspected = ""

    def towards(self, position: Mapping[str, float]) -> np.ndarray:
        return self._actions.towards(position, self.target)

    def close(self) -> None:
        """The arm is parked, where it has `park` and is not `paused`; then it is held, and let go."""
        try:
            self._arm.close(self.paused)
        finally:  # after a second Ctrl-C, too
            self._cameras.close()
            if self.realtime:
                real_time(False)

    def _rested(self, target: np.ndarray) -> None:
        self._actions.rest(target, self._anew)

    def _home(self) -> None:
        """Home, the scene put back, and a bounded random start."""
        start = {
            name: axis.home + self.np_random.uniform(-axis.start, axis.start) for name, axis in self._named.items()
        }
        for place in [*self.options.via, {name: axis.home for name, axis in self._named.items()}]:
            self._motion.go(place)
        if self._start_check.due:
            self._motion.settle(place)  # grippers too: a camera at the wrist sees them
            self._motion.hold()
            self._start_check.at_home(self._cameras, self._arm.state, self.paused)
            self.clock.start()
        self._motion.await_release()
        self._motion.hold()
        self._motion.rest(self._arm.scene(int(self.np_random.integers(2**31)), self.paused))
        if self._ready:
            self.clock.start()
            self._ready.ensure(self._next, self._ask, self.options.prompt)
        elif self.options.prompt:
            self._ask(self.options.prompt)
        self._motion.go(start)
        self._motion.settle(start)  # an arm that is held on its way there begins elsewhere

    def _next(self) -> Observation:
        """What is seen a period later."""
        self._motion.wait()
        return self._observe()[0]

    def _ask(self, prompt: str) -> None:
        self._motion.hold()
        self.ask(prompt)
        self.clock.start()

    def _observe(self) -> tuple[dict[str, np.ndarray], float]:
        """(observation, age of its oldest part, s)"""
        self.state = state = self._arm.state()
        self.lost_replies = self._lost.update(state.lost)
        if state.target is not None:  # not where it was to go when the step began
            self._motion.target = state.target
        self._motion.held = self._motion.held or state.held  # by the watchdog
        images, times = self._cameras.read(state)
        self.motors = self._effort.update(state)
        states = {**self._actions.states(state.position), **self._effort.states(state)}
        observation = {**images, "proprio": state.position.astype(np.float32), **states}
        self._seen_s = time.monotonic()
        return observation, self._seen_s - min([state.time_s, *times])

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What goes wrong with an arm or a camera holds the arm and becomes a RobotFault."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(ArmError, OSError):
                self._motion.hold()
            if isinstance(error, (RuntimeError, OSError)):
                raise RobotFault(str(error), by_itself=isinstance(error, CameraError)) from None
            raise


def _sleep(left_s: float) -> bool:
    time.sleep(left_s)
    return False
