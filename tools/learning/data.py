"""The data that learning runs start from: scripted, or converted from what the user has, with rollouts or without."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent import cli
from agent.data.episode_file import SUFFIX
from agent.spec import UserError
from tools.common.rollout import env_options
from tools.common.seeds import SEED_STRIDE
from tools.learning.process import Means, Process, alone
from tools.learning.run import fine_tune, once, train_offline
from tools.learning.settings import beside, config_words, made_of, pin, settings
from tools.learning.suite import Suite, Task


def own(task: Task) -> bool:
    """Whether every seed has demonstrations of its own: unless they are a given file's alone."""
    return task.demonstrations != "convert" or task.rollouts is not None


def place(root: Path, suite: Suite, name: str, seed: int) -> Path:
    """The folder of the demonstrations."""
    return root / "data" / (f"{name}-{seed}" if own(suite.tasks[name]) else name)


def depends_on(task: Task, seed: int, source: Path | None) -> dict[str, Any]:
    """All that the demonstrations depend on; of what the user has, the name and a digest of what is in it."""
    more = {"convert": task.convert, "rollouts": task.rollouts, "seed": seed if own(task) else None}
    more |= {key: words for key in ("maze", "policy") if (words := getattr(task, key))}
    given = None if source is None else {"name": source.name, "sha256": digest(source)}
    return made_of(task.configs, ("env", "collect"), source=given, **more)


@functools.cache
def digest(source: Path) -> str:
    """SHA-256 of a file, or of all files in a folder with their names. Raises UserError if they cannot be read."""
    whole = hashlib.sha256()
    try:
        for path in [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file()):
            whole.update(path.relative_to(source).as_posix().encode())
            part = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    part.update(block)
            whole.update(part.digest())
    except OSError as error:
        raise UserError(f"{error.filename}: cannot read: {error.strerror}") from None
    return whole.hexdigest()


def prepare(folder: Path, name: str, task: Task, seed: int, sources: Mapping[str, Path], means: Means) -> None:
    """Put the demonstrations into `folder`, or what is missing of them. Raises Stopped, UserError."""
    work, done = beside(folder), folder.with_name(f"{folder.name}.done")
    source = sources.get(name)
    if source is None and task.given:
        raise UserError(f"task {name} needs data of yours: --source {name}=PATH")
    with alone(work, means):
        pin(work, depends_on(task, seed, source))
        if not once(done):
            return
        if task.demonstrations == "maze":
            of_maze(folder, work, task, seed, means)
        elif task.demonstrations == "policy":
            assert source is not None
            converted(folder, work, task, of_policy(source, work, task, seed, means), means)
        elif source is None:
            scripted(folder, work, task, seed, means)
        else:
            converted(folder, work, task, source, means)
        if task.rollouts is not None:
            rolled_out(folder, work, task, seed, means)
        done.touch()


def scripted(folder: Path, work: Path, task: Task, seed: int, means: Means) -> None:
    wanted = settings(task.configs)["collect"].episodes
    left = wanted - sum(1 for _ in folder.glob(f"[!.]*{SUFFIX}"))
    if left > 0:
        words = ["--device", "scripted", "--out", folder, "--collect.seed", SEED_STRIDE * seed]
        words += ["--collect.episodes", left]
        Process(work, "collect", "tools.collect", *config_words(task.configs), *words).finish(means)


def of_maze(folder: Path, work: Path, task: Task, seed: int, means: Means) -> None:
    words = [*config_words(task.configs), *task.maze, "--seed", seed, "--out", folder]
    Process(work, "maze", "tools.learning.maze", *words).finish(means)


def of_policy(source: Path, work: Path, task: Task, seed: int, means: Means) -> Path:
    episodes = work / "episodes.hdf5"
    episodes.unlink(missing_ok=True)  # of a call that was stopped
    words = [source, *task.policy, "--seed", seed, "--out", episodes]
    Process(work, "policy", "tools.learning.adroit_policy", *words).finish(means)
    return episodes


def converted(folder: Path, work: Path, task: Task, source: Path, means: Means) -> None:
    if not folder.exists():  # it appears whole
        name = cli.parse(config_words(task.configs), "", [], env_options=env_options).env()[0]
        words = [source, "--out", folder, *config_words(task.configs), "--env", name, *task.convert]
        Process(work, "convert", "tools.convert", *words).finish(means)


def rolled_out(folder: Path, work: Path, task: Task, seed: int, means: Means) -> None:
    """Add episodes of a policy that was trained on the demonstrations: a learner that makes no updates takes them."""
    asked = task.rollouts
    assert asked is not None
    configs = (*task.configs, *asked.configs)  # type: ignore[attr-defined]
    ckpt = train_offline(work, configs, folder, seed, means)
    flags = ["--env-steps", asked.env_steps, "--utd", 0, "--offline-share", 0, "--max-lead-steps", 0]  # type: ignore[attr-defined]
    online = fine_tune(work, ckpt, configs, seed, means, *flags)
    for path in (online / "episodes").glob(f"*{SUFFIX}"):
        path.replace(folder / f"rollout_{path.name}")
