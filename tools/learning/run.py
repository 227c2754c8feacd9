"""One learning run, by the commands that users type: offline training, fine-tuning by two processes, evaluations.

Every stage can be stopped and resumed: its folder has what is done already, and its settings: with other settings it is
refused. Offline training and its evaluation have a folder of their own:
runs that differ in nothing that these depend on share it. The result is one JSON file; `run` says what is in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from agent.run.files import LATEST, OLDER
from agent.run.records import log_path, read_log
from agent.spec import UserError
from tools.common.process import free_port
from tools.common.report import machine
from tools.common.seeds import EVALUATION_SEED
from tools.learning.process import POLL_S, Means, Process, Stopped, alone, clocked, minutes
from tools.learning.settings import (
    beside,
    config_words,
    made_of,
    not_default,
    pin,
    pinned,
    put,
    read,
    same,
    settings,
    write,
)
from tools.learning.suite import Job

ROBOT_SEEDS = 1_000_000  # above the seeds of collecting and of the evaluation
OVER = "the learner's run is over"  # as robot_server says it
DIVERGED = "learning has diverged"  # as CalQL.check_alive says it
DIED = "died.json"  # in the folder of the stage
KEPT = "kept"  # in that of an offline part: not to be deleted
SECTIONS = ("env", "network", "calql", "reward", "offline", "online", "learner", "robot")  # that a run depends on
ONLINE = ("online", "robot")  # of these, those of which offline training reads nothing
CALQL_ONLINE = ("cql_weight_online", "cql_decay_steps", "bc_weight_online")  # and so of calql
OF_OFFLINE = ("q_data", "return_to_go", "bound_rate_current", "entropy", "alpha_prime")  # kept, of its last record


def once(marker: Path) -> bool:
    """Whether what leaves `marker` behind when it is done is still to do."""
    return not marker.exists()


def train_offline(folder: Path, configs: Sequence[str], data: Path, seed: int, means: Means) -> Path:
    """The checkpoint."""
    ckpt, done = folder / "offline.pt", folder / "offline.done"
    if once(done):
        start = ["--resume", ckpt] if ckpt.exists() else [*config_words(configs), "--learner.seed", seed]
        place = ["--data", data, "--out", ckpt, "--run", folder / "pretrain"]
        hardware = ["--threads", means.threads, "--device", means.device]
        Process(folder, "pretrain", "agent.pretrain", *start, *place, *hardware).finish(means)
        from agent.run import checkpoint  # loads torch

        if checkpoint.load(ckpt).counters["offline_updates"] < settings(configs)["offline"].updates:
            raise Stopped  # by somebody else's signal
        done.touch()
    return ckpt


def fine_tune(folder: Path, ckpt: Path, configs: Sequence[str], seed: int, means: Means, *flags: object) -> Path:
    """The run's folder: learner and robot server until the learner has had its env steps.

    configs win over what the checkpoint remembers of online training: it may be that of a run with other settings.
    """
    online, done = folder / "online", folder / "online.done"
    if not once(done):
        return online
    if not (online / LATEST).exists() and not any((online / "episodes").glob("*.hdf5")):
        shutil.rmtree(online, ignore_errors=True)  # a learner that was stopped before it learnt anything
    address = f"tcp://127.0.0.1:{free_port()}"
    start = ["--resume", online] if (online / LATEST).exists() else ["--ckpt", ckpt, "--run", online]
    start += ["--config", online_settings(folder / "online.yaml", configs)]
    hardware = ["--threads", means.threads, "--device", means.device]
    number = sum(1 for name in ("episodes", "quarantine", "set_aside") for _ in (online / name).glob("*.hdf5"))
    scenes = ["--robot.seed", ROBOT_SEEDS * (seed + 1) + number, "--control", ""]
    place = ["--address", address, "--spool", folder / "spool"]
    with contextlib.ExitStack() as ends:
        learner = Process(folder, "learner", "agent.learner", *start, "--address", address, *flags, *hardware)
        ends.callback(learner.end)
        robot = Process(folder, "robot", "robot_server", *config_words(configs), *place, *scenes)
        ends.callback(robot.end)
        while not learner.ended() and not means.stop.wait(POLL_S):
            learner.report_warnings()
            robot.report_warnings()
            if robot.ended() and OVER not in robot.finish(means):  # raises if it failed
                raise Stopped  # by somebody else's signal
        said = learner.finish(means)
    if not any(line.startswith("finished") for line in said.splitlines()):
        raise Stopped  # by somebody else's signal
    done.touch()
    return online


def online_settings(path: Path, configs: Sequence[str]) -> Path:
    """Everything that these configs say of online training, defaults included, written to `path`."""
    found = settings(configs)
    calql = {name: getattr(found["calql"], name) for name in CALQL_ONLINE}
    put(path, yaml.safe_dump({"calql": calql, "online": dataclasses.asdict(found["online"])}))
    return path


def evaluate(folder: Path, ckpt: Path, env_steps: int, episodes: int, means: Means) -> dict[str, Any]:
    """Success of the policy in `ckpt`, with its mean action and fixed seeds; kept in a file."""
    kept = folder / "evaluations" / f"{env_steps:08d}.json"
    if once(kept):
        words = [
            "--ckpt",
            ckpt,
            "--episodes",
            episodes,
            "--seed",
            EVALUATION_SEED,
            "--workers",
            means.threads,
            "--json",
        ]
        found = json.loads(Process(folder, "evaluate", "tools.evaluate", *words).finish(means))
        figures = {key: found[key] for key in ("success", "low", "high", "episodes", "return", "length")}
        write(kept, {"env_steps": env_steps, **figures})
    return read(kept)


def spacing(steps: int, at: Sequence[float]) -> int:
    """Env steps between two checkpoints of a run of `steps`: the most that puts one at each of the parts `at`.

    Not less than a hundredth of the run, or the first part: odd parts (1/3) have one near them.
    """
    wanted = [round(steps * share) for share in at]
    return max(1, math.gcd(*wanted), min(steps // 100, wanted[0]))


def nearest_checkpoints(folder: Path, wanted: Sequence[float]) -> dict[int, Path]:
    """env steps -> the checkpoint nearest to each number of env steps that is wanted."""
    there = {int(path.stem): path for path in (folder / OLDER).glob("[0-9]*.pt")}
    return {steps: there[steps] for w in wanted if there for steps in [min(there, key=lambda s: abs(s - w))]}


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Those of one kind in the log; none where there is no log."""
    return read_log(folder, kind) if log_path(folder).exists() else []


def run(
    job: Job, folder: Path, data: Path, result: Path, means: Means, *, episodes: int, at: Sequence[float], keep: bool
) -> None:
    """Do what is left of the run, and write its result. Raises Stopped, UserError.

    The result: `evaluations`, each with env_steps, success and its 95 % interval (the first: before any online step;
    none other where the config asks for no env steps), `training`, [env steps, success] of every episode online;
    `offline`, where the values were at its end; `warnings` of both parts; `died`, None or why a run that diverged
    ended, and `died_at`, after how many env steps; `minutes`, those of an offline part that others share included;
    `made_of`, all settings, and those of the demonstrations.
    """
    offline, of_offline = offline_part(job, folder.parent, data, episodes)
    parts = {**depends_on(job, episodes, at), "data": of_offline["data"]}
    with alone(folder, means):
        if result.exists():  # another call has made it meanwhile
            same(result, read(result).get("made_of", {}), parts)
            return
        pin(folder, {**parts, "offline part": offline.name})
        with alone(offline, means):
            pin(offline, of_offline)
            if keep:
                (offline / KEPT).touch()
            with clocked(offline):
                first = begin(job, offline, data, means, episodes)
        with clocked(folder):
            found = go_on(job, folder, offline, first, data, means, episodes, at)
        took = round(minutes(offline) + minutes(folder), 1)
        write(result, {**found, "minutes": took, "machine": machine(), "made_of": parts})
        if not keep:
            shutil.rmtree(folder)


def depends_on(job: Job, episodes: int, at: Sequence[float]) -> dict[str, Any]:
    return made_of(job.configs, SECTIONS, seed=job.seed, episodes=episodes, at=list(at))


def offline_part(job: Job, work: Path, data: Path, episodes: int) -> tuple[Path, dict[str, Any]]:
    """The folder in `work` of the job's offline training and its evaluation, and all that they depend on."""
    parts = made_of(job.configs, [name for name in SECTIONS if name not in ONLINE], seed=job.seed, episodes=episodes)
    for name in CALQL_ONLINE:
        del parts["calql"][name]
    parts["data"] = pinned(beside(data))
    digest = hashlib.sha256(json.dumps(not_default(parts), sort_keys=True).encode()).hexdigest()
    return work / f"offline-{job.task}-{job.seed}-{digest[:8]}", parts


def begin(job: Job, folder: Path, data: Path, means: Means, episodes: int) -> dict[str, Any]:
    """The offline part: its evaluation."""
    if death(folder, lambda: train_offline(folder, job.configs, data, job.seed, means)):
        return {"env_steps": 0, "success": 0.0, "low": 0.0, "high": 1.0, "episodes": episodes}
    return evaluate(folder, folder / "offline.pt", 0, episodes, means)


def go_on(
    job: Job,
    folder: Path,
    before: Path,
    first: dict[str, Any],
    data: Path,
    means: Means,
    episodes: int,
    at: Sequence[float],
) -> dict[str, Any]:
    """The rest, from the offline part in `before` and its evaluation on: the result; see run."""
    config, evaluations = settings(job.configs), [first]
    steps = config["online"].env_steps
    if not (before / DIED).exists():
        if steps:
            here = {"offline": {"data": [str(data.resolve())]}}  # the folder of results may have been moved
            put(folder / "data.yaml", yaml.safe_dump(here))
            flags = ["--checkpoint-every", spacing(steps, at), "--keep", 10_000, "--config", folder / "data.yaml"]
            ckpt = before / "offline.pt"
            death(folder, lambda: fine_tune(folder, ckpt, job.configs, job.seed, means, *flags))
        for number, path in nearest_checkpoints(folder / "online", [share * steps for share in at]).items():
            evaluations.append(evaluate(folder, path, number, episodes, means))
    offline = (records(before / "pretrain", "update") or [{}])[-1]
    episodes_online = records(folder / "online", "episode")
    died = read(before / DIED) or read(folder / DIED)
    return {
        "task": job.task, "preset": job.preset, "seed": job.seed, "configs": named(job.configs, folder.parents[1]),
        "died": died.get("why"), "died_at": died.get("env_steps"),
        "offline_updates": config["offline"].updates, "env_steps": steps, "evaluations": evaluations,
        "training": [[record["env_steps"], record["success"]] for record in episodes_online],
        "offline": {key: offline[key] for key in OF_OFFLINE if key in offline},
        "warnings": [r["line"] for part in (before / "pretrain", folder / "online") for r in records(part, "warning")],
    }  # fmt: skip


def named(configs: Sequence[str], root: Path) -> list[str]:
    """Their paths; of those in `root`, the folder of results, from there on: it may lie elsewhere one day."""
    there = root.resolve()
    return [str(path.relative_to(there)) if (path := Path(c).resolve()).is_relative_to(there) else c for c in configs]


def death(folder: Path, work: Callable[[], object]) -> bool:
    """Do the work of the stage in `folder`, unless it has died before; whether it died. The folder remembers."""
    if once(folder / DIED):
        try:
            work()
        except UserError as error:
            if DIVERGED not in str(error):
                raise
            seen = [
                record["env_steps"] for kind in ("episode", "update") for record in records(folder / "online", kind)
            ]
            write(folder / DIED, {"why": str(error), "env_steps": max(seen, default=0)})
    return not once(folder / DIED)
