"""Train a policy offline from demonstrations with Cal-QL, and write a checkpoint that fine-tuning starts from.

  python -m agent.pretrain --data demos/lift --out offline.pt
  python -m agent.pretrain --config configs/lift.yaml --config configs/presets/cql.yaml --data demos/lift --out cql.pt
  python -m agent.pretrain --resume offline.pt              # resume one that was stopped, or (--updates) train longer

Reads every episode file in the folders given. The checkpoint is written now and then, at the end, and on Ctrl-C; it
remembers the config, the spaces, the environment and the folders. Losses go to log.jsonl and TensorBoard files in the
run's folder (runs/<name>/, --run).
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import cli, commands
from agent.config import FIXED_AFTER_START, NETWORK_FIELDS, Changes, RunConfig, changes
from agent.env_record import EnvRecord
from agent.files import check_writable
from agent.run.files import check_file, run_folder
from agent.spec import UserError, plural

if TYPE_CHECKING:
    from agent.run.checkpoint import Checkpoint

log = logging.getLogger(__name__)

USED = ("network", "calql", "reward", "offline", "online", "learner")


def pretrain(
    config: RunConfig,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    start: Checkpoint | str | Path | None = None,
    stop: cli.Stop | None = None,
    origin: str = "the checkpoint",
) -> Checkpoint:
    """Train on the demonstrations in `data` (folders or files), write a checkpoint to `out`, and return it.

        config = RunConfig(offline=OfflineConfig(updates=2000))
        trained = pretrain(config, "demos/lift", "offline.pt")
        action = trained.policy().act(observation)

    start: a checkpoint or its path, to continue up to config.offline.updates in all; origin: its path. `out` must be
    new, or that path.
    stop: in force while it trains; Ctrl-C and SIGTERM end it after the update in progress, with a checkpoint. The log
    goes to the folder config.learner.run, by default that of `start`. Raises UserError when config, data and `start` do
    not fit.
    """
    from agent.run import checkpoint
    from agent.run.log import RunLog
    from agent.run.pretraining import Pretraining, train

    out, stop, config = Path(out), stop or cli.Stop(), config.checked()
    places = [data] if isinstance(data, (str, Path)) else data
    config = replace(config, offline=replace(config.offline, data=[str(Path(place).resolve()) for place in places]))
    if not config.offline.data:
        raise UserError("data is empty; it must be folders or files of demonstrations")
    if start is not None:
        start, path = checkpoint.loaded(start, origin)
        origin = str(path)
    if start and not config.learner.run:  # its curves go on where they are
        config = replace(config, learner=replace(config.learner, run=start.section("learner").run))
    changed = _check(config, out, start, origin)
    folder = run_folder(config.learner, "pretrain")
    config = replace(config, learner=replace(config.learner, run=str(folder)))
    training = Pretraining(config, folder, start, origin)
    with contextlib.closing(RunLog(folder)) as run_log:
        training.introduce(run_log, changed)
        before, whole = training.updates, False
        try:
            with stop:
                train(training, out, run_log, stop)
            whole = not stop.asked
        finally:  # Ctrl-C, or an error, keeps what was trained; else an older checkpoint there is worth more
            if written := whole or training.updates > (0 if stop.asked else before):
                training.checkpoint().save(out)
        if written:
            run_log.result(f"wrote {out} after {plural(training.updates, 'update')} ({run_log.time_s:.0f} s)")
    return training.checkpoint()


def _check(config: RunConfig, out: Path, start: Checkpoint | None, origin: str) -> Changes:
    """What `config` changes of `start`. Raises UserError for what cannot work, before anything is loaded."""
    from agent.run import checkpoint

    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a file for the checkpoint")
    if out.exists() and not (start and Path(origin).exists() and out.samefile(origin)):
        words = ["--resume", origin] if start else ["--data", *config.offline.data]
        raise checkpoint.taken(out, ["agent.pretrain", "--resume", out], ["agent.pretrain", *words, "--out"])
    changed: Changes = {}
    if start:
        if "updates" in start.counters:
            raise UserError(f"{origin}: of an online run; continue it by python -m agent.learner --resume FOLDER")
        changed = changes(start.run_config(), config, NETWORK_FIELDS | FIXED_AFTER_START)
        done, updates = start.counters["offline_updates"], config.offline.updates
        if done > updates:
            raise UserError(f"{origin} has {done} updates already; offline.updates asks for {updates} in all")
    try:  # now, not after the training
        check_writable(out.parent)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None
    return changed


OFTEN = ("data", "out", "config", "updates", "resume")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__ or "", USED, _flags, prog="python -m agent.pretrain", often=OFTEN)
    flags = arguments.flags
    if flags.resume:
        check_file(flags.resume)
    elif data := flags.data or arguments.section("offline").data:
        from agent.data.episode_file import episode_paths

        episode_paths(data)
    from agent.run import checkpoint  # loads torch: not before what is cheap to check has been

    start = checkpoint.load(flags.resume) if flags.resume else None
    config = RunConfig(**{name: arguments.section(name, start.config.get(name) if start else None) for name in USED})
    data = flags.data or config.offline.data
    if not data:
        raise UserError("no data: give the demonstrations' folders as --data FOLDER [FOLDER ...]")
    _report_other_env(arguments.settings.get("env", {}), data)
    out = Path(flags.out or flags.resume or "offline.pt")
    stop = cli.Stop()
    done = pretrain(config, data, out, start, stop, flags.resume or "").counters["offline_updates"]
    if done == config.offline.updates:
        return 0
    command = commands.typed("agent.pretrain", "--resume", out)
    print(f"to resume: {command}" if done else "stopped before the first update: nothing was written", flush=True)
    return stop.exit_code


def _report_other_env(asked: Mapping[str, Any], data: Sequence[str]) -> None:
    """Log what section `env` of --config says differently from the demonstrations, whose environment is used."""
    from agent.data.episode_file import episode_paths, read_head

    recorded = EnvRecord.of_episode(read_head(episode_paths(data)[0])[1])
    if not asked or not recorded.name:
        return
    options = {key: value for key, value in asked.items() if key != "name"}
    name = str(asked.get("name", "sim"))
    found = EnvRecord(name, {**recorded.options, **options}).differences(recorded)
    if found:
        text = ", ".join(f"{key} {values}" for key, values in found.items())
        log.info("env comes from the demonstrations; --config differs and is ignored: %s", text)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", nargs="+", metavar="FOLDER", help="demonstrations: folders of episode files, or files"
    )
    parser.add_argument("--out", metavar="FILE", help="checkpoint to write (offline.pt, or that of --resume)")
    parser.add_argument("--resume", metavar="FILE", help="checkpoint of a run that was stopped, to resume")


if __name__ == "__main__":
    cli.run(main)
