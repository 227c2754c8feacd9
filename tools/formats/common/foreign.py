"""What all formats share: an episode as its source has it (Raw), the person's choices, and what became of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.action_meaning import ActionMeaning
from agent.data.hdf5 import UnsafeFile, open_hdf5
from agent.env_record import EnvRecord
from agent.spec import UserError

POINTER = b"version https://git-lfs"


class FormatError(UserError):
    """A source that is damaged or not what it seems; the message names it."""


def check_pointer(path: Path) -> None:
    """Raise FormatError for a file that stands for another (Git LFS), and has to be fetched first."""
    try:
        with open(path, "rb") as file:
            if file.read(len(POINTER)) != POINTER:
                return
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    raise FormatError(f"{path}: a Git LFS pointer, not the data; `git lfs pull` fetches them")


@contextlib.contextmanager
def hdf5(path: Path) -> Iterator[h5py.File]:
    """agent.data.hdf5.open_hdf5 for a source. Raises FormatError naming a `path` that is damaged or not safe."""
    check_pointer(path)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_hdf5(path))
        except (UnsafeFile, OSError, RuntimeError) as error:
            raise FormatError(f"{path}: not read: {' '.join(str(error).split())}") from None
        yield file


@dataclass
class Choices:
    """What the person decided. None: not decided, and refused where the source leaves it open."""

    rename: dict[str, str] = field(default_factory=dict)  # the source's name -> the name that is written
    drop: list[str] = field(default_factory=list)  # observations left out, by the source's names
    reward: str | None = None  # sparse-at-end | success | zero
    success: str | None = None  # end | never | a reward that means success
    actions: str | None = None  # clip | scale
    final: str = "repeat"  # repeat | drop
    end: str = "source"  # source | success | each-success: where an episode ends
    resize: int | None = None  # pixels a side
    no_ops: str = "keep"  # keep | drop
    sim: dict[str, Any] = field(default_factory=dict)  # options of envs.sim, for what is rendered anew
    env: EnvRecord | None = None  # to remember as the episodes' environment
    action_range: np.ndarray | None = None  # (2, A) lowest and highest, for "scale"; (2, 1): alike for all
    action_kind: str | None = None  # of agent.action_meaning.KINDS, where the source's format says otherwise
    fps: float | None = None
    instruction: str | None = None  # the task in words
    filter_key: str | None = None  # robomimic: the demonstrations that mask/<this> lists


@dataclass
class Report:
    """What a conversion did, in plain lines; counts are summed over episodes."""

    lines: list[str] = field(default_factory=list)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """`line`, once however often it is added."""
        if line not in self.lines:
            self.lines.append(line)

    def list(self, what: str, name: str) -> None:
        """`name` belongs to the line that begins with `what`."""
        if name not in self.names.setdefault(what, []):
            self.names[what].append(name)

    def count(self, what: str, part: int, whole: int) -> None:
        """`what` holds "{}" where "n of m (p %)" is to stand."""
        self.counts[what, 0] += part
        self.counts[what, 1] += whole

    def __str__(self) -> str:
        counted = []
        for what, kind in self.counts:
            part, whole = self.counts[what, 0], self.counts[what, 1]
            if kind == 0 and part:
                counted.append(what.format(f"{part:,} of {whole:,} ({part / whole:.1%})"))
        listed = [f"{what}: {', '.join(names)}" for what, names in self.names.items()]
        return "\n".join([*self.lines, *listed, *counted])


@dataclass
class Raw:
    """One episode as its source has it: `observations` have T or T + 1 rows, `columns` are those it has of ours."""

    name: str  # for messages
    observations: dict[str, Any]  # arrays, or Frames
    actions: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    dones: np.ndarray | None = None  # ends, whatever their kind
    meta: dict[str, Any] | None = None  # ours, where the source was written by this project
    origin: dict[str, Any] = field(default_factory=dict)  # for the meta of an episode that somebody else wrote
    meaning: ActionMeaning = ActionMeaning()  # of the source's actions, where somebody else wrote it
