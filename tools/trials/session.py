"""Run an evaluation on an arm: policies in blind random order, the episodes judged by a person or by a signal."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.spec import Observation, Spec, Transition, UserError
from envs.base import RobotFault, paced_env
from envs.clock import Clock
from robot_server.actor import Acting, Summary, run_episode
from robot_server.session import cleared, wait_until
from robot_server.stepper import ObservationFault
from tools.common.rollout import private_seed
from tools.common.video import UNKNOWN_FPS
from tools.trials.desk import VERDICTS, Desk
from tools.trials.film import Films
from tools.trials.ledger import FAILURE, SUCCESS, VIDEOS, VOID, Ledger, Trial

if TYPE_CHECKING:
    import gymnasium

STOPPED, BY_OPERATOR = "the evaluation was stopped", "by the operator"

log = logging.getLogger(__name__)


class Take:
    """Where run_episode puts the steps of one attempt: into figures and a video, instead of to a learner."""

    version = backlog = 0
    hold_s = 0.0

    def __init__(self, spec: Spec, episode: int, name: str, films: Films, video: Path) -> None:
        self.spec, self._episode, self._name, self._films, self._video = spec, episode, name, films, video
        self._began_s = self._first_s = self._last_s = time.monotonic()
        self._driven: list[bool] = []
        self._signal = False

    def begin(self, meta: Mapping[str, Any] | None = None) -> int:
        self._first_s = self._last_s = time.monotonic()
        return self._episode

    def send(self, transition: Transition) -> None:
        self._last_s = time.monotonic()
        self._driven.append(transition.intervention)
        self._signal = self._signal or transition.success
        self._show(transition.observation, len(self._driven) - 1)
        if transition.final_observation is not None:
            self._show(transition.final_observation, len(self._driven))

    def _show(self, observation: Observation, step: int) -> None:
        by_hand = "   by hand" if self._driven[-1] else ""
        self._films.add(self._video, observation, f"{self._name}   step {step}{by_hand}")

    def figures(self) -> dict[str, Any]:
        """Of a Trial, once it has its verdict."""
        starts = [driven and not before for before, driven in zip([False, *self._driven], self._driven)]
        return {
            "signal": self._signal,
            "steps": len(self._driven),
            "by_hand": sum(self._driven),
            "takeovers": sum(starts),
            "reset_s": self._first_s - self._began_s,
            "episode_s": self._last_s - self._first_s,
            "verdict_s": time.monotonic() - self._last_s,
            "video": f"{VIDEOS}/{self._video.name}" if self._films.has(self._video) else "",
        }

    def cut(self, observation: Observation | None = None, ending: str = "") -> None:
        self._films.end()

    def save(self) -> None:
        """Nothing is left to write."""

    def pump(self) -> None:
        """Nothing is sent."""

    def wait(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def newest_weights(self) -> tuple[int, dict[str, np.ndarray]] | None:
        return None


class Trials:
    """The evaluation that `ledger` holds, continued. policies: one of each of its checkpoints.

    hz: of an environment without a clock of its own, see robot.hz. stop(): whether to end.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        policies: Sequence[Acting],
        ledger: Ledger,
        desk: Desk,
        stop: Callable[[], bool] = lambda: False,
        hz: float = 0.0,
    ) -> None:
        self.env, self.policies, self.ledger, self.desk, self.stop = env, policies, ledger, desk, stop
        self.spec = Spec.from_spaces(env.observation_space, env.action_space)
        self.arm = paced_env(env)
        self.clock = self.arm.clock if self.arm else Clock(hz)
        self.order = ledger.settings.order()
        desk.about = self.about

    def about(self) -> dict[str, Any]:
        """For the operator's page: how far it is, and nothing of the policies."""
        return {"robot": "evaluation", "kept": len(self.order) - len(self.ledger.remaining), "asked": len(self.order)}

    def run(self) -> None:
        """Until every episode has a result, or stop(). Raises what the environment raises, except for faults."""
        with contextlib.closing(Films(list(self.spec.cameras), self.clock.hz or UNKNOWN_FPS)) as films:
            while (left := self.ledger.remaining) and self._ready(films):
                self._attempt(left[0], films)

    def _ready(self, films: Films) -> bool:
        """Wait while the arm must not move, or a video is being written; False when stop()."""

        def released() -> bool:
            self.desk.wait(0.02)
            return not self.desk.hold_reason

        def why() -> str:
            key = "R, or Release on the page," if self.desk.stopped else "p, or Resume on the page,"
            return f"{self.desk.hold_reason}; {key} continues"

        while films.busy and not self.stop():
            self.desk.wait(0.02)
        return wait_until(released, "the next episode waits", self.stop, why)

    def _attempt(self, episode: int, films: Films) -> None:
        """One attempt at `episode`. After a fault it is void, and this waits until the arm may move again."""
        settings, name = self.ledger.settings, f"episode {episode + 1} of {len(self.order)}"
        attempt = self.ledger.begin(episode)
        take = Take(self.spec, episode, name, films, self.ledger.folder / VIDEOS / f"attempt_{attempt:06d}.mp4")
        seed = settings.seed + episode // len(self.policies)
        policy = self.policies[self.order[episode]]
        result, reason, judge, fault = VOID, STOPPED, "", None
        seed_policies(private_seed(seed))
        try:
            summary = run_episode(
                self.env, policy, take, self.clock, seed, not settings.stochastic, self.stop, control=self.desk
            )
            result, reason, judge = self._judged(name, summary)
        except RobotFault as caught:
            fault = caught
        except ObservationFault as caught:
            reason = str(caught)
            if not self.clock.hz:  # nothing moves: it would come again
                raise
            fault = RobotFault(reason)
        except UserError as caught:
            reason = str(caught)
            raise
        finally:
            reason = str(fault) if fault else reason
            self.ledger.end(Trial(attempt, episode, result, reason, judge, **take.figures()))
        log.info("%s: %s", name, f"void ({reason}), it is repeated" if result == VOID else f"recorded as a {result}")
        if fault:
            self._hold()
            cleared(fault, self.arm, take, self.desk, self.stop)

    def _judged(self, name: str, summary: Summary) -> tuple[str, str, str]:
        """Result, reason if it is void, and who judged. A person judges every episode that a person has ended."""
        if not summary.steps:
            return VOID, "it ended before its first step", ""
        if summary.cut and not summary.ending:
            return VOID, STOPPED, ""
        if self.ledger.settings.verdict == "signal" and not summary.ending:
            return SUCCESS if summary.success else FAILURE, "", "signal"
        self._hold()
        verdict = self.desk.ask(name, summary.ending if summary.ending in VERDICTS else "", self.stop)
        if verdict in (SUCCESS, FAILURE):
            return verdict, "", "person"
        return VOID, BY_OPERATOR if verdict else STOPPED, ""

    def _hold(self) -> None:
        if self.arm:
            with contextlib.suppress(RobotFault):  # it is held then, too, and the next reset says so
                self.arm.hold()


def seed_policies(seed: int) -> None:
    """For policies that sample."""
    import torch

    torch.manual_seed(seed)
