"""Run one episode: act with the newest policy, hand every transition to the link."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agent.spec import Observation, UserError, plural
from agent.verdict import outcome
from envs.base import paced_env
from envs.clock import Clock, natural_hz
from robot_server.command import ENDINGS, action_of
from robot_server.control import Control
from robot_server.link import Link
from robot_server.stepper import Stepper

if TYPE_CHECKING:
    import gymnasium

SAY_S = 0.5  # a shorter hold is not worth a line: a driver's connection that stutters makes many

log = logging.getLogger(__name__)


class Acting(Protocol):
    """What is needed of agent.policy.Policy."""

    def act(self, observation: Observation, deterministic: bool = False) -> np.ndarray: ...

    def load_weights(self, weights: dict[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class Summary:
    """One episode. policy_version: of its last step. cut: it was stopped before its own end.

    ending: one of command.ENDINGS, if a person ended it. by_hand: steps of a person. true_success: the environment's
    own success, where a classifier judges in its place.
    """

    number: int
    steps: int
    episode_return: float
    success: bool
    policy_version: int
    cut: bool
    ending: str = ""
    by_hand: int = 0
    true_success: bool | None = None

    def __str__(self) -> str:
        outcome = "success" if self.success else "cut short" if self.cut else "failure"
        if self.ending:
            outcome = f"{outcome} ({self.ending})" if self.ending != outcome else f"{outcome} (by a person)"
        if self.true_success is not None:
            outcome += f" (in truth {'success' if self.true_success else 'failure'})"
        figures = f"{plural(self.steps, 'step')}, return {self.episode_return:g}"
        if self.by_hand:
            figures += f", {self.by_hand} by hand"
        return f"episode {self.number}: {figures}, {outcome}, policy {self.policy_version}"


def run_episode(
    env: gymnasium.Env,
    policy: Acting,
    link: Link,
    clock: Clock,
    seed: int,
    deterministic: bool = False,
    stop: Callable[[], bool] = lambda: False,
    max_backlog: float = math.inf,
    control: Control | None = None,
) -> Summary:
    """One episode of `env` (a gymnasium.Env), reset with `seed`. clock: the env's own, if that is a real arm.

    The learner being away changes nothing, the policy stays the last one; but a simulation (no clock.hz) waits once
    more than `max_backlog` steps have not been sent. When `stop()` turns true, the step under way becomes the last,
    truncated. An exception (of the env, of a person's second Ctrl-C) also truncates the episode.

    control: a person may drive (in real time; those steps are flagged as interventions), pause between two steps, and
    end the episode: its last step is then truncated, or after "success" terminated, successful, and has a reward of 1
    where the env gave none. The learner keeps an episode that was discarded, and does not learn from it.
    Raises UserError when weights do not fit the policy, an action is not finite, or the learner refuses this robot, and
    ObservationFault for an observation or reward that is not finite: the episode ends, truncated, before it.
    """
    swap(policy, link)
    arm = paced_env(env)
    if arm:
        arm.paused, arm.ask = Pauses(link, control, stop), Prompt(link, control, stop)
    stepper = Stepper(env, link.spec)
    observation = stepper.reset(seed)
    if arm:
        arm.paused = Pauses(link, control)
    number = link.begin({"seed": seed, **({"fps": clock.hz} if clock.hz else {})})
    clock.start()
    steps, by_hand, last, cut, ending = 0, 0, stop(), stop(), ""
    rewards: list[float] = []
    successes: list[bool] = []
    true_success: bool | None = None
    real_time = Clock(0 if clock.hz else natural_hz(env))  # a person cannot drive faster than that
    moved = False  # a person moved the arm in the last step
    if control:
        control.step_s = 1 / (clock.hz or real_time.hz)
        control.drop_events()  # what was pressed during the reset was meant for the episode before
        control.running = True
    try:
        while not last:
            if not clock.hz:
                _hold(link, stop, max_backlog, control)
            swap(policy, link)
            command = control.read() if control else None
            if control and command:
                ending = next((event for event in command.events if event in ENDINGS), "")
                if control.held and not ending and not (moved and command.enabled):
                    if arm:
                        arm.hold()
                    _pause(control, link, clock, stop)
                    if not stop():
                        continue
                    cut = True
                if ending or cut:
                    if arm and control.stopped:
                        arm.hold()
                    cut = True
                    break
            action = np.clip(policy.act(observation, deterministic), -1, 1).astype(np.float32)
            if not np.isfinite(action).all():  # an arm must never be sent it
                raise UserError(f"the policy (version {link.version}) answers {action}: stopped before moving")
            if driven := command is not None and command.enabled:
                action = action_of(command, env)
            elif not clock.hz:
                real_time.start()
            moved = driven and command is not None and bool(command.moves)  # then the next step holds it
            made = stepper.step(action)
            cut = stop() and not made.last
            last = made.last or cut
            link.send(
                dataclasses.replace(
                    made,
                    truncated=made.truncated or cut,
                    policy_version=link.version,
                    intervention=driven or made.intervention,
                    final_observation=made.final_observation if last else None,
                )
            )
            observation, info = stepper.observation, stepper.info
            steps, by_hand = steps + 1, by_hand + driven
            rewards.append(made.reward)
            successes.append(made.success)
            if "true_success" in info:
                true_success = bool(true_success or info["true_success"])
            if control:
                status = {"episode": number, "step": steps, "return": sum(rewards), "success": any(successes)}
                control.show(observation, {**status, "action": made.action, "policy_version": link.version})
            link.pump()
            if not arm:
                clock.wait(link.wait)
            if driven:
                real_time.wait(link.wait)
    finally:
        if control:
            control.running = False
        link.cut(observation, ending)  # an episode that has ended is not touched
        link.keep()
    given, successful = outcome(ending if steps else "", np.array(rewards), np.array(successes, bool))
    episode_return, success = float(given.sum()), bool(successful.any())
    return Summary(number, steps, episode_return, success, link.version, cut, ending, by_hand, true_success)


class Pauses:
    """What a real arm asks while a step or a reset takes its time: whether it is to be held now."""

    def __init__(self, link: Link, control: Control | None, stop: Callable[[], bool] = lambda: False) -> None:
        self._link, self._control, self._stop = link, control, stop

    def __call__(self, left_s: float) -> bool:
        """Gives the time to link and operator. Raises KeyboardInterrupt when `stop()`."""
        if self._stop():
            raise KeyboardInterrupt
        self._link.wait(min(left_s, 0.01))
        if self._control:
            self._control.serve()
        return bool(self._control and self._control.held)


class Prompt:
    """What a reset asks a person to do: they say that it is done by "resume", or without a page in the terminal."""

    def __init__(self, link: Link, control: Control | None, stop: Callable[[], bool] = lambda: False) -> None:
        self._control, self._pauses = control, Pauses(link, control, stop)

    def __call__(self, prompt: str) -> None:
        if not self._control:
            input(f"{prompt} (Enter) ")
            return
        log.info("%s (then press Resume in the panel)", prompt)
        self._control.latch_pause()
        while self._pauses(0.05):
            pass


def swap(policy: Acting, link: Link) -> None:
    """Load the newest weights into the policy, if there are newer ones than it has."""
    if newest := link.newest_weights():
        try:
            policy.load_weights(newest[1])
        except ValueError as error:  # acting on with old weights would look like a policy that does not learn
            raise UserError(f"weights of version {newest[0]} do not fit the learner's own network: {error}") from None


def _hold(link: Link, stop: Callable[[], bool], max_backlog: float, control: Control | None) -> None:
    """Simulation only: wait while the learner asks for it or takes no steps: data must not run ahead of learning."""
    while ((hold_s := link.hold_s) > 0 or link.backlog > max_backlog) and not stop():
        link.wait(min(hold_s or 0.1, 0.1))
        if control:
            control.serve()


def _pause(control: Control, link: Link, clock: Clock, stop: Callable[[], bool]) -> None:
    """Until a person lets go on, or ends the episode, or `stop()`."""
    say_s: float = time.monotonic() + SAY_S
    while control.held and not control.waiting and not stop():
        if time.monotonic() >= say_s:
            log.info("%s: held between two steps", control.held)
            say_s = math.inf
        link.pump()
        control.wait(0.02)
    clock.start()
