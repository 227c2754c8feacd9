"""Our own folders of episode files, as one format among the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.data.episode_file import SUFFIX, EpisodeFileError, episode_paths, read_episode, read_head, write_episode
from agent.spec import Episode
from tools.formats.common.build import renamed
from tools.formats.common.foreign import Choices, FormatError, Report, check_pointer
from tools.formats.common.names import resolved
from tools.formats.common.source import Part


def detects(path: Path) -> bool:
    try:
        read_head(episode_paths([path])[0])
    except EpisodeFileError:
        return False
    return True


@contextlib.contextmanager
def parts(path: Path, choices: Choices, report: Report) -> Iterator[list[Part]]:
    yield [_part(path, file) for file in episode_paths([path])]


def _part(path: Path, file: Path) -> Part:
    def load(choices: Choices, report: Report) -> Episode:
        check_pointer(file)
        try:
            episode = read_episode(file, stream=True)
        except EpisodeFileError as error:
            raise FormatError(str(error)) from None
        return renamed(episode, resolved(path, episode.observations, choices), report)

    return Part(f"{path}: {file.name}", load)


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    for number, episode in enumerate(episodes):
        write_episode(path / f"episode_{number:06d}{SUFFIX}", episode)
