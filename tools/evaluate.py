"""How often does a policy succeed? Runs it from fixed seeds and prints the success rate with a 95 % interval.

`evaluate` is the same as a function.

  python -m tools.evaluate --ckpt offline.pt --episodes 50 --workers 4
  python -m tools.evaluate --policy scripted --env sim --task Lift --episodes 20 --video videos

The environment is the one that the checkpoint was trained for; --env and option flags change it. Episode k starts from
env.reset(SEED + k), and the figures do not depend on --workers. A checkpoint acts with the mean of its policy, with
--stochastic it samples. --policy scripted or random stands in for --ckpt, as a baseline.

--json prints one JSON object on stdout and nothing else (progress goes to stderr). --video writes
DIR/episode_000000.mp4 and so on. Where a classifier judges (--classifier, or the recorded environment's), it ends the
episodes, but the success reported is the environment's own, and the classifier's beside it. To stop, press Ctrl-C: the
running episodes are dropped, nothing is printed, and the exit code is 1.

An arm (--env real, lerobot:<type> or mock; any other environment with --verdict) is evaluated with a person beside it:

  python -m tools.evaluate --env mock --ckpt mock.pt --ckpt tuned.pt --episodes 20 --out trials/mock

--episodes of each checkpoint run in random order, and nobody is shown which one acts. A person judges each episode, by
keys here or on the page (tools.panel); --verdict signal leaves it to the classifier, or the arm's own success signal.
The same command resumes after Ctrl-C or kill -9. At the end OUT/result.md and result.json have the success rates, with
intervals, and the paired differences.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import cli
from agent.env_record import EnvRecord
from agent.options import check_range, converted
from agent.progress import Progress
from agent.run.files import check_file
from agent.spec import UserError, plural
from tools.common.attempts import BASELINES, Plan, checkpoint_of, run_attempts
from tools.common.rollout import env_options
from tools.common.seeds import EVALUATION_SEED
from tools.common.success_rate import Attempt, Result

if TYPE_CHECKING:
    from agent.run.checkpoint import Checkpoint

VERDICTS = ("person", "signal")
ARM_FLAGS = {"out": None, "order_seed": None, "end": False}  # flag -> its value where it is not given


def on_an_arm(env: str) -> bool:
    """Whether the environment `env` is an arm's, whose episodes need a person."""
    return env in ("real", "mock") or env.startswith("lerobot:")


def evaluate(
    policy: str | Path | Checkpoint | Any,
    env: str = "",
    options: Mapping[str, Any] | None = None,
    *,
    episodes: int = 50,
    seed: int = EVALUATION_SEED,
    stochastic: bool = False,
    workers: int = 1,
    video: str | Path | None = None,
    video_episodes: Sequence[int] = (0,),
    other_actions: bool = False,
) -> Result:
    """Run `policy` in `env` from the seeds seed, seed + 1, ... and return its success rate and every episode's figures.

        result = evaluate("offline.pt", episodes=20, workers=4)
        print(result.success, result.low, result.high)

    policy: a checkpoint or its path, an agent.policy.Policy, "scripted" or "random". env: the checkpoint's where it is
    left out, and in the checkpoint's so is each of the options. video: the folder for MP4s of `video_episodes`.
    other_actions: evaluate a checkpoint though its actions mean something else in `env`. Raises UserError for arguments
    out of range, and for a checkpoint that does not fit the environment.
    """
    episodes, workers = _whole("episodes", episodes, 1), _whole("workers", workers, 1)
    seed = _whole("seed", seed, 0)
    if video and not all(0 <= number < episodes for number in video_episodes):
        raise UserError(f"video_episodes are {list(video_episodes)}; the episodes are 0 to {episodes - 1}")
    recorded = checkpoint.env.usable(env or None) if (checkpoint := checkpoint_of(policy)) else EnvRecord()
    if not (env or recorded.name):
        raise UserError(f"policy {policy!s:.80} names no environment: give env")
    if not env or env == recorded.name:
        env, options = recorded.name, {**recorded.options, **(options or {})}
    seeds = range(seed, seed + episodes)
    video_seeds = tuple(seed + number for number in video_episodes) if video else ()
    name = str(policy) if isinstance(policy, (str, Path)) else "the checkpoint"
    folder = Path(video) if video else None
    plan = Plan(policy, name, env, dict(options or {}), stochastic, folder, video_seeds, other_actions)
    attempts: list[Attempt] = []
    with (
        Progress(episodes, "evaluate", "episodes") as progress,
        contextlib.closing(run_attempts(plan, seeds, min(workers, episodes))) as ended,
    ):
        for attempt in ended:
            attempts.append(attempt)
            progress.show(len(attempts), f"{sum(a.success for a in attempts)}/{len(attempts)} succeeded")
    return Result.of(sorted(attempts, key=lambda a: a.seed))


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number: int = converted(value, int, name)
        check_range(name, number, low=least)
    except ValueError as error:
        raise UserError(str(error)) from None
    return number


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", metavar="FILE", action="append", help="the checkpoint to evaluate; an arm: several")
    parser.add_argument("--policy", choices=BASELINES, help="a baseline instead of a checkpoint")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="how many (default 50), an arm: of each")
    parser.add_argument(
        "--seed", type=int, default=EVALUATION_SEED, metavar="N", help="of the first episode (default 100000)"
    )
    parser.add_argument("--stochastic", action="store_true", help="sample from the policy instead of its mean")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes to use (default 1)")
    parser.add_argument("--video", type=Path, metavar="DIR", help="write an MP4 of some episodes into this folder")
    parser.add_argument("--video-episodes", default="0", metavar="K,K,..", help="which (default 0, the first)")
    parser.add_argument("--other-actions", action="store_true", help="even if actions mean something else here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arm = parser.add_argument_group("on an arm")
    arm.add_argument("--out", type=Path, metavar="DIR", help="results and videos; one that is there is continued")
    arm.add_argument("--verdict", choices=VERDICTS, help="who judges (default person)")
    arm.add_argument("--order-seed", type=int, metavar="N", help="of the random order (default: drawn)")
    arm.add_argument("--end", action="store_true", help="end with the episodes that are there, and write the table")


def recorded_env(flags: argparse.Namespace) -> EnvRecord:
    """The environment that --ckpt remembers. Raises UserError for a file that is none."""
    if not flags.ckpt or flags.policy:
        return EnvRecord()
    for path in flags.ckpt:
        check_file(path)
    import agent.run.checkpoint

    return agent.run.checkpoint.load(flags.ckpt[0]).env


OFTEN = ("ckpt", "episodes", "workers", "video", "json")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> int:
    prog = "python -m tools.evaluate"
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options, prog, recorded_env, often=OFTEN)
    flags = arguments.flags
    if bool(flags.ckpt) == bool(flags.policy):
        raise UserError("either --ckpt FILE or --policy scripted|random is needed")
    try:
        chosen = tuple(int(number) for number in flags.video_episodes.split(","))
    except ValueError:
        raise UserError(f"--video-episodes {flags.video_episodes}: expected numbers such as 0,1") from None
    name, options = arguments.env()
    if on_an_arm(name) or flags.verdict:
        return main_on_arm(arguments, name, options)
    for flag, absent in ARM_FLAGS.items():
        if getattr(flags, flag) is not absent:
            named = flag.replace("_", "-")
            raise UserError(f"--{named} is for an arm, or with --verdict; this is a simulation: {name}")
    if flags.ckpt and len(flags.ckpt) > 1:
        raise UserError(f"--ckpt: given {len(flags.ckpt)} times; several checkpoints are for an arm, or with --verdict")
    policy = flags.ckpt[0] if flags.ckpt else flags.policy
    try:
        result = evaluate(
            policy,
            name,
            options,
            episodes=flags.episodes,
            seed=flags.seed,
            stochastic=flags.stochastic,
            workers=flags.workers,
            video=flags.video,
            video_episodes=chosen,
            other_actions=flags.other_actions,
        )
    except KeyboardInterrupt:
        print("stopped: nothing was evaluated", file=sys.stderr)
        raise
    if flags.json:
        record = EnvRecord(name, options).to_dict()
        print(json.dumps({"policy": policy, "env": record, **result.to_dict()}))
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


def main_on_arm(arguments: cli.Arguments, name: str, options: dict[str, Any]) -> int:
    """The same on an arm: see tools.trials.command."""
    from tools.trials.command import evaluate_on_arm
    from tools.trials.report import table

    flags = arguments.flags
    if not flags.ckpt or not flags.out:
        raise UserError("an arm is evaluated with --ckpt FILE (one or more) and --out DIR")
    if flags.video or flags.workers != 1:
        raise UserError("--video and --workers are for simulations: an arm's videos are in OUT/videos")
    for flag, value, least in (("episodes", flags.episodes, 1), ("seed", flags.seed, 0)):
        if value < least:
            raise UserError(f"--{flag} {value}: must be >= {least}")
    result, code = evaluate_on_arm(
        flags.ckpt,
        name,
        options,
        flags.out,
        episodes=flags.episodes,
        seed=flags.seed,
        order_seed=flags.order_seed,
        verdict=flags.verdict or "person",
        stochastic=flags.stochastic,
        other_actions=flags.other_actions,
        end=flags.end,
        robot=arguments.section("robot"),
    )
    if result:
        print(json.dumps(result) if flags.json else table(result))
    return code


if __name__ == "__main__":
    cli.run(main)
