"""Where the time of one update goes: the kernels that take longest, of an update as a run makes it.

  python -m tools.bench.kernels --ckpt offline.pt --config configs/hardware/gpu.yaml   # without a GPU: operations

Settings are the checkpoint's, but for those given. The batch is random, and on the device already. The milliseconds are
torch's profiler's, and those of a whole update, on the first line, a clock's: profiled kernels can come to more.
"""

from __future__ import annotations

import argparse
import logging
import time

import torch

from agent import cli
from agent.calql.acceleration import accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.run import checkpoint
from agent.run.device import choose_device
from agent.spec import UserError
from tools.bench.random_data import random_batch
from tools.bench.roofline import kernels

log = logging.getLogger(__name__)

WARM_UP = 10  # after so many updates one is compiled, and captured


def main(argv: list[str] | None = None) -> None:
    sections = ["network", "calql", "offline", "learner"]
    arguments = cli.parse(argv, __doc__ or "", sections, _flags, prog="python -m tools.bench.kernels")
    flags = arguments.flags
    if flags.updates < 1:
        raise UserError(f"--updates {flags.updates}: at least 1")
    start = checkpoint.load(flags.ckpt)
    network, calql, offline, learner = (arguments.section(name, start.config.get(name)) for name in sections)
    device = choose_device(learner)
    agent = CalQL(start.spec, network.from_checkpoint(), calql, device, learner.seed)
    start.restore(agent)
    if warning := accelerate(agent, learner):
        log.warning("%s", warning)
    batch = random_batch(start.spec, offline.batch, device)
    weights = Weights(calql.cql_weight, calql.bc_weight)
    on_gpu = device.type == "cuda"

    def update() -> None:
        agent.learn(batch, weights)

    def milliseconds(number: int) -> float:
        """Of each of so many updates."""
        began = time.perf_counter()
        for _ in range(number):
            update()
        if on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) * 1e3 / number

    milliseconds(WARM_UP)
    took = milliseconds(flags.updates)
    found = kernels(update, flags.updates, device)
    print(
        f"{took:.2f} ms an update on {device}, {learner.mode}, bf16 {agent.bf16}; "
        f"{sum(times for _, times, _ in found):.0f} {'kernels' if on_gpu else 'operations'}, "
        f"{sum(seconds for seconds, _, _ in found) * 1e3:.2f} ms"
    )
    for seconds, times, name in found[: flags.longest]:
        print(f"{seconds * 1e3:9.3f} ms {times:6.1f} x  {name[:120]}")


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="whose updates: of agent.pretrain or a run")
    parser.add_argument("--updates", type=int, default=10, metavar="N", help="to time, and to profile (10)")
    parser.add_argument("--longest", type=int, default=20, metavar="N", help="how many to list (20)")


if __name__ == "__main__":
    cli.run(main)
