"""How costs grow: the exponent b of cost = a * size^b, for what users make larger.

  python -m tools.bench.growth [--json FILE] [--rounds 5] [--threads 1] [--only update|replay|robots|intake]

update   an update of the learner on the CPU, eager, random shift included: image side, batch, critics, sampled actions
         (calql.cql_actions), two cameras, small CNN; critics and sampled actions from states, too
replay   steps in the replay: to draw a batch of 256 pairs, and to make the list of sampleable rows anew
robots   1 to 16, each a process: what a transition takes at full speed, all of them together, and the CPU of the
         learner with each at 20 Hz
intake   episodes a minute, of 100 steps of two 64x64 cameras: the share of its time that the learner's loop waits

The sizes of a row take turns. Each round gives one exponent, the slope of a line through log(size), log(cost): printed
are the median, the 10th and the 90th percentile of them, and the cost at the smallest and the largest size. An exponent
between 0 and 1 is mostly a fixed cost beside one that grows linearly. About four minutes on two quiet cores.
"""

from __future__ import annotations

import functools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from agent.calql.algorithm import CalQL, Weights
from agent.config import CalQLConfig, NetworkConfig, RewardConfig
from agent.data.replay_buffer import Replay
from agent.memory import keep_freed
from agent.spec import Spec
from tools.bench import intake, link, replay_buffer
from tools.bench.random_data import EPISODE_STEPS, episode, random_batch
from tools.bench.updates import Step, in_mode
from tools.common.report import Report, parser

SIDES = (48, 64, 84, 128, 168)
BATCHES = (32, 64, 128, 256)
CRITICS = (2, 4, 8, 16)
ACTIONS = (2, 4, 8, 16)
HELD_EPISODES = (10, 40, 160)
INDEXED_STEPS = (20_000, 60_000, 200_000)
ROBOTS = (1, 2, 4, 8, 16)
UPDATES_PER_EPISODE = (80, 40, 20, 10)  # of tools.bench.intake: about 25 to 200 episodes a minute
PACED_S = 2.0  # of robots at 20 Hz
WARM_UP = 2

Cost = Callable[[], float]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through (log size, log cost)."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def seconds(step: Step) -> Cost:
    def cost() -> float:
        began = time.perf_counter()
        step()
        return time.perf_counter() - began

    return cost


def in_turn(costs: Mapping[float, Cost], rounds: int, warm_up: int = WARM_UP) -> list[dict[float, float]]:
    """Size -> cost, in each round; the sizes come in an order of their own in each."""
    rng, found = random.Random(0), []
    for turn in range(-warm_up, rounds):
        order = rng.sample(list(costs), len(costs))
        measured = {size: costs[size]() for size in order}
        if turn >= 0:
            found.append({size: measured[size] for size in costs})
    return found


def add(
    report: Report, name: str, rounds: Sequence[Mapping[float, float]], unit: str = "ms", scale: float = 1e3
) -> None:
    """Exponents of `rounds`, and the costs of the smallest and the largest size, in `unit`."""
    slopes = [exponent(list(costs), list(costs.values())) for costs in rounds]
    report.add(f"{name}: exponent", statistics.median(slopes), "")
    if len(slopes) > 1:
        tenths = statistics.quantiles(slopes, n=10, method="inclusive")
        report.add(f"{name}: exponent, 10th percentile", tenths[0], "")
        report.add(f"{name}: exponent, 90th percentile", tenths[-1], "")
    for size in (min(rounds[0]), max(rounds[0])):
        report.add(f"{name}: at {size:g}", statistics.median(costs[size] for costs in rounds) * scale, unit)


def update(
    side: int = 84, batch: int = 64, critics: int = 2, actions: int = 4, cameras: tuple[str, ...] = ("front", "wrist")
) -> Cost:
    cpu, spec = torch.device("cpu"), Spec(dict.fromkeys(cameras, (side, side, 3)), {"proprio": 11}, 7)
    learner = CalQL(spec, NetworkConfig(critics=critics), CalQLConfig(cql_actions=actions), cpu, seed=0)
    return seconds(in_mode("eager")(learner, random_batch(spec, batch, cpu), Weights(cql=1.0, bc=1.0)))


def updates(report: Report, rounds: int) -> None:
    states = functools.partial(update, batch=256, cameras=())
    rows: dict[str, dict[float, Cost]] = {
        "update, image side": {side: update(side=side) for side in SIDES},
        "update, batch": {count: update(batch=count) for count in BATCHES},
        "update, critics": {count: update(critics=count) for count in CRITICS},
        "update, sampled actions": {count: update(actions=count) for count in ACTIONS},
        "update from states, critics": {count: states(critics=count) for count in CRITICS},
        "update from states, sampled actions": {count: states(actions=count) for count in ACTIONS},
    }
    for name, costs in rows.items():
        add(report, name, in_turn(costs, rounds))


def replay(report: Report, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fill = replay_buffer.ours("host", folder)
        draws: dict[float, Cost] = {count * EPISODE_STEPS: seconds(fill(count)) for count in HELD_EPISODES}
        add(report, "a batch of 256 pairs, steps held", in_turn(draws, 5 * rounds, 10))
    lists: dict[float, Cost] = {steps: _index(steps) for steps in INDEXED_STEPS}
    add(report, "list of rows, steps held", in_turn(lists, 5 * rounds))


def _index(steps: int) -> Cost:
    spec = Spec({}, {"state": 1}, 1)
    held, made = Replay(spec, 2 * steps, RewardConfig(), 0.95), episode(0, spec)
    for _ in range(steps // EPISODE_STEPS):
        held.add(made)

    def make() -> None:
        held._index = None
        held.index  # noqa: B018

    return seconds(make)


def robots(report: Report, rounds: int) -> None:
    learner = link.Learner(max(ROBOTS), None, {"w": np.zeros(1, np.float32)})
    with learner.running():
        full: dict[float, Cost] = {n: functools.partial(_transition, learner, n) for n in ROBOTS}
        paced: dict[float, Cost] = {n: functools.partial(learner.cpu_share, "link", n, PACED_S) for n in ROBOTS}
        add(report, "a transition at full speed, robots", in_turn(full, rounds), "us", 1e6)
        add(report, f"learner's CPU at {link.CPU_HZ} Hz, robots", in_turn(paced, 2, 0), "% of a core", 100)


def _transition(learner: link.Learner, count: int) -> float:
    return 1 / learner.steps("link", count, max(1, 8 // count))


def arrivals(report: Report, rounds: int) -> None:
    spec, work = Spec({"front": (64, 64, 3), "wrist": (64, 64, 3)}, {"state": 9}, 7), intake.Work()

    def share(each: int) -> float:
        """Of the loop's time, that it waits where an episode arrives every `each` updates."""
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:  # /tmp may be memory
            waited, taken = intake.stalls(
                intake.WAYS[0], spec, max(UPDATES_PER_EPISODE) // each, Path(place), work, each
            )
        return sum(waited) / taken

    costs = {60 / (intake.UPDATE_S * each): functools.partial(share, each) for each in UPDATES_PER_EPISODE}
    add(report, "the loop waits, episodes a minute", in_turn(costs, rounds, 1), "% of its time", 100)


PARTS: dict[str, Callable[[Report, int], None]] = {
    "update": updates,
    "replay": replay,
    "robots": robots,
    "intake": arrivals,
}


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=5, help="turns that each size takes (%(default)s)")
    arguments.add_argument("--only", choices=list(PARTS), help="one part instead of all")
    arguments.add_argument("--threads", type=int, default=1, help="CPU threads of the learner (%(default)s)")
    flags = arguments.parse_args(argv)
    if flags.rounds < 1 or flags.threads < 1:
        arguments.error("--rounds and --threads: at least 1")
    torch.set_num_threads(flags.threads)
    keep_freed()  # as pretraining and learner do on a CPU
    report = Report("how costs grow")
    for name, part in PARTS.items():
        if flags.only in (None, name):
            part(report, flags.rounds)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
