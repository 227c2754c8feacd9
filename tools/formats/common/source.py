"""A source's episodes: all of them are checked before anything is decoded or written, then read one after another."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.frames import Frames
from agent.progress import Progress
from agent.spec import Episode, Spec, SpecError, UserError
from tools.formats.common.build import at_successes
from tools.formats.common.foreign import Choices, FormatError, Report
from tools.formats.common.output import FULL


@dataclass
class Part:
    """One episode of a source, not read yet.

    name: the source's path and the episode's name, for messages.
    load: its Episode, images as Frames that are decoded when they are asked for. Raises FormatError.
    check: instead of `load` while all are checked, where loading is work. Raises FormatError.
    actions: as the source has them, (T, A).
    """

    name: str
    load: Callable[[Choices, Report], Episode]
    check: Callable[[], object] | None = None
    actions: Callable[[], np.ndarray] | None = None


@dataclass
class Survey:
    """What checking all parts has found."""

    good: list[Part] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)  # what is wrong -> the episodes
    spec: Spec | None = None
    low: np.ndarray | None = None  # (A,) of all good actions
    high: np.ndarray | None = None

    def fault(self, source: Path, name: str, message: str) -> None:
        label = name.removeprefix(f"{source}: ")
        message = message.removeprefix(f"{source}: ").removeprefix(f"{label}: ")
        self.faults.setdefault(message, []).append(label)

    def lines(self) -> list[str]:
        return [f"{_some(names)}: {message}" for message, names in self.faults.items()]


def _some(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 6 else [*names[:5], f"and {len(names) - 5} more"])


@contextlib.contextmanager
def explained(source: Path) -> Iterator[None]:
    """Whatever a damaged or incomplete source does to its reader becomes a FormatError of one line."""
    try:
        yield
    except SpecError as error:
        raise FormatError(str(error)) from None
    except UserError:
        raise
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        missing = re.search(r"object '(.+)' doesn't exist", str(error))  # in HDF5's words
        what = f"'{missing[1]}' is missing" if missing else f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{source}: cannot be read: {' '.join(what.split())}") from error


class Stopped(Exception):
    """Somebody asked for the end, by Ctrl-C or a signal."""


def going_on() -> bool:
    return False


def check_stop(stop: Callable[[], bool]) -> None:
    """Raise Stopped where `stop` says so.

    Asked between episodes and blocks: an exception that a signal's handler raised inside HDF5's or numpy's callbacks
    would be swallowed there.
    """
    if stop():
        raise Stopped


def survey(source: Path, parts: list[Part], choices: Choices, stop: Callable[[], bool] = going_on) -> Survey:
    """Check every part; images are looked up and not decoded.

    Raises UserError where the person has to decide something first (see Choices).
    """
    found = Survey()
    plain = dataclasses.replace(choices, actions="clip") if choices.actions == "scale" else choices
    for part in parts:
        check_stop(stop)
        try:
            with explained(source):
                _check(part, plain, found)
        except FormatError as error:
            found.fault(source, part.name, str(error))
    return found


def _check(part: Part, choices: Choices, found: Survey) -> None:
    if part.check:
        part.check()
    else:
        episode = part.load(choices, Report())
        episode.check(episode.spec)
        found.spec = found.spec or episode.spec
        if differences := found.spec.differences(episode.spec):
            raise FormatError(f"differs from the episodes before it: {'; '.join(differences)}")
    if part.actions:
        rows = np.asarray(part.actions(), np.float64)
        rows = rows.reshape(len(rows), -1)
        low, high = rows.min(axis=0), rows.max(axis=0)
        found.low = low if found.low is None else np.minimum(found.low, low)
        found.high = high if found.high is None else np.maximum(found.high, high)
    found.good.append(part)


def loaded(
    source: Path, parts: list[Part], choices: Choices, report: Report, stop: Callable[[], bool] = going_on
) -> Iterator[tuple[Part, Episode]]:
    """The parts with their episodes, one at a time; reading one's images raises Stopped, too."""
    with Progress(len(parts), "read", "episodes") as progress:
        for number, part in enumerate(parts):
            check_stop(stop)
            with explained(source):
                episode = part.load(choices, report)
            guarded = {key: _guarded(source, rows, stop) for key, rows in episode.observations.items()}
            episode = dataclasses.replace(episode, observations=guarded)
            for piece in at_successes(episode) if choices.end == "each-success" else [episode]:
                yield part, piece
            progress.show(number + 1)


def _guarded(source: Path, rows: Any, stop: Callable[[], bool]) -> Any:
    """Frames that raise FormatError for whatever reading them meets, and Stopped."""
    if not isinstance(rows, Frames):
        return rows

    def read(first: int, end: int) -> np.ndarray:
        check_stop(stop)
        with explained(source):
            return rows[first:end]

    return Frames(rows.shape, read)
