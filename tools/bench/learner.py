"""What one update of the learner costs, beside other implementations and beside the limits of the machine.

  python -m tools.bench.learner [--json FILE] [--threads 1] [--only states|images|gpu] [--corl PATH] [--rounds 20]

states  AntMaze's networks and numbers (presets/paper.yaml) on the CPU: ours, CORL's Cal-QL and d3rlpy's, with layers of
        the same sizes and the same random data, all in fp32; then ours compiled and in bf16. The matrix peak is a
        big product, timed in the same run. On a CPU that is slow in bf16 such rows are left out. CORL's actor has
        three hidden layers; here it is given two, as the others.
images  two 84x84 cameras on the CPU, batch 128, 2 critics, n = 4.
gpu     two 128x128 cameras, batch 256, 10 critics with subset 2, n = 10; left out where there is no GPU.

What is compared takes turns, update by update, in an order drawn anew each round, so that what else the machine does
hits all of it alike. An update is that of a batch which is already on the device, but for the rows "batches from ...",
which draw theirs as runs do. Targets are for fp32. The peers are not part of the project: d3rlpy is on PyPI; CORL is
one file, algorithms/finetune/cal_ql.py of github.com/corl-team/CORL, which --corl names or the PYTHONPATH leads to.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch
import yaml

from agent import channel_norm
from agent.calql.acceleration import accelerate, bf16_cost, slow_bf16
from agent.calql.algorithm import CalQL, Weights
from agent.config import CalQLConfig, LearnerConfig, NetworkConfig
from agent.data.replay_buffer import Batch
from agent.spec import Spec, UserError
from tools.bench import peers
from tools.bench.random_data import drawn, random_batch
from tools.bench.roofline import Roofline, copy, flops, kernel_seconds, matmul
from tools.common.report import Missing, Report, parser

PAPER = Path(__file__).parents[2] / "configs" / "presets" / "paper.yaml"
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
        if bf16 != "off" and learner.device.type == "cpu" and (reason := slow_bf16(bf16_cost())):
            raise UserError(reason)
        accelerate(learner, LearnerConfig(mode=mode, bf16=bf16))
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


# Ways to run an update, each in a learner of its own. The others are held against the first.
ON_GPU = {
    "eager": in_mode("eager"),
    "compile": in_mode("compile"),
    "graph": in_mode("graph"),
    "graph, batches from host memory": in_mode("graph", storage="host"),
    "graph, batches from GPU memory": in_mode("graph", storage="device"),
    "graph, tf32": in_mode("graph", tf32=True),
    "graph, bf16": in_mode("graph", "all"),
}
ON_CPU = {
    "eager": in_mode("eager"),
    "plain layers": plain_layers,
    "bf16 encoder": in_mode("eager", "encoder"),
    "bf16": in_mode("eager", "all"),
    "compile": in_mode("compile"),
    "compile, bf16": in_mode("compile", "all"),
}


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
    steps: dict[str, Step], rounds: int, per_turn: int = 1, finish: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each step, `rounds` times, in turn; `per_turn` steps are timed as one, until `finish` returns.

    Each round has an order of its own: a step finds the caches, the heap and the clock as the one before left them.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    order, rng = list(steps), random.Random(0)
    for turn in range(-WARM_UP, rounds):
        rng.shuffle(order)
        for name in order:
            began = time.perf_counter()
            for _ in range(per_turn):
                steps[name]()
            finish()
            if turn >= 0:
                times[name].append((time.perf_counter() - began) / per_turn)
    return times


def add_rate(report: Report, name: str, seconds: list[float]) -> float:
    """Updates per second: median, 10th and 90th percentile. Returns the median."""
    tenths = statistics.quantiles(seconds, n=10)
    rate = 1 / statistics.median(seconds)
    report.add(name, rate, "updates/s")
    report.add(f"{name}, 10th percentile", 1 / tenths[-1], "updates/s")
    report.add(f"{name}, 90th percentile", 1 / tenths[0], "updates/s")
    return rate


def states(report: Report, rounds: int, corl: str | None) -> None:
    cpu, spec = torch.device("cpu"), Spec({}, {"state": 29}, 8)
    paper = yaml.safe_load(PAPER.read_text())
    network, config = NetworkConfig(**paper["network"]), CalQLConfig(**paper["calql"])
    batch, weights = random_batch(spec, 256, cpu), Weights(config.cql_weight, bc=0.0)
    ways = {"ours": eager, **{f"ours, {name}": ON_CPU[name] for name in ("compile", "bf16", "compile, bf16")}}
    steps = ready(ways, lambda: CalQL(spec, network, config, cpu, seed=0), batch, weights)
    targets = {"CORL": 2.0, "d3rlpy": 1.3}
    for name in targets:
        try:
            found = peers.corl(corl, network, config, batch) if name == "CORL" else peers.d3rlpy(network, config, batch)
            steps[name] = found
        except Missing as missing:
            print(f"{name} is left out: {missing}")
    kinds = dict.fromkeys(precision(name) for name in ways if name in steps)
    probes = {kind: matmul(kind, 1024, cpu) for kind in kinds}
    times = in_turn({**steps, **{kind: probe.step for kind, probe in probes.items()}}, rounds)
    rates = {name: add_rate(report, f"states, {name}", times[name]) for name in steps}
    for name, target in targets.items():
        for mine in ways if name in rates else ():
            if mine in rates:
                goal = target if precision(mine) == "fp32" else None
                report.add(f"states, {mine} / {name}", rates[mine] / rates[name], "x", goal, "higher")
    work = flops(steps["ours"])
    report.add("states, one update of ours", work / 1e9, "GFLOP")
    peaks = {kind: probe.work / statistics.median(times[kind]) for kind, probe in probes.items()}
    for kind, peak in peaks.items():
        report.add(f"matrix peak, {kind}", peak / 1e9, "GFLOP/s")
    for mine in (name for name in ways if name in rates):
        kind = precision(mine)
        goal = 0.8 if kind == "fp32" else None
        report.add(f"states, {mine} / {kind} matrix peak", work * rates[mine] / peaks[kind], "x", goal, "higher")


def images(report: Report, rounds: int) -> None:
    cpu, spec = torch.device("cpu"), Spec({"front": (84, 84, 3), "wrist": (84, 84, 3)}, {"proprio": 11}, 7)
    config = CalQLConfig(cql_actions=4, max_target_backup=True)  # the work of the figures in docs/measurements.md
    batch, weights = random_batch(spec, 128, cpu), Weights(cql=1.0, bc=1.0)

    def learner() -> CalQL:
        return CalQL(spec, NetworkConfig(critics=2), config, cpu, seed=0)

    times = in_turn(ready(ON_CPU, learner, batch, weights), rounds)
    rates = {name: add_rate(report, f"images on the CPU, {name}", seconds) for name, seconds in times.items()}
    for name in list(rates)[1:]:
        report.add(f"images on the CPU, {name} / eager", rates[name] / rates["eager"], "x")
    report.add("images on the CPU, one update", flops(eager(learner(), batch, weights)) / 1e9, "GFLOP")


def roofline(learner: CalQL, batch: Batch, weights: Weights, bf16: BF16) -> Roofline:
    """An update's products and convolutions, in the precision that they are made in."""
    step = eager(learner, batch, weights)
    learner.bf16 = bf16
    step()
    found = Roofline()
    with found:
        step()
    return found


def gpu(report: Report, rounds: int, device: torch.device) -> None:
    spec = Spec({"front": (128, 128, 3), "wrist": (128, 128, 3)}, {"proprio": 11}, 7)
    network = NetworkConfig(critics=10)
    config = CalQLConfig(cql_actions=10, target_subset=2, max_target_backup=True)
    batch, weights = random_batch(spec, 256, device), Weights(cql=1.0, bc=1.0)

    def learner() -> CalQL:
        return CalQL(spec, network, config, device, seed=0)

    steps = ready(ON_GPU, learner, batch, weights)
    times = in_turn(steps, rounds, per_turn=10, finish=torch.cuda.synchronize)
    probes = {kind: matmul(kind, 8192, device) for kind in ("fp32", "tf32", "bf16")}
    probes["memory"] = copy(1 << 30, device)
    limits = in_turn({name: probe.step for name, probe in probes.items()}, rounds, 5, torch.cuda.synchronize)
    peaks = {name: probe.work / statistics.median(limits[name]) for name, probe in probes.items()}
    rooflines = {
        "fp32": roofline(learner(), batch, weights, "off"),
        "bf16": roofline(learner(), batch, weights, "all"),
    }
    least = {kind: found.seconds(peaks, peaks["memory"]) for kind, found in rooflines.items()}
    least["tf32"] = rooflines["fp32"].seconds({**peaks, "fp32": peaks["tf32"]}, peaks["memory"])
    rates = {name: add_rate(report, f"GPU, {name}", times[name]) for name in steps}
    for name, step in steps.items():
        has_target = name != "eager" and precision(name) == "fp32"
        if name != "eager":
            report.add(f"GPU, {name} / eager", rates[name] / rates["eager"], "x", 5.0 if has_target else None, "higher")
        busy = kernel_seconds(step, 20) * rates[name]
        report.add(f"GPU, {name}, kernels' share of a step", busy, "x", 0.9 if has_target else None, "higher")
        report.add(f"GPU, {name}, roofline / step", least[precision(name)] * rates[name], "x")
    for kind in ("fp32", "tf32", "bf16"):
        report.add(f"GPU, matrix peak, {kind}", peaks[kind] / 1e12, "TFLOP/s")
    report.add("GPU, memory bandwidth", peaks["memory"] / 1e9, "GB/s")
    report.add("GPU, one update: work", sum(o.flops for o in rooflines["fp32"].operations) / 1e9, "GFLOP")
    report.add("GPU, one update: memory", sum(o.bytes for o in rooflines["fp32"].operations) / 1e9, "GB")
    for kind, seconds in least.items():
        report.add(f"GPU, one update: roofline, {kind}", seconds * 1e3, "ms")


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--threads", type=int, default=1, help="CPU threads, the same for all (1)")
    arguments.add_argument("--only", choices=["states", "images", "gpu"], help="one part instead of all")
    arguments.add_argument("--corl", metavar="PATH", help="CORL's cal_ql.py")
    arguments.add_argument("--rounds", type=int, default=20, help="turns that each takes (20)")
    flags = arguments.parse_args()
    if flags.rounds < 2:
        arguments.error("--rounds: at least 2")
    torch.set_num_threads(flags.threads)
    report = Report(f"learner, {torch.get_num_threads()} CPU threads")
    if flags.only in (None, "states"):
        states(report, flags.rounds, flags.corl)
    if flags.only in (None, "images"):
        images(report, flags.rounds)
    if flags.only in (None, "gpu"):
        if torch.cuda.is_available():
            gpu(report, flags.rounds, torch.device("cuda"))
        else:
            print("GPU is left out: torch sees none")
    if report.figures:
        report.finish(flags.json)


if __name__ == "__main__":
    main()
