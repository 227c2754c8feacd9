"""The whole job on this machine: demonstrations, offline training, evaluation, online fine-tuning, evaluation, a plot.

  python -m tools.demo                                   # what `make demo` runs: configs/quickstart.yaml
  python -m tools.demo --config configs/hardware/so101_mock.yaml --folder runs/so101   # a simulated SO-101
  python -m tools.demo --config configs/quickstart.yaml --config configs/presets/cql.yaml --folder runs/cql --seed 1

Runs the commands that a user types, each as its own process, and shows them; fine-tuning is two processes, learner and
robot server, over ZeroMQ. Everything goes to the folder (runs/demo/; an older one is moved aside): demos/, offline.pt,
online/ (episodes, latest.pt, log.jsonl), *.log, learning_curve.png, summary.json. Ctrl-C stops all of it.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import glob
import json
import os
import time
from pathlib import Path
from typing import Any

from agent import cli
from agent.commands import typed
from agent.progress import Progress
from agent.run.records import log_path, read_log
from agent.spec import UserError
from tools.common.cores import idle_cores
from tools.common.curves import task_in_words
from tools.common.process import STOP_S, Process, free_port
from tools.common.rollout import env_options
from tools.common.seeds import EVALUATION_SEED, MAX_SEED, SEED_STRIDE
from tools.evaluate import on_an_arm


class Stage(Process):
    """A command that is shown as a user would type it."""

    def __init__(self, folder: Path, name: str, *command: str) -> None:
        print(f"$ {typed(*command)}", flush=True)
        super().__init__(folder, name, *command)


def evaluate(folder: Path, name: str, ckpt: Path, episodes: int, cores: int, arm: list[str]) -> dict[str, Any]:
    """arm: the configs of an arm, which no checkpoint names, in wall-clock time; its own success signal judges."""
    command = ["tools.evaluate", "--ckpt", str(ckpt), "--episodes", str(episodes), "--seed", str(EVALUATION_SEED)]
    command += (
        [*arm, "--out", str(folder / f"trials_{name}"), "--verdict", "signal"]
        if arm
        else ["--workers", str(min(cores, 4))]
    )
    result: dict[str, Any] = json.loads(Stage(folder, f"evaluate_{name}", *command, "--json").output())
    if arm:
        result = {**result["checkpoints"][0], "return": result["checkpoints"][0]["success"]}
    low, high = result["low"], result["high"]
    print(
        f"  success {result['success']:.0%} of {episodes} episodes (95 % interval {low:.0%} to {high:.0%})\n",
        flush=True,
    )
    return result


def fine_tune(folder: Path, configs: list[str], seed: int, cores: int, steps: int) -> None:
    """Learner and robot server until the learner has had its env steps."""
    address = f"tcp://127.0.0.1:{free_port()}"
    threads = str(max(1, cores - 1))  # the simulator has a core of its own
    online, ckpt = folder / "online", folder / "offline.pt"
    learner = ["--ckpt", str(ckpt), "--run", str(online), "--address", address, "--threads", threads]
    robot = [
        *configs,
        "--address",
        address,
        "--robot.seed",
        str(1000 + SEED_STRIDE * seed),
        "--spool",
        str(folder / "spool"),
    ]
    learner_stage = Stage(folder, "learner", "agent.learner", *learner)
    robot_stage = Stage(folder, "robot_server", "robot_server", *robot)
    try:
        with Progress(steps, "fine-tune", "env steps") as progress:
            while not learner_stage.ended():
                if robot_stage.ended():
                    robot_stage.output()
                    learner_stage.process.wait(STOP_S)  # a robot server leaves by itself only when the run is over
                progress.show(*_newest(online))
                time.sleep(1.0)
        print("  " + learner_stage.output().strip().splitlines()[-1] + "\n")
    finally:
        robot_stage.end()
        learner_stage.end()


def _newest(run: Path) -> tuple[int, str]:
    """Env steps, and a summary of the last 20 episodes, from a run's log."""
    if not log_path(run).exists():
        return 0, "starting"
    episodes = read_log(run, "episode")
    if not episodes:
        return 0, "first episode"
    recent = [e["success"] for e in episodes[-20:]]
    text = f"{sum(recent)}/{len(recent)} of the last episodes successful, {episodes[-1]['updates']} updates"
    return episodes[-1]["env_steps"], text


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__ or "", [], _flags, env_options, prog="python -m tools.demo")
    flags = arguments.flags
    began = time.monotonic()
    files = flags.config or ["configs/quickstart.yaml"]
    if not flags.config:
        arguments = cli.parse(["--config", files[0], *(argv or [])], "", [], _flags, env_options)
    configs = [word for path in files for word in ("--config", path)]
    if not 0 <= flags.seed <= MAX_SEED:
        raise UserError(f"--seed {flags.seed}: 0 to {MAX_SEED}, or its episodes would be those of the evaluation")
    if flags.episodes < 1:
        raise UserError(f"--episodes {flags.episodes}: at least one")
    folder = Path(flags.folder)
    try:
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}-before-{time.strftime('%Y%m%d-%H%M%S')}"))
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--folder {folder}: {error.strerror}") from None
    cores = len(os.sched_getaffinity(0))
    arm = configs if on_an_arm(arguments.env()[0]) else []
    seed, demos, ckpt = flags.seed, folder / "demos", folder / "offline.pt"
    idle = idle_cores()
    busy = f", of which {idle} idle" if idle < cores else ""
    print(f"{cores} cores{busy}; everything goes to {folder}/\n")

    def stage(name: str, *command: str) -> str:
        return Stage(folder, name, *command).output()

    collect = [*configs, "--device", "scripted", "--out", str(demos), "--collect.seed", str(SEED_STRIDE * seed)]
    pretrain = [*configs, "--data", str(demos), "--out", str(ckpt), "--run", str(folder / "pretrain")]
    print(stage("collect", "tools.collect", *collect))
    print(stage("pretrain", "agent.pretrain", *pretrain, "--threads", str(idle), "--learner.seed", str(seed)))
    offline = evaluate(folder, "offline", ckpt, flags.episodes, cores, arm)
    fine_tune(folder, configs, seed, cores, arguments.section("online").env_steps)
    online = evaluate(folder, "online", folder / "online/latest.pt", flags.episodes, cores, arm)

    episodes = read_log(folder / "online", "episode")
    last = episodes[-1]
    with open(log_path(folder / "online"), "a") as file:  # for the plot
        for steps, updates, result in ((0, 0, offline), (last["env_steps"], last["updates"], online)):
            figures = {key: result[key] for key in ("success", "low", "high", "episodes", "return")}
            file.write(json.dumps({"kind": "eval", "env_steps": steps, "updates": updates, **figures}) + "\n")
    summary = {
        "offline_success": offline["success"],
        "online_success": online["success"],
        "episodes": len(episodes),
        "env_steps": last["env_steps"],
        "updates": last["updates"],
        "minutes": round((time.monotonic() - began) / 60, 2),
        "offline_interval": [offline["low"], offline["high"]],
        "online_interval": [online["low"], online["high"]],
        "evaluation_episodes": flags.episodes,
        "seed": seed,
        "config": files,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    curve = folder / "learning_curve.png"
    label = f"{arguments.section('calql').algorithm}={glob.escape(str(folder / 'online'))}"
    title = f"{task_in_words(*arguments.env())}, seed {seed}"
    stage("plot", "tools.plot", "--label", label, "--title", title, "--out", str(curve))
    print(f"success before fine-tuning {offline['success']:.0%}, after {online['success']:.0%}")
    print(f"{summary['env_steps']} env steps, {summary['updates']} updates, {summary['minutes']:.1f} minutes")
    print(f"learning curve: {curve}\nsummary: {folder / 'summary.json'}")


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", default="runs/demo", help="where everything goes (runs/demo)")
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes, each time (50)")
    parser.add_argument("--seed", type=int, default=0, help=f"seed of the whole job, 0 to {MAX_SEED} (0)")


if __name__ == "__main__":
    cli.run(main)
