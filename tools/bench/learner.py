"""What one update of the learner costs, beside other implementations and beside the limits of the machine.

  python -m tools.bench.learner [--json FILE] [--threads 1] [--only states|images|gpu] [--corl PATH] [--rounds 20]
      [--wsrl FOLDER] [--hil-serl FOLDER] [--jax-python PYTHON] [--cpu-time] [--eager]

states  AntMaze's networks and numbers (presets/paper.yaml) on the CPU: ours, CORL's Cal-QL and d3rlpy's, with layers of
        the same sizes and the same random data, all in fp32; then ours compiled and in bf16. The matrix peak is a
        big product, timed in the same run. On a CPU that is slow in bf16 such rows are left out. CORL's actor has
        three hidden layers; here it is given two, as the others.
images  two 84x84 cameras on the CPU, batch 128, 2 critics, n = 4, random shift included: ours, WSRL's Cal-QL in JAX,
        and hil-serl's SAC beside ours without the conservative term.
gpu     two 128x128 cameras, batch 256, 10 critics with subset 2, n = 10; left out where there is no GPU.

What is compared takes turns, update by update, in an order drawn anew each round, so that what else the machine does
hits all of it alike. An update is that of a batch which is already on the device, but for the rows "batches from ...",
which draw theirs as runs do. Targets are for fp32. The peers are not part of the project: d3rlpy is on PyPI; CORL is
one file, algorithms/finetune/cal_ql.py of github.com/corl-team/CORL, which --corl names or the PYTHONPATH leads to.
WSRL and hil-serl are folders, and their JAX has an environment of its own, which the top of tools/bench/jax_peers.py
makes. JAX takes as many threads as it may use cores, so with them everything runs on the first --threads cores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import time
from pathlib import Path

import torch
import yaml

from agent.calql.algorithm import CalQL, Weights
from agent.config import CalQLConfig, NetworkConfig
from agent.memory import keep_freed
from agent.spec import Spec
from tools.bench import peers
from tools.bench.jax_peers import JaxPeer
from tools.bench.random_data import random_batch
from tools.bench.roofline import copy, flops, kernel_seconds, matmul
from tools.bench.updates import add_rate, eager, in_mode, in_turn, plain_layers, precision, ready, work_of
from tools.common.report import Missing, Report, parser

PAPER = Path(__file__).parents[2] / "configs" / "presets" / "paper.yaml"
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

IN_JAX = {"WSRL": ("eager", 5.0), "hil-serl": ("SAC", 3.0)}  # which way of ours makes the same update, and the target


def states(report: Report, rounds: int, corl: str | None, compiled: bool = True) -> None:
    cpu, spec = torch.device("cpu"), Spec({}, {"state": 29}, 8)
    paper = yaml.safe_load(PAPER.read_text())
    network, config = NetworkConfig(**paper["network"]), CalQLConfig(**paper["calql"])
    batch, weights = random_batch(spec, 256, cpu), Weights(config.cql_weight, bc=0.0)
    others = [name for name in ("compile", "bf16", "compile, bf16") if compiled or "compile" not in name]
    ways = {"ours": eager, **{f"ours, {name}": ON_CPU[name] for name in others}}
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


def images(
    report: Report,
    rounds: int,
    folders: dict[str, str | None],
    python: str = "",
    cpu_time: bool = False,
    compiled: bool = True,
) -> None:
    """folders: of the peers in IN_JAX, or None. python: of their environment. cpu_time: CPU seconds, not a clock's."""
    cpu, spec = torch.device("cpu"), Spec({"front": (84, 84, 3), "wrist": (84, 84, 3)}, {"proprio": 11}, 7)
    config = CalQLConfig(cql_actions=4, max_target_backup=True)  # the work of the figures in docs/measurements.md
    one_sample = dataclasses.replace(config, max_target_backup=False)
    network, batch, weights = NetworkConfig(critics=2), random_batch(spec, 128, cpu), Weights(cql=1.0, bc=1.0)

    def learner(config: CalQLConfig = config) -> CalQL:
        return CalQL(spec, network, config, cpu, seed=0)

    ways = ready({n: way for n, way in ON_CPU.items() if compiled or "compile" not in n}, learner, batch, weights)
    steps = {**ways, "SAC": in_mode("eager")(learner(one_sample), batch, Weights(cql=0.0, bc=0.0))}
    with contextlib.ExitStack() as stack:
        others: list[JaxPeer] = []
        for name, folder in folders.items():
            try:
                peer = JaxPeer(name, folder, python, spec, network, config, len(batch.actions))
            except Missing as missing:
                print(f"{name} is left out: {missing}")
                continue
            others.append(stack.enter_context(peer))
            steps[name] = peer.step
            print(f"{name}: {', '.join(f'{key} {value}' for key, value in peer.about.items())}")

        def cpu_s() -> float:
            return time.process_time() + sum(other.cpu_s() for other in others)

        times = in_turn(steps, rounds, clock=cpu_s if cpu_time else time.perf_counter)
    rates = {name: add_rate(report, f"images on the CPU, {name}", seconds) for name, seconds in times.items()}
    for name in list(ways)[1:]:
        report.add(f"images on the CPU, {name} / eager", rates[name] / rates["eager"], "x")
    for name, (ours, goal) in IN_JAX.items():
        if name in rates:
            report.add(f"images on the CPU, {ours} / {name}", rates[ours] / rates[name], "x", goal, "higher")
    report.add("images on the CPU, one update", flops(eager(learner(), batch, weights)) / 1e9, "GFLOP")


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
        "fp32": work_of(learner(), batch, weights, "off"),
        "bf16": work_of(learner(), batch, weights, "all"),
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
    arguments.add_argument("--wsrl", metavar="FOLDER", help="clone of wsrl-robot")
    arguments.add_argument("--hil-serl", metavar="FOLDER", help="clone of hil-serl")
    arguments.add_argument(
        "--jax-python", metavar="PYTHON", default="jax-peers/bin/python", help="of their environment (%(default)s)"
    )
    arguments.add_argument("--cpu-time", action="store_true", help="images: in CPU seconds, on a computer that is busy")
    arguments.add_argument("--eager", action="store_true", help="no compiled rows on the CPU: compiling takes a minute")
    arguments.add_argument("--rounds", type=int, default=20, help="turns that each takes (20)")
    flags = arguments.parse_args()
    if flags.rounds < 2:
        arguments.error("--rounds: at least 2")
    if flags.cpu_time and flags.threads > 1:
        arguments.error("--cpu-time: only with --threads 1, since threads that wait for each other take CPU time too")
    folders = {"WSRL": flags.wsrl, "hil-serl": flags.hil_serl}
    if any(folders.values()):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < flags.threads:
            arguments.error(f"--threads {flags.threads}: this process may use {len(cores)} cores")
        os.sched_setaffinity(0, cores[: flags.threads])
    torch.set_num_threads(flags.threads)
    keep_freed()  # as pretraining and learner do on a CPU
    unit = ", images in CPU time" if flags.cpu_time else ""
    report = Report(f"learner, {torch.get_num_threads()} CPU threads{unit}")
    if flags.only in (None, "states"):
        states(report, flags.rounds, flags.corl, not flags.eager)
    if flags.only in (None, "images"):
        images(report, flags.rounds, folders, flags.jax_python, flags.cpu_time, not flags.eager)
    if flags.only in (None, "gpu"):
        if torch.cuda.is_available():
            gpu(report, flags.rounds, torch.device("cuda"))
        else:
            print("GPU is left out: torch sees none")
    if report.figures:
        report.finish(flags.json)


if __name__ == "__main__":
    main()
