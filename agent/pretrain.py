"""Train a policy offline from demonstrations with Cal-QL, and write a checkpoint that fine-tuning starts from.

  python -m agent.pretrain --data demos/lift --out offline.pt
  python -m agent.pretrain --config configs/lift.yaml --config configs/presets/cql.yaml --data demos/lift --out cql.pt
  python -m agent.pretrain --resume offline.pt              # go on with one that was stopped, or (--updates) for longer

Reads every episode file in the folders given. The checkpoint is written now and then, at the end, and on Ctrl-C; it
remembers the config, the spaces, the environment and the folders. Losses go to log.jsonl and TensorBoard files in the
run's folder (runs/<name>/, --run).
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

from agent import cli
from agent.calql.acceleration import accelerate
from agent.calql.algorithm import CalQL, Weights
from agent.config import NETWORKS, SPENT, RunConfig, changes, said
from agent.data.prefetch import Prefetch
from agent.data.storage import Storage
from agent.env_record import compare
from agent.files import check_writable
from agent.progress import Progress
from agent.run import checkpoint
from agent.run.checkpoint import Checkpoint
from agent.run.demonstrations import environment, load_demonstrations
from agent.run.device import choose_device, run_folder
from agent.run.health import Health
from agent.run.log import RunLog
from agent.spec import UserError, plural

USED = ("network", "calql", "reward", "offline", "online", "learner")
SAVE_EVERY_S = 60.0


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__ or "", USED, _flags, prog="python -m agent.pretrain")
    flags = arguments.flags
    start = checkpoint.load(flags.resume) if flags.resume else None
    if start and "updates" in start.counters:
        raise UserError(f"{flags.resume}: of an online run; go on with it by python -m agent.learner --resume FOLDER")
    config = RunConfig(**{name: arguments.section(name, start.config.get(name) if start else None) for name in USED})
    config.check()
    data = [str(Path(p).resolve()) for p in (flags.data or config.offline.data)]
    config = dataclasses.replace(config, offline=dataclasses.replace(config.offline, data=data))
    offline, calql = config.offline, config.calql
    if not offline.data:
        raise UserError("no data: give the demonstrations' folders as --data FOLDER [FOLDER ...]")
    out = Path(flags.out or flags.resume or "offline.pt")
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file")
    if out.exists() and not (flags.resume and out.samefile(flags.resume)):
        origin = ["--resume", flags.resume] if flags.resume else ["--data", *(flags.data or offline.data)]
        raise checkpoint.taken(out, ["agent.pretrain", "--resume", out], ["agent.pretrain", *origin, "--out"])
    changed: dict[str, tuple[Any, Any]] = {}
    if start:
        changed = changes(start.run_config(), config, NETWORKS | SPENT)
        config = dataclasses.replace(config, network=config.network.from_checkpoint())
    done = start.counters["offline_updates"] if start else 0
    if done > offline.updates:
        raise UserError(f"{flags.resume} has {done} updates already; --updates asks for {offline.updates} in all")
    try:  # now, not after the training
        check_writable(out.parent)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    device = choose_device(config.learner)
    seed = config.learner.seed
    folder = run_folder(config.learner, "pretrain")
    storage = Storage(config.learner.storage, folder, device)
    replay, episodes = load_demonstrations(offline, config.reward, calql.gamma, seed, storage)
    env = environment(episodes)
    batches = Prefetch(replay, None, offline.batch, 1.0, device)
    if start:
        start.check_sizes()
    agent = CalQL(replay.spec, config.network, calql, device, seed)
    if start:
        if differences := start.spec.differences(replay.spec):
            raise UserError(f"{flags.resume} and {offline.data[0]} differ: {'; '.join(differences)}")
        compare((flags.resume, start.env), (offline.data[0], env))
        start.restore(agent)
        replay.generator.set_state(start.generators["offline"])
    else:
        agent.standardise(*replay.state_statistics())
        if calql.start_at_return:
            agent.start_critics_at(replay.mean_return())
    accelerate(agent, config.learner)
    run_log = RunLog(folder)
    success = sum(e.succeeded for e in episodes) / len(episodes)
    run_log.say(
        f"{plural(len(episodes), 'demonstration')}, {plural(len(replay), 'step')}, {success:.0%} successful; "
        + f"{replay.spec.summary}; "
        + f"{plural(offline.updates, 'update')} "
        + (f"from {done} on " if done else "")
        + f"on {device} ({calql.algorithm if offline.updates else 'no offline phase'})"
    )
    for line in said(changed):
        run_log.say(line)
    if changed:
        run_log.write("config", 0, done, changed=changed)
    if calql.bc_filter == "success" and calql.bc_weight and not success:
        run_log.say(
            "warning: no demonstration succeeded, so there is nothing to clone; --bc-filter all clones every one"
        )

    def save() -> None:
        agent.check_alive()
        generators = batches.generators()
        counters = {"offline_updates": done}
        Checkpoint(replay.spec, env, dataclasses.asdict(config), agent.state_dict(), counters, generators).save(out)

    health = Health(calql, agent.action_dim, lambda line: run_log.warn(line, 0, done))
    weights, at, saved = Weights(calql.cql_weight, calql.bc_weight), (done, time.monotonic()), time.monotonic()
    stop = cli.Stop()
    try:
        with stop, Progress(offline.updates, "pretrain", "updates") as progress:
            while done < offline.updates and not stop():
                metrics = agent.learn(batches.next(), weights)
                batches.draw_ahead()
                done += 1
                if done % config.learner.log_every == 0 or done == offline.updates:
                    now = time.monotonic()
                    rate = (done - at[0]) / (now - at[1])
                    record = run_log.write("update", 0, done, stage="offline", updates_per_s=rate, **metrics)
                    health.update(record, replay.reward_range)
                    at = (done, now)
                    progress.show(done, summary(metrics))
                if done % offline.save_every == 0 if offline.save_every else time.monotonic() - saved > SAVE_EVERY_S:
                    save()
                    saved = time.monotonic()
    finally:  # Ctrl-C keeps what was trained
        if done or not stop.asked:  # nothing learnt and stopped: an older checkpoint there is worth more
            save()
        run_log.close()
    if done or not stop.asked:
        run_log.result(f"wrote {out} after {plural(done, 'update')} ({run_log.time_s:.0f} s)")
    if done == offline.updates:
        return 0
    command = checkpoint.command("agent.pretrain", "--resume", out)
    run_log.result(f"to resume: {command}" if done else "stopped before the first update: nothing was written")
    return stop.exit_code


def summary(metrics: dict[str, Any]) -> str:
    names = {"td_loss": "td", "q_data": "Q", "return_to_go": "R", "entropy": "H", "bc_loss": "bc"}
    return "  ".join(f"{short} {float(metrics[name]):.2f}" for name, short in names.items() if name in metrics)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", nargs="+", metavar="FOLDER", help="demonstrations: folders of episode files, or files"
    )
    parser.add_argument("--out", metavar="FILE", help="checkpoint to write (offline.pt, or that of --resume)")
    parser.add_argument("--resume", metavar="FILE", help="checkpoint of a run that was stopped, to go on with")


if __name__ == "__main__":
    cli.run(main)
