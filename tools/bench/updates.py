"""Updates of the learner as steps that the benchmarks time: in each of its modes, and in turn with others."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Literal
from unittest.mock import patch

import torch

from agent import channel_norm
from agent.calql.acceleration import accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.config import LearnerConfig
from agent.data.replay_buffer import Batch
from agent.spec import UserError
from tools.bench.random_data import drawn
from tools.bench.roofline import Roofline
from tools.common.report import Report

WARM_UP = 3
SETTLE = 5  # after so many steps an update is compiled, and captured

Mode = Literal["eager", "compile", "graph"]
BF16 = Literal["off", "encoder", "all"]
Step = Callable[[], object]
Way = Callable[[CalQL, Batch, Weights], Step]


def eager(learner: CalQL, batch: Batch, weights: Weights) -> Step:
    return lambda: learner.update(batch, weights, update_actor=True)


def plain_layers(learner: CalQL, batch: Batch, weights: Weights) -> Step:
    """An eager step of a learner whose encoder has PyTorch's own layers instead of agent.channel_norm's kernel."""
    step = in_mode("eager")(learner, batch, weights)

    def plain() -> None:
        with patch.object(channel_norm, "usable", return_value=False):
            step()

    return plain


def in_mode(mode: Mode, bf16: BF16 = "off", tf32: bool = False, storage: str = "") -> Way:
    """Makes a step, augmentation included, of a learner in that mode: compiled and captured already.

    storage: as runs make it, each batch drawn anew, half and half from two replays whose frames are there.
    """

    def make(learner: CalQL, batch: Batch, weights: Weights) -> Step:
        if fell_back := accelerate(learner, LearnerConfig(mode=mode, bf16=bf16)):
            raise UserError(fell_back)  # a row in float32 would be another row's
        batches = drawn(batch, storage, learner.device) if storage else None

        def step() -> None:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            learner.learn(batches.next() if batches else batch, weights)
            if batches:
                batches.draw_ahead()
            torch.set_float32_matmul_precision("highest")

        for _ in range(SETTLE):
            step()
        return step

    return make


def precision(name: str) -> str:
    """That of the products in the row of this name; targets are for fp32."""
    return next((kind for kind in ("bf16", "tf32") if kind in name), "fp32")


def ready(ways: dict[str, Way], learner: Callable[[], CalQL], batch: Batch, weights: Weights) -> dict[str, Step]:
    """A step of a learner of its own for each of the ways that this machine can go."""
    steps = {}
    for name, make in ways.items():
        try:
            steps[name] = make(learner(), batch, weights)
        except UserError as error:
            print(f"{name} is left out: {error}")
    return steps


def in_turn(
    steps: dict[str, Step],
    rounds: int,
    per_turn: int = 1,
    finish: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each step, `rounds` times, in turn; `per_turn` steps are timed as one, until `finish` returns.

    Each round has an order of its own: a step finds the caches, the heap and the clock as the one before left them.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    order, rng = list(steps), random.Random(0)
    for turn in range(-WARM_UP, rounds):
        rng.shuffle(order)
        for name in order:
            began = clock()
            for _ in range(per_turn):
                steps[name]()
            finish()
            if turn >= 0:
                times[name].append((clock() - began) / per_turn)
    return times


def add_rate(report: Report, name: str, seconds: list[float]) -> float:
    """Updates per second: median, 10th and 90th percentile. Returns the median."""
    tenths = statistics.quantiles(seconds, n=10)
    rate = 1 / statistics.median(seconds)
    report.add(name, rate, "updates/s")
    report.add(f"{name}, 10th percentile", 1 / tenths[-1], "updates/s")
    report.add(f"{name}, 90th percentile", 1 / tenths[0], "updates/s")
    return rate


def work_of(learner: CalQL, batch: Batch, weights: Weights, bf16: BF16) -> Roofline:
    """An update's products and convolutions, in the precision that they are made in."""
    step = eager(learner, batch, weights)
    learner.bf16 = bf16
    step()
    found = Roofline()
    with found:
        step()
    return found
