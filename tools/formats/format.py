"""The formats that tools.convert reads and writes, and what a module has to offer to be one of them.

To add a format: write tools/formats/<name>.py with `detects` and `parts` (to read it), `write` (to write it), or all
three, and add its name to READERS and WRITERS below. What several formats share is in tools/formats/common/; a part of
one format is named after it, as lerobot_meta.py is. tests/tools/formats/test_format.py checks each module in the lists.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, cast

from agent.spec import Episode, UserError
from tools.formats.common.foreign import Choices, Report, check_pointer
from tools.formats.common.source import Part, loaded

READERS = ("episodes", "lerobot", "minari", "robosuite", "robomimic")  # in the order in which they are tried
WRITERS = ("episodes", "robomimic", "lerobot", "minari")


class Reader(Protocol):
    """A module that reads a format."""

    def detects(self, path: Path) -> bool:
        """Whether `path`, which exists, looks like this format. Raises OSError or ValueError for a damaged file."""

    def parts(self, path: Path, choices: Choices, report: Report) -> AbstractContextManager[list[Part]]:
        """The source's episodes, not read yet, and what has to stay open while they are.

        Each Part loads its episode as `choices` say, usually by tools.formats.common.build.to_episode, and adds to
        `report` what was dropped or changed. Raises FormatError for a source that is damaged, UserError where the
        person has to decide something first.
        """


class Writer(Protocol):
    """A module that writes a format."""

    def write(self, path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
        """Write all `episodes`, one at a time, to `path`, a file or folder that does not exist yet.

        Their images may be Frames, to be read block by block. Raises OSError for a disk that is full.
        """


def reader(name: str) -> Reader:
    """The module of the format `name`, one of READERS; loaded only now: each needs other packages."""
    return cast(Reader, importlib.import_module(f"tools.formats.{name}"))


def writer(name: str) -> Writer:
    """The module of the format `name`, one of WRITERS."""
    return cast(Writer, importlib.import_module(f"tools.formats.{name}"))


def format_of(path: Path) -> str:
    """The name of the source's format. Raises UserError where it is none that is known."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file():
        check_pointer(path)
    for name in READERS:
        try:
            if reader(name).detects(path):
                return name
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    raise UserError(f"{path}: none of {', '.join(READERS)}; --from names its format")


def read_all(kind: Reader, source: Path, choices: Choices, report: Report) -> Iterator[Episode]:
    """All episodes of `source`, images in memory. Raises FormatError."""
    with kind.parts(source, choices, report) as parts:
        for _, episode in loaded(source, parts, choices, report):
            whole = {key: rows[:] for key, rows in episode.observations.items()}
            yield dataclasses.replace(episode, observations=whole)
