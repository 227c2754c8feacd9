"""Whether bfloat16 learns as float32 does: offline training on the same demonstrations from one seed, in both.

  python -m tools.collect --config configs/lift.yaml --out demos/lift                # beforehand
  python -m tools.bench.gpu --json gpu.json --demos demos/lift                       # rows "curve fp32", "curve bf16"
  python -m tools.bench.gpu_curve gpu.curve [--episodes 50] [--workers 2]            # success; needs the simulator

The rows have losses and Q as means of the updates since the point before, and leave a checkpoint of each point in
gpu.curve/ (beside the file of --json). Their success rates come from this command, on any machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from agent import cli
from agent.config import LearnerConfig, NetworkConfig, OfflineConfig, RunConfig
from agent.spec import UserError
from tools.bench.updates import BF16
from tools.common.report import Missing, Report, parser

if TYPE_CHECKING:
    import torch

POINTS = 10
KINDS: dict[str, BF16] = {"fp32": "off", "bf16": "all"}
METRICS = {"td_loss": "TD loss", "bc_loss": "cloning loss", "q_data": "Q of the data", "return_to_go": "return"}
NAME = re.compile(r"(fp32|bf16)-(\d+)\.pt")


def train(
    report: Report,
    kind: str,
    demos: str | None,
    folder: Path,
    updates: int,
    network: NetworkConfig,
    batch: int,
    device: torch.device,
) -> None:
    """Adds the curve of `kind`; its checkpoints go to `folder`. Raises Missing without `demos`."""
    from agent.run.pretraining import Pretraining

    if not demos:
        raise Missing("give a folder of demonstrations with --demos FOLDER; python -m tools.collect makes some")
    on_gpu = device.type == "cuda"
    learner = LearnerConfig(
        device=str(device),
        mode="graph" if on_gpu else "eager",
        bf16=KINDS[kind],
        storage="device" if on_gpu else "host",
    )
    offline = OfflineConfig(data=[demos], updates=updates, batch=batch)
    training = Pretraining(RunConfig(network=network, offline=offline, learner=learner).checked(), folder, None, "")
    folder.mkdir(parents=True, exist_ok=True)
    for point in range(1, POINTS + 1):
        sums: dict[str, torch.Tensor] = {}
        first, end = training.updates, updates * point // POINTS
        while training.updates < end:
            metrics = training.update()
            sums = {name: sums.get(name, 0) + metrics[name] for name in METRICS if name in metrics}
        for name, total in sums.items():
            value = float(total) / (end - first)
            report.add(f"curve {kind}, {end} updates: {METRICS[name]}", value, "")
        training.checkpoint().save(folder / f"{kind}-{end}.pt")


def checkpoints(folder: Path) -> list[tuple[int, str, Path]]:
    """(updates, kind, path), in order. Raises UserError when there are none."""
    found = [(name, path) for path in folder.glob("*.pt") if (name := NAME.fullmatch(path.name))]
    if not found:
        raise UserError(f"{folder}: no checkpoints of tools.bench.gpu --demos")
    return sorted((int(name.group(2)), name.group(1), path) for name, path in found)


def main(argv: list[str] | None = None) -> None:
    from tools.evaluate import evaluate

    arguments = parser(__doc__ or "")
    arguments.add_argument("folder", type=Path, help="that tools.bench.gpu left")
    arguments.add_argument("--episodes", type=int, default=50, help="of each checkpoint (%(default)s)")
    arguments.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    flags = arguments.parse_args(argv)
    report = Report(f"success over updates, {flags.episodes} episodes each")
    for updates, kind, path in checkpoints(flags.folder):
        rate = evaluate(path, episodes=flags.episodes, workers=flags.workers).success
        report.add(f"curve {kind}, {updates} updates: success", rate, "")
    report.finish(flags.json)


if __name__ == "__main__":
    cli.run(main)
