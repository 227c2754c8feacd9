"""A fine-tuning run's first updates, made again from its episodes with other draws of batches: what surprises do.

  python -m tools.learning.surprise --ckpt offline.pt --run runs/can/online --updates 300 --draws 5 --clip 0 2

Each draw starts from the checkpoint, takes in the run's episodes after as many updates as the run had made when they
came, and makes its updates with the run's weights. Printed for each calql.gradient_clip, means over the draws: the
longest gradient of critics and encoder over the usual one (before it is cut), the TD loss at its highest and its mean
over the half of the updates that comes last, and how far Q of uniform actions moved between the two halves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from agent import cli
from agent.calql.algorithm import Weights
from agent.data.episode_file import SUFFIX, read_episode
from agent.learner import USED, cql_weight
from agent.run import checkpoint
from agent.run.distributed import Ranks
from agent.run.trainer import Trainer
from agent.spec import UserError
from tools.common.report import machine
from tools.learning.run import records


def arrivals(run: Path) -> list[tuple[int, Path]]:
    """(updates made when it came, its file), of every episode of the run. Raises UserError."""
    if not (run / "log.jsonl").is_file():
        raise UserError(f"{run}: no log.jsonl; --run is the folder of a fine-tuning run")
    counts = [record["updates"] for record in records(run, "episode")]
    files = sorted((run / "episodes").glob(f"*{SUFFIX}"))
    if not files or len(counts) != len(files):
        raise UserError(f"{run}: {len(counts)} episodes in its log, {len(files)} files; it must be whole, of one robot")
    return list(zip(counts, files, strict=True))


def again(
    start: checkpoint.Checkpoint, arrived: list[tuple[int, Path]], updates: int, draw: int, clip: float
) -> dict[str, float]:
    """One replay; draw: seed of what is drawn. Raises UserError."""
    config: dict[str, Any] = {name: start.section(name) for name in USED}
    config["learner"].seed, config["learner"].mode, config["learner"].bf16 = draw, "eager", "off"
    config["calql"].gradient_clip = clip
    found, come = [], list(arrived)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(start, config, Path(folder), Ranks())
        trainer.agent.generator.manual_seed(draw)
        weights = Weights(cql_weight(0, config["calql"]), config["calql"].bc_weight_online)
        for update in range(updates):
            while come and come[0][0] <= update:
                trainer.add(read_episode(come.pop(0)[1]))
            found.append(trainer.update(weights, update % config["online"].actor_every == 0))
    td, uniform, lengths = (
        [float(metrics.get(key, torch.nan)) for metrics in found] for key in ("td_loss", "q_uniform", "critic_gradient")
    )
    half = updates // 2
    return {
        "longest gradient / usual": max(lengths),
        "highest TD loss": max(td),
        "mean TD loss, second half": statistics.fmean(td[half:]),
        "Q of uniform actions moved": statistics.fmean(uniform[half:]) - statistics.fmean(uniform[:half]),
    }


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], _flags, prog="python -m tools.learning.surprise").flags
    if flags.updates < 2 or flags.draws < 1:
        raise UserError(f"--updates {flags.updates}, --draws {flags.draws}: at least 2 and 1")
    torch.set_num_threads(flags.threads)
    start, arrived = checkpoint.load(flags.ckpt), arrivals(flags.run)
    results: dict[str, Any] = {"machine": machine(), "updates": flags.updates}
    for clip in flags.clip:
        runs = [again(start, arrived, flags.updates, draw, clip) for draw in range(flags.draws)]
        results[f"gradient_clip {clip:g}"] = runs
        for key in runs[0]:
            values = [one[key] for one in runs]
            spread = f"{min(values):.2f} to {max(values):.2f}"
            print(f"gradient_clip {clip:g}: {key} {statistics.fmean(values):.2f} ({spread})", flush=True)
    if flags.json:
        flags.json.write_text(json.dumps(results, indent=1))


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", type=Path, required=True, metavar="FILE", help="what the run started from")
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the fine-tuning run")
    parser.add_argument("--updates", type=int, default=300, metavar="N", help="to make again (300)")
    parser.add_argument("--draws", type=int, default=5, metavar="N", help="replays, each with other batches (5)")
    parser.add_argument("--clip", type=float, nargs="+", default=[0.0, 2.0], metavar="C", help="gradient_clip (0 2)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")


if __name__ == "__main__":
    cli.run(main)
