"""How often does a policy succeed? Runs it from fixed seeds and prints the success rate with a 95 % interval.

`evaluate` is the same as a function.

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
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import cli
from agent.env_record import EnvRecord
from agent.progress import Progress
from agent.run.files import check_file
from agent.spec import UserError, plural
from tools.common.attempts import BASELINES, Plan, checkpoint_of, run_attempts
from tools.common.rollout import env_options
from tools.common.seeds import EVALUATION_SEED
from tools.common.success_rate import Attempt, Result

if TYPE_CHECKING:
    from agent.run.checkpoint import Checkpoint


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

    policy: a checkpoint or its path, an agent.policy.Policy, "scripted" or "random". env, options: the checkpoint's
    where they are left out. video: the folder for MP4s of `video_episodes`. other_actions: evaluate a checkpoint though
    its actions mean something else in `env`. Raises UserError for arguments out of range, and for a checkpoint that
    does not fit the environment.
    """
    for name, value, least in (("episodes", episodes, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; it must be {least} or more")
    if video and not all(0 <= number < episodes for number in video_episodes):
        raise UserError(f"video_episodes are {list(video_episodes)}; the episodes are 0 to {episodes - 1}")
    if not env:
        recorded = checkpoint.env.usable(None) if (checkpoint := checkpoint_of(policy)) else EnvRecord()
        if not recorded.name:
            raise UserError(f"policy {policy!s:.80} names no environment: give env")
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


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", metavar="FILE", help="the checkpoint to evaluate")
    parser.add_argument("--policy", choices=BASELINES, help="a baseline instead of a checkpoint")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="how many (default 50)")
    parser.add_argument(
        "--seed", type=int, default=EVALUATION_SEED, metavar="N", help="of the first episode (default 100000)"
    )
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
    check_file(flags.ckpt)
    import agent.run.checkpoint

    return agent.run.checkpoint.load(flags.ckpt).env


def main(argv: list[str] | None = None) -> int:
    prog = "python -m tools.evaluate"
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options, prog, recorded_env)
    flags = arguments.flags
    if bool(flags.ckpt) == bool(flags.policy):
        raise UserError("either --ckpt FILE or --policy scripted|random is needed")
    try:
        chosen = tuple(int(number) for number in flags.video_episodes.split(","))
    except ValueError:
        raise UserError(f"--video-episodes {flags.video_episodes}: expected numbers such as 0,1") from None
    name, options = arguments.env()
    try:
        result = evaluate(
            flags.ckpt or flags.policy,
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
