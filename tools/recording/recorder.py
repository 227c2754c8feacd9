"""One episode that a person drives, at a fixed rate, ended and judged by the person's keys."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.spec import Episode, Observation, Spec, Transition, UserError
from agent.verdict import with_verdict
from envs.base import paced_env
from envs.clock import Clock, natural_hz
from robot_server.command import ENDINGS, Command, Device, action_of, layout_if_any
from robot_server.stepper import ObservationFault, Stepper
from tools.recording.config import CollectConfig

if TYPE_CHECKING:
    import gymnasium

Show = Callable[[Observation, dict[str, Any]], None]


def rate(env: gymnasium.Env, config: CollectConfig) -> float:
    """Steps a second: collect.hz, else the environment's own, else 20."""
    return config.hz or natural_hz(env)


@dataclass
class Take:
    """What came of one attempt. episode: None if there is nothing to keep. ending: how the person ended it.

    error: the error that ended it, after which `episode` has what came before.
    """

    episode: Episode | None
    ending: str = ""
    error: str = ""


class Stopped(Exception):
    """The person has asked for the end while the environment was being reset."""


class Recorder:
    """Records episodes of `env` driven by `device`.

    show(observation, status) is called each period. status: "state" (waiting for a motion, recording, paused, ended),
    "step", "return", "success" (of the env), "motion" (6,), "gripper", "enabled".
    stop(): whether to end. keep(): whether the running episode is kept then, truncated; it is dropped otherwise.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        device: Device,
        config: CollectConfig,
        show: Show = lambda observation, status: None,
        stop: Callable[[], bool] = lambda: False,
        keep: Callable[[], bool] = lambda: False,
    ) -> None:
        self._keep = keep
        self._env, self._device, self._config, self._show, self._stop = env, device, config, show, stop
        self._spec = Spec.from_spaces(env.observation_space, env.action_space)
        self._stepper = Stepper(env, self._spec)
        self._arm = paced_env(env)
        self._clock = Clock(rate(env, config))
        self._seen: Observation = {}  # at the end of the last episode
        self._paused = False  # within a reset
        if self._arm:
            self._arm.ask = self._prompt
        device.step_s, device.layout = 1 / self._clock.hz, layout_if_any(env)

    def record(self, seed: int, ready: Callable[[], None] = lambda: None) -> Take:
        """One episode from env.reset(seed); `ready()` is called after the reset, before anything can move, and before
        the reset when that has to wait for a device that was stopped or paused.

        Until the first motion (or the gripper's) the environment makes no step, unless config.idle_steps. The person's
        verdict ends an episode; one that the environment ends waits for it, with config.confirm. When stop() is true,
        see `keep`. An environment that fails, or answers what cannot be recorded, and a device that goes away end it
        truncated. Raises what they raise when that is before the first step.
        """
        if self._device.hold_reason:
            ready()
        while self._device.hold_reason and not self._stop():  # the environment's reset would move the arm
            self._say(f"no reset: {self._device.hold_reason}", self._seen, [], self._device.read())
            self._clock.wait()
        try:
            observation = self._reset(seed)
        except Stopped:
            return Take(None, "stop")
        self._spec.check_observation(observation)
        ready()
        self._device.drop_events()  # what was pressed during the reset
        self._device.reset()
        gripper = self._device.read().gripper
        steps: list[Transition] = []
        paused, moved, ending, message = False, False, "", ""
        self._clock.start()
        while not (steps and steps[-1].last):
            try:
                command = self._device.read()
            except UserError as error:
                if not steps:
                    raise
                message = f"step {len(steps)}: {error}"
                break
            paused, ending = self._events(command, paused)
            if self._stop() and self._keep():
                ending = "stop"
                break
            if self._stop() or ending == "stop":
                return Take(None, "stop")
            if ending:
                break
            stepped = len(steps)
            begun = steps or self._config.idle_steps or _moves(command, gripper)
            if begun and not paused and (moved or not self._device.hold_reason):
                moved = bool(command.enabled and command.moves)  # an arm that is to be held gets one more step
                try:
                    steps.append(self._step(command))
                except (UserError, RuntimeError, OSError) as error:  # what a robot's drivers raise, too
                    if not steps:
                        raise
                    where = "" if isinstance(error, ObservationFault) else f"step {len(steps)}: "
                    message = where + " ".join(str(error).split())
                    break
                observation = steps[-1].final_observation or observation
            stepped = len(steps) > stepped
            held = paused or self._device.hold_reason
            self._say("paused" if held else "recording" if begun else "waiting", observation, steps, command)
            self._wait(stepped)
        else:
            ending = self._ask(observation, steps) if self._config.confirm else ""
        self._seen = observation
        if not steps or ending == "discard":
            return Take(None, ending)
        steps = [dataclasses.replace(step, final_observation=None) for step in steps[:-1]] + [
            dataclasses.replace(steps[-1], truncated=not steps[-1].terminated, final_observation=observation)
        ]
        episode = Episode.from_transitions(steps, {"fps": self._clock.hz})
        return Take(with_verdict(episode, ending) if ending in ("success", "failure") else episode, ending, message)

    def _wait(self, stepped: bool) -> None:
        """Until the next period. A real arm's step took one; without a step it is held."""
        if self._arm and stepped:
            self._clock.start()
            return
        if self._arm:
            with contextlib.suppress(RuntimeError):  # its next step says it again
                self._arm.hold()
        self._clock.wait()

    def _reset(self, seed: int) -> Observation:
        """Of the environment. A real arm can be paused and stopped on its way. Raises Stopped."""
        if not self._arm:
            return self._stepper.reset(seed)
        self._paused, before = False, self._arm.paused
        self._arm.paused = self._pauses
        try:
            return self._stepper.reset(seed)
        finally:
            self._arm.paused = before

    def _pauses(self, left_s: float) -> bool:
        """Whether an arm that is being reset must not move now."""
        self._paused, ending = self._events(self._device.read(), self._paused)
        if self._stop() or ending == "stop":
            raise Stopped
        time.sleep(left_s)
        return self._paused or bool(self._device.hold_reason)

    def _prompt(self, prompt: str) -> None:
        """What a reset asks the person to do: a motion, or any event but a pause, says that it is done."""
        while not self._stop():
            command = self._device.read()
            if "stop" in command.events and not self._device.latches:
                break
            done = set(command.events) - {"pause", "stop"} or (command.enabled and command.moves)
            if done and not self._device.hold_reason:
                return
            self._say(f"{prompt} (then Enter)", self._seen, [], command)
            self._clock.wait()
        raise Stopped  # the arm must not go on to where the episode would start

    def _step(self, command: Command) -> Transition:
        """final_observation is set on every one: what came after it."""
        if not command.enabled:
            command = dataclasses.replace(command, motion=np.zeros(6, np.float32), place=None)
        made = self._stepper.step(action_of(command, self._env))
        self._spec.check_observation(made.final_observation or {})  # what cannot be read back is not recorded
        return made

    def _events(self, command: Command, paused: bool) -> tuple[bool, str]:
        """Whether it is paused now, and the event that ends the episode or the recording, or ''."""
        for event in command.events:
            if event in ("pause", "resume"):
                paused = event == "pause" and not self._device.latches
            elif event == "stop" and self._device.latches:
                return paused, "end"  # latched there: it holds the next episode, too
            else:
                return paused, event
        return paused, ""

    def _ask(self, observation: Observation, steps: list[Transition]) -> str:
        """The person's verdict on an episode that the environment has ended; '' when it is stopped instead."""
        while not self._stop():
            try:
                command = self._device.read()
            except UserError:  # it has gone; the episode has not, and the next one will say so
                return ""
            if words := [event for event in command.events if event in ENDINGS]:
                return "end" if words[0] == "stop" and self._device.latches else words[0]
            self._say("ended", observation, steps, command)
            self._clock.wait()
        return ""

    def _say(self, state: str, observation: Observation, steps: list[Transition], command: Command) -> None:
        self._show(
            observation,
            {
                "state": state,
                "step": len(steps),
                "return": sum(step.reward for step in steps),
                "success": any(step.success for step in steps),
                "motion": command.motion,
                "gripper": command.gripper,
                "action": steps[-1].action if steps else [],
                "enabled": command.enabled,
            },
        )


def _moves(command: Command, gripper: float) -> bool:
    return bool(command.enabled and command.moves) or command.gripper != gripper
