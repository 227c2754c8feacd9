"""A task and its reset take turns: whose episodes reach which learner, and where each begins.

  python -m tools.stress.reset_policy [--config FILE.yaml ...] [--episodes 3] [--folder FOLDER] [--json FILE]

Real processes, as in docs/real_arm.md: demonstrations of both by the scripted expert, two checkpoints, two learners,
and a robot server with --reset-address. Without --config on the mock arm. What the policies do is no matter here, so
they are trained for --updates updates only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.cli import run
from agent.data.episode_file import read_episodes
from agent.spec import Episode, UserError
from envs.base import RESET_TASK
from tools.common.process import Process, free_port
from tools.common.report import Report, parser

TASK, BACK = "task", "back"
MOCK = "configs/hardware/mock.yaml"


def checkpoint_of(folder: Path, which: str, configs: Sequence[str], updates: int) -> Path:
    """That of the policy `which`, after demonstrations."""
    demos, ckpt = folder / f"demos_{which}", folder / f"{which}.pt"
    task = ["--reset-task", str(which == BACK).lower()]
    collect = ["--device", "scripted", "--episodes", 2, "--collect.failure_rate", 0, "--out", demos]
    Process(folder, f"collect_{which}", "tools.collect", *configs, *task, *collect).output()
    offline = ["--data", demos, "--out", ckpt, "--run", folder / f"pretrain_{which}", "--offline.updates", updates]
    Process(folder, f"pretrain_{which}", "agent.pretrain", *configs, *offline).output()
    return ckpt


def take_turns(folder: Path, configs: Sequence[str], ckpts: dict[str, Path], episodes: int) -> str:
    """What the robot server said in the end."""
    addresses = {which: f"tcp://127.0.0.1:{free_port()}" for which in ckpts}
    learners = []
    robot = ["--address", addresses[TASK], "--reset-address", addresses[BACK], "--episodes", episodes]
    robot += ["--control", ""]  # there is no person: after a fault it ends
    try:
        for which, ckpt in ckpts.items():
            place = ["--run", folder / which, "--address", addresses[which], "--env-steps", 10**9]
            learners.append(Process(folder, f"learner_{which}", "agent.learner", "--ckpt", ckpt, *place))
        process = Process(folder, "robot_server", "robot_server", *configs, *robot, "--spool", folder / "spool")
        return process.output()
    finally:
        for learner in learners:
            learner.end()


def place(episode: Episode, step: int) -> np.ndarray:
    """float64 (n,): where the arm was."""
    return np.asarray(episode.observations["proprio"][step], np.float64)


def add_figures(report: Report, arrived: dict[str, list[Episode]], episodes: int) -> bool:
    """Whether each learner has all episodes of its own policy, and no others."""
    right = True
    for which, some in arrived.items():
        numbers = [int(episode.meta["number"]) for episode in some]
        own = [bool(episode.meta["env"]["options"].get(RESET_TASK)) == (which == BACK) for episode in some]
        report.add(f"episodes of the policy '{which}' at its learner", sum(own), "", episodes, "higher")
        report.add(
            "episodes there that are of the other, or twice",
            len(own) - sum(own) + len(numbers) - len(set(numbers)),
            "",
            0,
        )
        right &= sorted(numbers) == list(range(episodes)) and all(own)
    pairs = list(zip(arrived[TASK], arrived[BACK], strict=False))
    moved = [np.abs(place(back, 0) - place(made, -1)).max() for made, back in pairs]
    report.add("proprio at a task's end and at its reset's begin: at most apart", max(moved, default=np.nan), "")
    return right


def main(argv: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--config", action="append", metavar="FILE", help=f"of the arm ({MOCK})")
    made.add_argument("--episodes", type=int, default=3, help="of each policy (3)")
    made.add_argument("--updates", type=int, default=20, help="offline, of each policy (20)")
    made.add_argument("--folder", type=Path, help="where everything goes, and stays")
    flags = made.parse_args(argv)
    if flags.episodes < 1:
        raise UserError(f"--episodes {flags.episodes}: at least one")
    configs = [word for path in flags.config or [MOCK] for word in ("--config", path)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.folder or Path(temporary)
        ckpts = {which: checkpoint_of(folder, which, configs, flags.updates) for which in (TASK, BACK)}
        print(take_turns(folder, configs, ckpts, flags.episodes).strip(), flush=True)
        arrived = {which: list(read_episodes([folder / which / "episodes"])) for which in ckpts}
    report = Report(f"a reset policy: {flags.episodes} episodes of each, {', '.join(flags.config or [MOCK])}")
    right = add_figures(report, arrived, flags.episodes)
    report.finish(flags.json)
    return 0 if right else 1


if __name__ == "__main__":
    run(main)
