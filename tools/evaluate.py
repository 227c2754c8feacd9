"""How often does a policy succeed? Runs it from fixed seeds and prints the success rate with a 95 % interval.

  python -m tools.evaluate --ckpt offline.pt --episodes 50 --workers 4
  python -m tools.evaluate --policy scripted --env sim --task Lift --episodes 20 --video videos

The environment is the one that the checkpoint was trained for; --env and option flags change it. Episode k starts from
env.reset(SEED + k), and the figures do not depend on --workers. A checkpoint acts with the mean of its policy, with
--stochastic it samples. --policy scripted or random stands in for --ckpt, as a baseline.

--json prints one JSON object on stdout and nothing else (progress goes to stderr). --video writes
DIR/episode_000000.mp4 and so on. Where a classifier judges (--classifier, or the recorded environment's), it ends the
episodes, but the success reported is the environment's own, and the classifier's beside it. Only a simulated robot
should be evaluated like this: no person is asked to reset the scene. To stop, press Ctrl-C: the running episodes are
dropped, nothing is printed, and the exit code is 1.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import concurrent.futures
import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from agent import cli
from agent.action_meaning import ActionMeaning, different
from agent.env_record import EnvRecord
from agent.progress import Progress
from agent.signals import SIGNALS
from agent.spec import Observation, Spec, UserError, plural
from envs.base import action_meaning
from envs.reward_classifier import one_thread
from tools.common.rollout import Act, env_options, env_record, make_env, private_seed, rollout
from tools.common.success_rate import Attempt, Result
from tools.common.video import UNKNOWN_FPS, mp4, picture, require_cameras

BASELINES = ("scripted", "random")


@dataclass(frozen=True)
class Plan:
    """What every worker needs to know; it is sent to them. `policy` is a baseline, a checkpoint's path or a Policy."""

    policy: Any
    env: str
    options: dict[str, Any] = field(default_factory=dict)
    stochastic: bool = False
    video: Path | None = None
    video_seeds: tuple[int, ...] = ()
    other_actions: bool = False  # evaluate although the policy's actions mean something else here


class Stage:
    """An environment and what acts in it, opened once per process."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.env = make_env(plan.env, plan.options)
        self.spec = Spec.from_spaces(self.env.observation_space, self.env.action_space)
        if plan.video_seeds:
            require_cameras(self.spec, f"environment '{plan.env}'")
        self._policy: Any = None if plan.policy in BASELINES else plan.policy
        self.elsewhere = ""  # how the environment differs from the checkpoint's
        if isinstance(plan.policy, (str, Path)) and self._policy:
            import agent.run.checkpoint

            checkpoint = agent.run.checkpoint.load(plan.policy)
            self._policy = checkpoint.policy()
            recorded = env_record(plan.env, plan.options)
            others = checkpoint.env.differences(recorded) if checkpoint.env.name else {}
            self.elsewhere = "; ".join(f"{option}: {values}" for option, values in others.items())
            if differences := checkpoint.spec.differences(self.spec):
                found = "; ".join([self.elsewhere] * bool(others) + differences)
                raise UserError(f"{plan.policy} does not fit environment '{plan.env}' (checkpoint first): {found}")
            meaning = ActionMeaning.from_dict(action_meaning(self.env))
            if (apart := checkpoint.env.meaning.differences(meaning)) and not plan.other_actions:
                where = f"{plan.policy} and environment '{plan.env}'"
                raise UserError(f"{where}: {different(apart)}; --other-actions evaluates it anyway")

    def act(self, seed: int) -> Act:
        """What acts in the episode with this seed, just reset; it does not depend on those before."""
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
            note = f"{self.plan.policy} was trained in another environment (checkpoint first)"
            print(f"{note}: {self.elsewhere}", file=sys.stderr, flush=True)
        success, episode_return, length = False, 0.0, 0
        words: dict[str, bool | None] = {"true": None, "classifier": None}

        def told(info: Mapping[str, Any]) -> None:
            if "true_success" in info:
                words["true"] = bool(words["true"] or info["true_success"])
                words["classifier"] = bool(words["classifier"] or info["success"])

        with contextlib.ExitStack() as stack:
            if self._policy:
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


_worker: dict[str, Any] = {}  # in a worker process: its plan, its stop event, its stage


def _begin_worker(plan: Plan, stop: Event) -> None:
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


def _attempts(plan: Plan, seeds: range, workers: int) -> Generator[Attempt, None, None]:
    """The episodes as they end, in any order."""
    if workers == 1:
        stage = Stage(plan)
        with contextlib.closing(stage.env):
            for number, seed in enumerate(seeds):
                yield stage.attempt(seed, number)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with concurrent.futures.ProcessPoolExecutor(workers, context, _begin_worker, (plan, stop)) as pool:
        running = [pool.submit(_work, seed, number) for number, seed in enumerate(seeds)]
        try:
            for ended in concurrent.futures.as_completed(running):
                yield ended.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def evaluate(
    policy: Any,
    env: str,
    options: dict[str, Any] | None = None,
    *,
    episodes: int,
    seed: int = 100_000,
    stochastic: bool = False,
    workers: int = 1,
    video: Path | None = None,
    video_episodes: tuple[int, ...] = (0,),
    other_actions: bool = False,
) -> Result:
    """Success of `policy` (a checkpoint's path, a Policy, "scripted" or "random") over the seeds seed, seed + 1, ..."""
    seeds = range(seed, seed + episodes)
    video_seeds = tuple(seed + number for number in video_episodes) if video else ()
    plan = Plan(policy, env, dict(options or {}), stochastic, video, video_seeds, other_actions)
    attempts: list[Attempt] = []
    with (
        Progress(episodes, "evaluate", "episodes") as progress,
        contextlib.closing(_attempts(plan, seeds, workers)) as ended,
    ):
        for attempt in ended:
            attempts.append(attempt)
            progress.show(len(attempts), f"{sum(a.success for a in attempts)}/{len(attempts)} succeeded")
    return Result.of(sorted(attempts, key=lambda a: a.seed))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", metavar="FILE", help="the checkpoint to evaluate")
    parser.add_argument("--policy", choices=BASELINES, help="a baseline instead of a checkpoint")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="how many (default 50)")
    parser.add_argument("--seed", type=int, default=100_000, metavar="N", help="of the first episode (default 100000)")
    parser.add_argument("--stochastic", action="store_true", help="sample from the policy instead of its mean")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes to use (default 1)")
    parser.add_argument("--video", type=Path, metavar="DIR", help="write an MP4 of some episodes into this folder")
    parser.add_argument("--video-episodes", default="0", metavar="K,K,..", help="which (default 0, the first)")
    parser.add_argument("--other-actions", action="store_true", help="even if actions mean something else here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def recorded_env(flags: argparse.Namespace) -> EnvRecord:
    """The environment that --ckpt remembers. Raises UserError for a file that is none."""
    if not flags.ckpt or flags.policy:
        return EnvRecord()
    import agent.run.checkpoint

    return agent.run.checkpoint.load(flags.ckpt).env


def main(argv: list[str] | None = None) -> int:
    prog = "python -m tools.evaluate"
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options, prog, recorded_env)
    flags = arguments.flags
    if bool(flags.ckpt) == bool(flags.policy):
        raise UserError("either --ckpt FILE or --policy scripted|random is needed")
    for flag, value, least in (("episodes", flags.episodes, 1), ("workers", flags.workers, 1), ("seed", flags.seed, 0)):
        if value < least:
            raise UserError(f"--{flag} {value}: at least {least}")
    try:
        chosen = tuple(int(number) for number in flags.video_episodes.split(","))
    except ValueError:
        raise UserError(f"--video-episodes {flags.video_episodes}: expected numbers such as 0,1") from None
    if flags.video and not all(0 <= number < flags.episodes for number in chosen):
        raise UserError(f"--video-episodes {flags.video_episodes}: the episodes are 0 to {flags.episodes - 1}")
    name, options = arguments.env()
    try:
        result = evaluate(
            flags.ckpt or flags.policy,
            name,
            options,
            episodes=flags.episodes,
            seed=flags.seed,
            stochastic=flags.stochastic,
            workers=min(flags.workers, flags.episodes),
            video=flags.video,
            video_episodes=chosen,
            other_actions=flags.other_actions,
        )
    except KeyboardInterrupt:
        print("stopped: nothing was evaluated", file=sys.stderr)
        raise
    if flags.json:
        record = EnvRecord(name, options).to_dict()
        print(json.dumps({"policy": flags.ckpt or flags.policy, "env": record, **result.to_dict()}))
        return 0
    interval = f"95 % interval {result.low:.2f} to {result.high:.2f}"
    print(f"success rate {result.success:.2f} ({interval}) over {plural(result.episodes, 'episode')}")
    print(f"mean return {result.episode_return:.2f}, mean length {result.length:.1f} steps")
    if result.classifier_success is not None:
        print(result.verdicts())
    for attempt in result.attempts:
        if attempt.video:
            print(f"video: {attempt.video}")
    return 0


if __name__ == "__main__":
    cli.run(main)
