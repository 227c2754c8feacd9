"""Attempts at a task: a policy in an environment from given seeds, in this process or in workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent import logs
from agent.action_meaning import ActionMeaning, different
from agent.signals import SIGNALS
from agent.spec import Observation, Spec, UserError
from envs.base import action_meaning
from tools.common.rollout import Act, env_record, make_env, private_seed, rollout
from tools.common.success_rate import Attempt
from tools.common.video import UNKNOWN_FPS, mp4, picture, require_cameras

if TYPE_CHECKING:
    from agent.run.checkpoint import Checkpoint

BASELINES = ("scripted", "random")
WORKERS = multiprocessing.get_context("spawn")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What every worker needs to know; it is sent to them. policy: see evaluate; name: of it, for messages."""

    policy: Any
    name: str
    env: str
    options: dict[str, Any] = field(default_factory=dict)
    stochastic: bool = False
    video: Path | None = None
    video_seeds: tuple[int, ...] = ()
    other_actions: bool = False  # evaluate although the policy's actions mean something else here


class Stage:
    """An environment and the policy that acts in it, opened once per process."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.env = make_env(plan.env, plan.options)
        self.spec = Spec.from_spaces(self.env.observation_space, self.env.action_space)
        if plan.video_seeds:
            require_cameras(self.spec, f"environment '{plan.env}'")
        self._policy: Any = None if plan.policy in BASELINES else plan.policy
        self.elsewhere = ""  # how the environment differs from the checkpoint's
        if self._policy and (checkpoint := checkpoint_of(plan.policy)):
            self._policy = checkpoint.policy()
            where = (self.env, plan.env, plan.options)
            self.elsewhere = check_fits(checkpoint, plan.name, *where, other_actions=plan.other_actions)

    def act(self, seed: int) -> Act:
        """The policy of the episode with this seed, just reset; independent of earlier episodes."""
        if self.plan.policy == "random":
            generator = np.random.default_rng(private_seed(seed))
            return lambda _: generator.uniform(-1, 1, self.spec.action_dim)
        if self.plan.policy == "scripted":
            import envs.scripted

            try:
                expert = envs.scripted.make(self.env, seed=private_seed(seed))
            except ValueError as error:
                raise UserError(f"policy 'scripted': {error}") from None
            expert.reset()
            return expert.act
        import torch

        torch.manual_seed(private_seed(seed))
        return lambda observation: self._policy.act(observation, deterministic=not self.plan.stochastic)

    def attempt(self, seed: int, number: int, stopped: Callable[[], bool] = lambda: False) -> Attempt:
        """Run the episode with this seed; episode `number` of this evaluation."""
        path = (
            self.plan.video / f"episode_{number:06d}.mp4" if self.plan.video and seed in self.plan.video_seeds else None
        )
        if number == 0 and self.elsewhere:
            note = f"{self.plan.name} was trained in another environment (checkpoint first)"
            log.warning("%s: %s", note, self.elsewhere)
        success, episode_return, length = False, 0.0, 0
        words: dict[str, bool | None] = {"true": None, "classifier": None}

        def told(info: Mapping[str, Any]) -> None:
            if "true_success" in info:
                words["true"] = bool(words["true"] or info["true_success"])
                words["classifier"] = bool(words["classifier"] or info["success"])

        with contextlib.ExitStack() as stack:
            if self._policy:
                from envs.reward_classifier import one_thread

                stack.enter_context(one_thread())
            write = stack.enter_context(mp4(path, self.plan.options.get("control_hz") or UNKNOWN_FPS)) if path else None

            def show(observation: Observation) -> None:
                if write:
                    write(picture(observation, list(self.spec.cameras), f"seed {seed}   step {length}", success))

            for transition in rollout(self.env, self.act, seed, told=told):
                show(transition.observation)
                word = transition.success if words["true"] is None else words["true"]
                success, length = success or word, length + 1
                episode_return += transition.reward
                if stopped():
                    raise InterruptedError
                if transition.final_observation is not None:
                    show(transition.final_observation)
        return Attempt(seed, success, episode_return, length, str(path) if path else None, words["classifier"])


def check_fits(
    checkpoint: Checkpoint, name: str, env: Any, env_name: str, options: dict[str, Any], other_actions: bool = False
) -> str:
    """How the environment that `checkpoint` was trained in differs from `env` (a gymnasium.Env); empty: it does not.

    name: of the checkpoint, for messages. Raises UserError where the policy cannot act here: other observations or
    actions, or, without other_actions, actions that mean something else.
    """
    recorded = env_record(env_name, options)
    others = checkpoint.env.differences(recorded) if checkpoint.env.name else {}
    elsewhere = "; ".join(f"{option}: {values}" for option, values in others.items())
    if differences := checkpoint.spec.differences(Spec.from_spaces(env.observation_space, env.action_space)):
        found = "; ".join([elsewhere] * bool(others) + differences)
        raise UserError(f"{name} does not fit environment '{env_name}' (checkpoint first): {found}")
    meaning = ActionMeaning.from_dict(action_meaning(env))
    if (apart := checkpoint.env.meaning.differences(meaning)) and not other_actions:
        where = f"{name} and environment '{env_name}'"
        raise UserError(f"{where}: {different(apart)}; --other-actions evaluates it anyway")
    return elsewhere


def checkpoint_of(policy: Any) -> Checkpoint | None:
    """The checkpoint that `policy` is, or is the path of. Raises UserError for a file that is none."""
    if isinstance(policy, str) and policy in BASELINES:
        return None
    import agent.run.checkpoint

    if isinstance(policy, (str, Path)):
        return agent.run.checkpoint.load(policy)
    return policy if isinstance(policy, agent.run.checkpoint.Checkpoint) else None


_worker: dict[str, Any] = {}  # in a worker process: its plan, its stop event, its stage


def _begin_worker(plan: Plan, stop: Event, log_lines: bool) -> None:
    if log_lines:
        logs.configure()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the parent sets `stop`
    _worker.update(plan=plan, stop=stop)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(seed: int, number: int) -> Attempt:
    if "stage" not in _worker:
        _worker["stage"] = Stage(_worker["plan"])
    stage: Stage = _worker["stage"]
    return stage.attempt(seed, number, _worker["stop"].is_set)


def run_attempts(plan: Plan, seeds: range, workers: int) -> Generator[Attempt, None, None]:
    """The episodes as they end, in any order."""
    if workers == 1:
        stage = Stage(plan)
        with contextlib.closing(stage.env):
            for number, seed in enumerate(seeds):
                yield stage.attempt(seed, number)
        return
    stop = WORKERS.Event()
    with concurrent.futures.ProcessPoolExecutor(
        workers, WORKERS, _begin_worker, (plan, stop, logs.configured())
    ) as pool:
        running = [pool.submit(_work, seed, number) for number, seed in enumerate(seeds)]
        try:
            for ended in concurrent.futures.as_completed(running):
                yield ended.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
