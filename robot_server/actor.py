"""Run one episode: act with the newest policy, hand every transition to the link."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agent.spec import Observation, Transition, UserError, plural
from agent.verdict import outcome
from envs.base import RESET_TASK, names_of_numbers, paced_env, state_names
from envs.clock import Clock, natural_hz
from envs.instructions import RESET, instruction
from robot_server.command import ENDINGS, Command, action_of, layout_if_any
from robot_server.control import Control
from robot_server.stepper import Stepper
from robot_server.waiting import Pauses, Prompt, StepSink, hold_for_learner, pause

if TYPE_CHECKING:
    import gymnasium

MAX_NAMES_BYTES = 8 << 10  # of the names of a state's numbers in a recording: half of what the link takes as meta

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
            outcome += f" (environment: {'success' if self.true_success else 'failure'})"
        figures = f"{plural(self.steps, 'step')}, return {self.episode_return:g}"
        if self.by_hand:
            figures += f", {self.by_hand} by hand"
        return f"episode {self.number}: {figures}, {outcome}, policy {self.policy_version}"


def run_episode(
    env: gymnasium.Env,
    policy: Acting,
    link: StepSink,
    clock: Clock,
    seed: int,
    deterministic: bool = False,
    stop: Callable[[], bool] = lambda: False,
    max_backlog: float = math.inf,
    control: Control | None = None,
    reset_options: dict[str, Any] | None = None,
    spent: Callable[[float, int], object] = lambda person_s, prompts: None,
) -> Summary:
    """One episode of `env` (a gymnasium.Env), reset with `seed`. clock: the env's own, if that is a real arm.
    reset_options: of that reset. spent: called at the end, also after an exception, with the seconds that a person
    drove or that the robot waited for one, and how often the reset asked one.

    The learner being away changes nothing, the policy stays the last one; but a simulation (no clock.hz) waits once
    more than `max_backlog` steps have not been sent. When `stop()` turns true, the step under way becomes the last,
    truncated. An exception (of the env, of a person's second Ctrl-C) also truncates the episode.

    control: a person may drive (in real time; those steps are flagged as interventions), pause between two steps, and
    end the episode: its last step is then truncated, or after "success" terminated, successful, and has a reward of 1
    where the env gave none. The learner keeps an episode that was discarded, and does not learn from it.
    Raises UserError when weights do not fit the policy, an action is not finite, or the learner refuses this robot, and
    ObservationFault for an observation or reward that is not finite: the episode ends, truncated, before it.
    """
    episode = Running(env, policy, link, clock, deterministic, stop, control)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: spent(episode.person_s, episode.prompt.count))
        episode.reset(seed, reset_options)
        stack.callback(episode.end)
        while not episode.over:
            if not clock.hz:
                hold_for_learner(link, stop, max_backlog, control)
            swap(policy, link)
            command = control.read() if control else None
            if command and episode.interrupted(command):
                continue
            episode.step(command)
    return episode.summary()


class Running:
    """The episode that is being run, see run_episode. over: no step follows. cut: it was stopped before its own end."""

    def __init__(
        self,
        env: gymnasium.Env,
        policy: Acting,
        link: StepSink,
        clock: Clock,
        deterministic: bool,
        stop: Callable[[], bool],
        control: Control | None,
    ) -> None:
        self.env, self.policy, self.link, self.clock, self.control = env, policy, link, clock, control
        self.deterministic, self.stop = deterministic, stop
        self.arm = paced_env(env)
        self.stepper = Stepper(env, link.spec)
        self.real_time = Clock(0 if clock.hz else natural_hz(env))  # a person cannot drive faster than that
        self.prompt, self.pauses = Prompt(link, control, stop), Pauses(link, control, stop)
        self.holds = Pauses(link, control)  # within steps
        self.paused_s = 0.0
        self.number = self.by_hand = 0
        self.version = link.version  # of the policy that made the newest action
        self.over = self.cut = False
        self.moved = False  # a person moved the arm in the last step
        self.ending = ""
        self.rewards: list[float] = []
        self.successes: list[bool] = []
        self.true_success: bool | None = None

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> None:
        """Reset the env, and begin the episode."""
        link, control, hz = self.link, self.control, self.clock.hz
        swap(self.policy, link)
        if self.arm:
            self.arm.paused, self.arm.ask = self.pauses, self.prompt
        self.observation = self.stepper.reset(seed, options)
        if self.arm:
            self.arm.paused = self.holds
        asked = {"prompted_s": round(self.prompt.waited_s, 1)} if self.prompt.count else {}
        names = state_names(self.env)
        known: dict[str, Any] = {"state_names": names} if names and len(json.dumps(names)) <= MAX_NAMES_BYTES else {}
        resets = bool((options or {}).get(RESET_TASK))
        if text := RESET if resets else instruction(self.env):
            known["instruction"] = text
        self.number = link.begin({"seed": seed, **({"fps": hz} if hz else {}), **known, **asked})
        self.clock.start()
        self.over = self.cut = self.stop()
        if control:
            control.layout = layout_if_any(self.env)
            control.drivable = bool(control.layout)
            control.history.name(names_of_numbers(self.env))
            control.task = text
            control.step_s = 1 / (hz or self.real_time.hz)
            control.drop_events()  # what was pressed during the reset was meant for the episode before
            control.running = True

    def interrupted(self, command: Command) -> bool:
        """Whether a person keeps the next step from being made: ends the episode, or pauses, which this waits for."""
        control = self.control
        assert control is not None
        self.ending = next((event for event in command.events if event in ENDINGS), "")
        paused = control.hold_reason and not self.ending and not (self.moved and command.enabled)
        if paused:
            if self.arm:
                self.arm.hold()
            self.paused_s += pause(control, self.link, self.clock, self.stop)
        if self.ending or (paused and self.stop()):
            if self.arm and control.stopped:
                self.arm.hold()
            self.over = self.cut = True
        return bool(paused) or self.over

    def step(self, command: Command | None) -> None:
        """Act, hand the step to the link, and wait for the next one's time."""
        driven = command is not None and command.enabled
        self._record(self.stepper.step(self._action(command)), driven)
        self.link.pump()
        if not self.arm:
            self.clock.wait(self.link.wait)
        if driven:
            self.real_time.wait(self.link.wait)

    def _action(self, command: Command | None) -> np.ndarray:
        """The policy's, or that of a person who drives."""
        self.version = self.link.version
        answer = self.policy.act(self.observation, self.deterministic)
        action: np.ndarray = np.clip(answer, -1, 1).astype(np.float32)
        if not np.isfinite(action).all():  # an arm must never be sent it
            raise UserError(f"the policy (version {self.version}) returned {action}: stopped before moving")
        self.moved = False
        if command and command.enabled:
            self.moved = command.moves  # then the next step holds it
            return action_of(command, self.env)
        if not self.clock.hz:
            self.real_time.start()
        return action

    def _record(self, made: Transition, driven: bool) -> None:
        """Hand the step to the link, and show it to the operator."""
        link, info = self.link, self.stepper.info
        self.cut = self.stop() and not made.last
        self.over = made.last or self.cut
        link.send(
            dataclasses.replace(
                made,
                truncated=made.truncated or self.cut,
                policy_version=self.version,
                intervention=driven or made.intervention,
                final_observation=made.final_observation if self.over else None,
            )
        )
        self.observation = self.stepper.observation
        self.by_hand += driven
        self.rewards.append(made.reward)
        self.successes.append(made.success)
        if "true_success" in info:
            self.true_success = bool(self.true_success or info["true_success"])
        if self.control:
            figures = {"return": sum(self.rewards), "success": any(self.successes), "policy_version": self.version}
            status = {
                "episode": self.number,
                "step": len(self.rewards),
                "action": made.action,
                "reward": made.reward,
                **figures,
            }
            self.control.show(self.observation, status)

    def end(self) -> None:
        """End it as it is now, also after an exception, and write it to the spool."""
        if self.control:
            self.control.running = False
        self.link.cut(self.observation, self.ending)  # an episode that has ended is not touched
        self.link.save()

    @property
    def person_s(self) -> float:
        """Seconds that a person drove, or that it waited for one."""
        driven_s = self.by_hand / (self.clock.hz or self.real_time.hz)
        return self.prompt.waited_s + self.pauses.held_s + self.holds.held_s + self.paused_s + driven_s

    def summary(self) -> Summary:
        """With the person's verdict applied."""
        steps = len(self.rewards)
        rewards, successes = np.array(self.rewards), np.array(self.successes, bool)
        given, successful = outcome(self.ending if steps else "", rewards, successes)
        figures = (self.number, steps, float(given.sum()), bool(successful.any()))
        return Summary(*figures, self.version, self.cut, self.ending, self.by_hand, self.true_success)


def swap(policy: Acting, link: StepSink) -> None:
    """Load the newest weights into the policy, if there are newer ones than it has."""
    if newest := link.newest_weights():
        try:
            policy.load_weights(newest[1])
        except ValueError as error:  # acting on with old weights would look like a policy that does not learn
            raise UserError(f"weights of version {newest[0]} do not fit the learner's own network: {error}") from None
