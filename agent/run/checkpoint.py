"""Checkpoints: one file that knows its config, spaces, environment and data; written atomically, never unpickled."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agent import cli
from agent.commands import typed
from agent.config import REMOVED, SECTIONS, OnlineConfig, RunConfig
from agent.env_record import EnvRecord
from agent.files import written
from agent.policy import Policy
from agent.run.files import LATEST as LATEST
from agent.run.files import OLDER as OLDER
from agent.run.files import check_file
from agent.run.network_size import check_sizes
from agent.spec import Spec, UserError
from agent.torch_file import read_torch_file

if TYPE_CHECKING:
    from agent.calql.algorithm import CalQL

FORMAT = 2
BEFORE: dict[str, dict[str, Any]] = {"calql": {"gradient_clip": 0.0}}  # settings that checkpoints without them had

log = logging.getLogger(__name__)


class NotSaved(UserError):
    """A checkpoint that could not be written (a full disk); the message names it."""


@dataclass
class Checkpoint:
    spec: Spec
    env: EnvRecord  # that the data came from
    config: dict[str, dict[str, Any]]  # section -> field -> value
    agent: dict[str, Any]  # CalQL.state_dict()
    counters: dict[str, int] = field(default_factory=dict)  # offline_updates, updates, env_steps, version, ...
    generators: dict[str, torch.Tensor] = field(default_factory=dict)  # random state of what samples
    run: str = ""  # identity of the online run, whose first 8 digits robots are told; the others are its secret

    def save(self, path: str | Path) -> None:
        """Write to `path`: an old file there stays until the new one is whole and on the disk. Raises NotSaved."""
        path = Path(path)
        try:
            with written(path) as file:
                plain = {"spec": self.spec.to_dict(), "env": self.env.to_dict()}
                torch.save({"format": FORMAT, **vars(self), **plain}, file)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a disk that is full
            raise NotSaved(f"{path}: cannot be written: {error}") from None

    def section(self, name: str) -> Any:
        return cli.build(SECTIONS[name], self.config.get(name, {}), f"{name}.")

    def run_config(self) -> RunConfig:
        """Its config but for the link's settings: a checkpoint never opens the network. Raises UserError."""
        return RunConfig(**{name: self.section(name) for name in SECTIONS if name != "link"})

    def check_sizes(self) -> None:
        """Call before networks are built. Raises UserError when the config declares larger ones than the file holds."""
        try:
            check_sizes(self.spec, self.section("network"), self.agent)
        except ValueError as error:
            raise UserError(f"the checkpoint is damaged: {error}") from None

    def restore(self, agent: CalQL) -> None:
        """Put the state into `agent`. Raises UserError when that has other networks."""
        try:
            agent.load_state_dict(self.agent)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the checkpoint has other networks than section 'network' asks for: {reason}") from None

    def policy(self) -> Policy:
        """The policy that acts (CalQL.average), on the CPU."""
        self.check_sizes()
        policy = Policy(self.spec, self.section("network").from_checkpoint())
        policy.load_state_dict(self.agent["average"])
        return policy.eval()


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint, tensors on the CPU. Raises UserError naming a file that is missing, damaged or foreign."""
    path = Path(path)
    check_file(path)
    try:
        data = read_torch_file(path)
        if data.pop("format") != FORMAT:
            raise ValueError("written by another version of this program")
        used = []  # settings that are gone, where they were not at their default
        for name, section in data["config"].items():
            removed = REMOVED.get(name, {})
            used += [f"{name}.{key}" for key in section if section[key] != removed.get(key, section[key])]
            kept = {key: value for key, value in section.items() if key not in removed}
            data["config"][name] = BEFORE.get(name, {}) | kept
        data["spec"], data["env"] = Spec.from_dict(data["spec"]), EnvRecord.from_dict(data["env"])
        found = Checkpoint(**data)
    except Exception as error:  # torch.load fails in many ways on a damaged file, and every one is the file's fault
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise UserError(f"{path}: not a checkpoint of this program, or damaged ({reason})") from None
    if used:
        raise UserError(
            f"{path}: trained with {', '.join(used)}, which this version no longer has; use one that has it"
        )
    return found


def loaded(start: Checkpoint | str | Path, origin: str | Path) -> tuple[Checkpoint, str | Path]:
    """The checkpoint that `start` is, or is the path of, and for messages its path, or `origin`. Raises UserError."""
    if isinstance(start, (str, Path)):
        return load(start), start
    if not isinstance(start, Checkpoint):
        raise UserError(f"start is {start!r:.80}; it must be a checkpoint or the path of one")
    return start, origin


def load_newest(folder: str | Path) -> Checkpoint:
    """The newest whole checkpoint of the run in `folder`: latest.pt, else the newest in checkpoints/ that can be read.

    A latest.pt that had to be passed over is kept as latest.pt.damaged. Raises UserError naming latest.pt when there is
    none to fall back to.
    """
    latest = Path(folder) / LATEST
    try:
        return load(latest)
    except UserError as error:
        for path in sorted((Path(folder) / OLDER).glob("[!.]*.pt"), reverse=True):
            with contextlib.suppress(UserError):
                found = load(path)
                log.warning("%s; resuming from the one before, %s", error, path)
                with contextlib.suppress(FileNotFoundError):  # another rank was first
                    os.replace(latest, latest.with_name(f"{LATEST}.damaged"))
                return found
        raise


def check_newest(start: Checkpoint, folder: Path) -> None:
    """Raise UserError unless `start` is the newest checkpoint of the run in `folder`."""
    newest = load_newest(folder)
    if newest.run != start.run:
        raise UserError(f"{folder}: cannot be resumed from a checkpoint of another run; load_newest() reads its own")
    if newest.counters["updates"] != start.counters["updates"]:
        done = f"{start.counters['updates']} updates, its newest {newest.counters['updates']}"
        raise UserError(f"{folder}: cannot be resumed from an older checkpoint of it: that has {done}")


def keep(folder: Path, name: str, newest: int) -> None:
    """Copy the latest.pt in `folder` to checkpoints/`name`.pt, and leave the `newest` there. Raises NotSaved."""
    older = folder / OLDER
    path = older / f"{name}.pt"
    try:
        for left in older.glob(".*part"):  # of a learner that was killed while it wrote
            left.unlink()
        with written(path) as file, open(folder / LATEST, "rb") as latest:
            shutil.copyfileobj(latest, file)
        for old in sorted(older.glob("*.pt"))[:-newest]:
            old.unlink()
    except OSError as error:
        raise NotSaved(f"{path}: cannot be written: {error.strerror}") from None


class Saver:
    """Writes the checkpoints of the run in `folder`: latest.pt, and copies of it in checkpoints/, by env steps.

    env_steps, updates: from before the run was resumed.
    """

    def __init__(self, folder: Path, online: OnlineConfig, env_steps: int, updates: int) -> None:
        self._folder, self._every, self._keep = folder, online.checkpoint_every, online.keep
        self._saved_at, self._updates_before = env_steps, updates

    def is_due(self, env_steps: int) -> bool:
        return env_steps // self._every > self._saved_at // self._every

    def save(self, state: Checkpoint) -> None:
        """To latest.pt; and to checkpoints/ once the policy has learnt from the env steps on disk. Raises NotSaved."""
        self._saved_at = state.counters["env_steps"]
        state.save(self._folder / LATEST)
        if self._keep and state.counters["updates"] > self._updates_before:
            keep(self._folder, f"{self._saved_at:08d}", self._keep)


def taken(path: Path, again: Sequence[object] | None, another: Sequence[object]) -> UserError:
    """The error for a `path` that already exists, with the commands that would be right.

    again: resumes what is there, None when nothing can. another: starts anew, but for the path.
    """
    stem, suffix = (path.stem, path.suffix) if path.is_file() else (path.name, "")
    free = next(new for n in itertools.count(2) if not (new := path.with_name(f"{stem}-{n}{suffix}")).exists())
    words = {"to resume it": again, "to start another": [*another, free]}
    lines = [f"{why}: {typed(str(how[0]), *how[1:])}" for why, how in words.items() if how]
    return UserError(f"{path}: already exists; {'; '.join(lines)}")
