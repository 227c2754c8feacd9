"""How many updates a second the learner makes beside other programs, with one CPU thread and with one for each core.

  python -m tools.bench.beside [--json FILE] [--seconds 5] [--rounds 5]

The update is the demo's (configs/quickstart.yaml): two 64 x 64 cameras, batches of 64, 4 critics. Beside it: nothing; a
program that only computes; an update like ours with one thread, or with one for each core; the simulator, drawing. The
figure is the median of the rounds, in which all settings take turns in an order drawn anew.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from agent import cli
from tools.common.report import Report, parser

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
BESIDE = ("nothing", "a busy loop", "an update with 1 thread", "an update with all threads", "the simulator")
FOR_EVER_S = 1e9


def update_rate(threads: int, seconds: float) -> float:
    """Updates a second of this process."""
    import torch

    from agent.calql.algorithm import CalQL, Weights
    from agent.spec import Spec
    from tools.bench.random_data import random_batch

    torch.set_num_threads(threads)
    settings = cli.parse(["--config", str(QUICKSTART)], "", ["network", "calql"])
    spec = Spec({"agentview": (64, 64, 3), "robot0_eye_in_hand": (64, 64, 3)}, {"proprio": 11}, 4)
    cpu = torch.device("cpu")
    learner = CalQL(spec, settings.section("network"), settings.section("calql"), cpu, 0)
    batch, weights, count = random_batch(spec, 64, cpu), Weights(0.3, 1.0), 0
    learner.learn(batch, weights)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        learner.learn(batch, weights)
        count += 1
    return count / (time.perf_counter() - began)


def simulate() -> None:
    import envs

    env = envs.make("sim", image_size=64)
    env.action_space.seed(0)
    while True:
        env.reset(seed=0)
        for _ in range(50):
            env.step(env.action_space.sample())


def other(kind: str) -> None:
    """Be that program, for ever."""
    if kind == "a busy loop":
        while True:
            pass
    if kind == "the simulator":
        simulate()
    update_rate(1 if "1 thread" in kind else os.cpu_count() or 1, FOR_EVER_S)


def measure(beside: str, threads: int, seconds: float) -> float:
    """Updates a second of a process of its own, beside such a program."""
    command = [sys.executable, "-m", "tools.bench.beside"]
    running = None if beside == "nothing" else subprocess.Popen([*command, "--be", beside])
    try:
        time.sleep(0 if running is None else 5.0)  # until it works
        words = [*command, "--threads", str(threads), "--seconds", str(seconds)]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    finally:
        if running:
            running.kill()
            running.wait()


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each measurement (5)")
    arguments.add_argument("--rounds", type=int, default=5, help="measurements of each setting (5)")
    arguments.add_argument("--threads", type=int, help="only print the rate of this process, with so many threads")
    arguments.add_argument("--be", choices=BESIDE[1:], help="only be such a program, until it is killed")
    flags = arguments.parse_args(argv)
    if flags.be:
        other(flags.be)
    if flags.threads:
        print(update_rate(flags.threads, flags.seconds))
        return
    settings = [(beside, threads) for beside in BESIDE for threads in (1, len(os.sched_getaffinity(0)))]
    rates: dict[tuple[str, int], list[float]] = {setting: [] for setting in settings}
    for _ in range(flags.rounds):
        for setting in random.sample(settings, len(settings)):
            rates[setting].append(measure(*setting, flags.seconds))
    report = Report("Updates a second of the demo's learner, beside another program")
    for (beside, threads), found in rates.items():
        report.add(f"beside {beside}, {threads} thread{'s' * (threads > 1)}", statistics.median(found), "/s")
    report.finish(flags.json)


if __name__ == "__main__":
    cli.run(main)
