"""What a GPU makes of our updates, in at most ten minutes: one row after the other, each kept in a file.

  python -m tools.bench.gpu --json gpu.json                 # started again with the same file, it goes on
  python -m tools.bench.gpu --json gpu.json --wsrl wsrl-robot --jax-python jax-peers/bin/python
  python -m tools.bench.gpu --json gpu.json --demos demos/lift                  # learning curves, too
  python -m tools.bench.gpu --json cpu.json --device cpu --small

limits    products in fp32, tf32 and bf16, and a copy: the roofline of the other rows
mode      updates in each learner.mode, with tf32 and bf16; FLOP/s and bytes/s of their products and convolutions
          against the limits
several   4 updates as one CUDA graph, per update: what launching one graph an update still costs
resnet18  its weights as torchvision makes them, and in channels_last memory
first     the first convolution, forward and backward, with its three channels, and with a fourth one of zeros
shift     the random shift of a batch's images
curve     offline training in fp32 and in bf16 on the demonstrations of --demos, from one seed: losses and Q over the
          updates; their checkpoints stay in a folder beside FILE (tools.bench.gpu_curve: their success rates)
WSRL      its Cal-QL in JAX (tools.bench.jax_peers) on the same card, in an environment with a JAX for CUDA:
          "jax[cuda12]==0.4.35" instead of "jax[cpu]==0.4.35"

Two 84x84 cameras, batch 128, 2 critics, n = 4; batches are random and on the device. A row that is not begun by
--budget-s is left for the next start, and so is one that failed or was left out. It has not been run on a GPU yet, only
with --device cpu --small.

Needs torch, numpy, pyyaml, h5py, pyzmq, msgpack, gymnasium, opencv-python and tqdm; modes compile and graph need a C
compiler, too. For a GPU computer that has PyTorch and no package index, `pip download` their wheels elsewhere, and
there `pip install --no-index --no-deps --target site WHEELS`, PYTHONPATH=site.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agent import cli
from agent.calql.acceleration import WARM_UP, accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.config import CalQLConfig, LearnerConfig, NetworkConfig
from agent.data.replay_buffer import Batch
from agent.files import written
from agent.spec import Spec, UserError
from tools.bench import gpu_curve
from tools.bench.jax_peers import JaxPeer
from tools.bench.random_data import random_batch
from tools.bench.roofline import copy, kernel_seconds, matmul
from tools.bench.updates import BF16, Step, add_rate, in_mode, in_turn, precision, work_of
from tools.common.report import Figure, Missing, Report, machine, parser

CALQL = CalQLConfig(cql_actions=4, max_target_backup=True)
WEIGHTS = Weights(cql=1.0, bc=1.0)
SMALL = {"channels": [4, 4], "strides": [2, 2], "features": 8, "actor_hidden": [8], "critic_hidden": [8]}
SEVERAL = 4
MODES = {
    "eager": in_mode("eager"),
    "eager, tf32": in_mode("eager", tf32=True),
    "eager, bf16": in_mode("eager", "all"),
    "compile": in_mode("compile"),
    "compile, bf16": in_mode("compile", "all"),
    "graph": in_mode("graph"),
    "graph, tf32": in_mode("graph", tf32=True),
    "graph, bf16": in_mode("graph", "all"),
}


@dataclass
class Work:
    """The sizes, and how they are timed."""

    device: torch.device
    small: bool

    def __post_init__(self) -> None:
        side, self.count = (24, 4) if self.small else (84, 128)
        self.spec = Spec({"front": (side, side, 3), "wrist": (side, side, 3)}, {"proprio": 11}, 7)
        self.rounds, self.per_turn = (2, 1) if self.small else (20, 10)
        self.on_gpu = self.device.type == "cuda"

    def network(self, **options: Any) -> NetworkConfig:
        return NetworkConfig(**{"critics": 2, **(SMALL if self.small else {}), **options})

    def agent(self, **options: Any) -> CalQL:
        return CalQL(self.spec, self.network(**options), CALQL, self.device, seed=0)

    def batch(self) -> Batch:
        return random_batch(self.spec, self.count, self.device)

    def seconds(self, step: Step) -> list[float]:
        """Of one step, several times."""
        finish = torch.cuda.synchronize if self.on_gpu else lambda: None
        return in_turn({"": step}, self.rounds, self.per_turn, finish)[""]


Known = dict[str, float]  # figures of the rows measured so far
Row = Callable[[Report, Work, Known], None]


def limits(report: Report, work: Work, known: Known) -> None:
    size, count = (64, 1 << 16) if work.small else (8192, 1 << 30)
    for kind in ("fp32", "tf32", "bf16"):
        probe = matmul(kind, size, work.device)
        report.add(f"limit, {kind}", probe.work / statistics.median(work.seconds(probe.step)) / 1e9, "GFLOP/s")
    probe = copy(count, work.device)
    report.add("limit, memory", probe.work / statistics.median(work.seconds(probe.step)) / 1e9, "GB/s")


def mode(name: str) -> Row:
    def row(report: Report, work: Work, known: Known) -> None:
        step = MODES[name](work.agent(), work.batch(), WEIGHTS)
        rate = add_rate(report, f"mode {name}", work.seconds(step))
        if work.on_gpu:
            report.add(f"mode {name}, kernels' share of an update", kernel_seconds(step, 20) * rate, "x")
        kind = precision(name)
        bf16: BF16 = "all" if kind == "bf16" else "off"
        found = work_of(work.agent(), work.batch(), WEIGHTS, bf16)
        flops, moved = sum(o.flops for o in found.operations), sum(o.bytes for o in found.operations)
        report.add(f"mode {name}, FLOP/s", flops * rate / 1e9, "GFLOP/s")
        report.add(f"mode {name}, bytes/s", moved * rate / 1e9, "GB/s")
        peaks = {each: known[f"limit, {each}"] * 1e9 for each in ("fp32", "tf32", "bf16")}
        if kind == "tf32":
            peaks["fp32"] = peaks["tf32"]
        bandwidth = known["limit, memory"] * 1e9
        report.add(f"mode {name}, FLOP/s / limit", flops * rate / peaks[kind], "x")
        report.add(f"mode {name}, bytes/s / limit", moved * rate / bandwidth, "x")
        report.add(f"mode {name}, roofline / update", found.seconds(peaks, bandwidth) * rate, "x")

    return row


def several(report: Report, work: Work, known: Known) -> None:
    """On a CPU the same updates, without a graph."""
    agent, batch = work.agent(), work.batch()
    if work.on_gpu:
        accelerate(agent, LearnerConfig(mode="compile"))
    agent.set_weights(WEIGHTS)

    def updates() -> None:
        for _ in range(SEVERAL):
            agent.step(batch.augmented(CALQL.augment_pad, agent.generator), True, True)

    run: Step = updates
    for _ in range(WARM_UP):
        updates()
    if work.on_gpu:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(agent.generator)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            updates()
        run = graph.replay

    def step() -> None:
        run()
        for _ in range(SEVERAL):
            agent.average_policy()

    rate = add_rate(report, f"{SEVERAL} in one graph", [each / SEVERAL for each in work.seconds(step)])
    if "mode graph" in known:
        report.add(f"{SEVERAL} in one graph / mode graph", rate / known["mode graph"], "x")


def resnet18(report: Report, work: Work, known: Known) -> None:
    rates = {}
    for layout in ("contiguous", "channels_last"):
        agent = work.agent(encoder="resnet18")
        if layout == "channels_last":
            for camera in agent.policy.encoder.cameras.values():
                camera.to(memory_format=torch.channels_last)
        batch = work.batch()
        times = work.seconds(lambda agent=agent, batch=batch: agent.learn(batch, WEIGHTS))  # type: ignore[misc]
        rates[layout] = add_rate(report, f"resnet18, {layout}", times)
    report.add("resnet18, channels_last / contiguous", rates["channels_last"] / rates["contiguous"], "x")


def first_layer(report: Report, work: Work, known: Known) -> None:
    network = work.network()
    images = next(iter(work.batch().observations.values()))
    for channels in (3, 4):
        layer = nn.Conv2d(channels, network.channels[0], 3, network.strides[0], padding=1).to(work.device)
        layer.to(memory_format=torch.channels_last)
        wide = torch.zeros(*images.shape[:3], channels, device=work.device)
        wide[..., :3] = images / 127.5 - 1
        maps = wide.permute(0, 3, 1, 2)
        weights = list(layer.parameters())

        def step(layer: nn.Module = layer, maps: torch.Tensor = maps, weights: list[nn.Parameter] = weights) -> None:
            torch.autograd.grad(layer(maps).sum(), weights)

        report.add_times(f"first convolution, one camera, {channels} channels", work.seconds(step))


def random_shift(report: Report, work: Work, known: Known) -> None:
    batch, generator = work.batch(), torch.Generator(work.device).manual_seed(0)
    report.add_times("random shift", work.seconds(lambda: batch.augmented(CALQL.augment_pad, generator)))


def wsrl(folder: str | None, python: str) -> Row:
    def row(report: Report, work: Work, known: Known) -> None:
        peer = JaxPeer("WSRL", folder, python, work.spec, work.network(), CALQL, work.count, work.device.type)
        with peer:
            rate = add_rate(report, "WSRL", in_turn({"": peer.step}, work.rounds, work.per_turn)[""])
        for name in MODES:
            if f"mode {name}" in known:
                report.add(f"mode {name} / WSRL", known[f"mode {name}"] / rate, "x")

    return row


def curve(kind: str, demos: str | None, folder: Path, updates: int) -> Row:
    def row(report: Report, work: Work, known: Known) -> None:
        network = work.network() if work.small else NetworkConfig()
        gpu_curve.train(report, kind, demos, folder, updates, network, work.count, work.device)

    return row


def kept(path: Path, about: dict[str, Any]) -> dict[str, list[Figure]]:
    """Rows of an earlier start. Raises UserError for a file of another machine or size."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        rows = {name: [Figure(**figure) for figure in figures] for name, figures in found["rows"].items()}
        before = found["about"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is no file of this benchmark; give another with --json") from None
    if before != about:
        raise UserError(f"{path} is of {before}, and this is {about}; give another file with --json")
    return rows


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--device", default="cuda", help="cuda, or cpu (%(default)s)")
    arguments.add_argument("--small", action="store_true", help="tiny networks and images, to try the script")
    arguments.add_argument("--budget-s", type=float, default=540.0, help="begin no row after so long (%(default)g)")
    arguments.add_argument("--wsrl", metavar="FOLDER", help="clone of wsrl-robot")
    arguments.add_argument(
        "--jax-python", metavar="PYTHON", default="jax-peers/bin/python", help="of its environment (%(default)s)"
    )
    arguments.add_argument("--demos", metavar="FOLDER", help="demonstrations, for the learning curves")
    arguments.add_argument("--curve-updates", type=int, default=6000, help="of each learning curve (%(default)s)")
    flags = arguments.parse_args(argv)
    if flags.curve_updates < gpu_curve.POINTS:
        arguments.error(f"--curve-updates: at least {gpu_curve.POINTS}")
    if not flags.json:
        arguments.error("--json FILE: rows are kept in it")
    if flags.device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no GPU; --device cpu --small tries the script without one")
    work = Work(torch.device(flags.device), flags.small)
    if flags.small and not work.on_gpu:
        torch.set_num_threads(1)  # nothing here is worth a second one
    card = torch.cuda.get_device_name() if work.on_gpu else "CPU"
    about = {"device": card, "small": flags.small, "torch": torch.__version__}
    path, began = Path(flags.json), time.monotonic()
    names = [name for name in MODES if not (flags.small and "compile" in name)]
    planned: dict[str, Row] = {"limits": limits, **{f"mode {name}": mode(name) for name in names}}
    planned |= {"several": several, "resnet18": resnet18, "first": first_layer, "shift": random_shift}
    folder = path.with_suffix(".curve")
    for kind in gpu_curve.KINDS:
        planned[f"curve {kind}"] = curve(kind, flags.demos, folder, flags.curve_updates)
    planned["WSRL"] = wsrl(flags.wsrl, flags.jax_python)
    rows = kept(path, about)
    for name, row in planned.items():
        if name in rows:
            continue
        if time.monotonic() - began > flags.budget_s:
            print(f"{name} and what follows are left for the next start: {flags.budget_s:g} s are over")
            break
        known = {figure.name: figure.value for figures in rows.values() for figure in figures}
        report = Report(name)
        try:
            row(report, work, known)
        except (UserError, Missing) as error:
            print(f"{name} is left out: {error}")
            continue
        except Exception as error:  # one row must not cost the others their time on the card
            print(f"{name} failed: {type(error).__name__}: {error}")
            continue
        rows[name] = report.figures
        figures = {each: [dataclasses.asdict(figure) for figure in found] for each, found in rows.items()}
        with written(path) as file:
            file.write(json.dumps({"about": about, "machine": machine(), "rows": figures}, indent=2).encode() + b"\n")
    if rows:
        Report(f"GPU: {card}", [figure for figures in rows.values() for figure in figures]).finish(None)


if __name__ == "__main__":
    cli.run(main)
