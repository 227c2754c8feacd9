"""Fine-tune online: train on the transitions that robot servers stream here, and send them newer policies.

  python -m agent.learner --ckpt offline.pt                 # then, elsewhere: python -m robot_server --env sim
  python -m agent.learner --resume runs/lift                # resume a run that was stopped
  torchrun --nproc-per-node 2 -m agent.learner --ckpt offline.pt      # GPUs share each batch; write --learner.run there

Listens on tcp://127.0.0.1:5555 (--address). The link's settings (--address, --keys, --insecure, --other-env) come from
flags and --config only, never from a checkpoint: give them again with --resume.

Everything of a run is in its folder (runs/<time>/, or --run): each episode as a file, latest.pt and the checkpoints
before it, log.jsonl, TensorBoard files. Ctrl-C or SIGTERM stops it after the update in progress, with a checkpoint
written; robot servers keep acting with the policy they have. It ends by itself after --env-steps.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from agent import cli, commands
from agent.config import FIXED_AFTER_START, NETWORK_FIELDS, SECTIONS, RunConfig, changes
from agent.run.files import LATEST, OLDER, check_file, check_folder, has_data, run_folder
from agent.spec import UserError

if TYPE_CHECKING:
    from agent.run.checkpoint import Checkpoint


def finetune(
    config: RunConfig,
    start: Checkpoint | str | Path,
    folder: str | Path,
    resume: bool = False,
    stop: cli.Stop | None = None,
    origin: str | Path = "a checkpoint",
) -> Checkpoint | None:
    """Train `start` further, on what robots send to config.link.address, and return the checkpoint at the end.

        start = checkpoint.load("offline.pt")
        config = dataclasses.replace(start.run_config(), online=OnlineConfig(env_steps=5000))
        tuned = finetune(config, start, "runs/lift")

    start: a checkpoint, or its path. Everything of the run is in `folder`. resume: it already exists, and `start` is
    its newest checkpoint (checkpoint.load_newest). stop: in force during the run; Ctrl-C and SIGTERM end it after the
    update in progress. origin: the path of `start`, for messages. None in the processes of torchrun that only follow.
    Raises UserError when config, data, `start` and `folder` do not fit, or the address is taken.
    """
    from agent.run import checkpoint

    start, origin = checkpoint.loaded(start, origin)
    if resume:
        checkpoint.check_newest(start, Path(folder))
    return _run(config, start, Path(folder), resume, stop or cli.Stop(), origin)


def _run(
    config: RunConfig, start: Checkpoint, folder: Path, resume: bool, stop: cli.Stop, origin: str | Path
) -> Checkpoint | None:
    """As finetune, of a `start` that is the newest one when it is resumed."""
    from agent.run import checkpoint
    from agent.run.distributed import Ranks
    from agent.run.learner import Learner, conclude, introduce, report_changes
    from agent.run.trainer import Trainer

    config = config.checked()
    fixed = NETWORK_FIELDS | (FIXED_AFTER_START | {"learner.run"} if resume else set())
    changed = changes(start.run_config(), config, fixed)
    if not resume and has_data(folder):
        whole = (folder / LATEST).exists() or (folder / OLDER).exists()
        again = ["agent.learner", "--resume", folder] if whole else None
        raise checkpoint.taken(folder, again, ["agent.learner", "--ckpt", origin, "--run"])
    with contextlib.closing(Ranks()) as ranks:
        trainer = Trainer(start, config, folder, ranks)
        if resume:
            trainer.restore(start.generators)
        if not ranks.leads:
            trainer.follow()
            return None
        learner = Learner(trainer, start, folder, resume)
        try:
            introduce(learner, origin)
            if resume:
                report_changes(learner, changed)
            with stop:
                learner.run(stop)
        finally:
            ranks.order(None)
            learner.close()
        conclude(learner)
        return learner.checkpoint()


OFTEN = ("ckpt", "run", "env-steps", "address", "resume")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__ or "", SECTIONS, _flags, prog="python -m agent.learner", often=OFTEN)
    flags, resume = arguments.flags, bool(arguments.flags.resume)
    if bool(flags.ckpt) == resume:
        raise UserError("give either --ckpt FILE (a new run) or --resume FOLDER (a run that was stopped)")
    check_folder(flags.resume) if resume else check_file(flags.ckpt)
    from agent.run import checkpoint  # loads torch: not before what is cheap to check has been
    from agent.run.pacing import is_finished

    start = checkpoint.load_newest(flags.resume) if resume else checkpoint.load(flags.ckpt)
    base = {name: dict(values) for name, values in start.config.items() if name != "link"}
    if not resume:
        base.get("learner", {}).pop("run", None)
    config = RunConfig(**{name: arguments.section(name, base.get(name)) for name in SECTIONS})
    folder, stop = Path(flags.resume) if resume else run_folder(config.learner, "run"), cli.Stop()
    end = _run(config, start, folder, resume, stop, flags.resume or flags.ckpt)
    if end is None or is_finished(config.online, end.counters["env_steps"], end.counters["updates"]):
        return 0
    print(f"to resume: {commands.typed('agent.learner', '--resume', folder, *config.link.flags())}", flush=True)
    return stop.exit_code


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint of agent.pretrain to start from")
    parser.add_argument("--resume", metavar="FOLDER", help="run folder to resume")


if __name__ == "__main__":
    cli.run(main)
