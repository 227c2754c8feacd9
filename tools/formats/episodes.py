"""Our own folders of episode files, as one format among the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from agent.episode_file import SUFFIX, EpisodeFileError, episode_paths, read_episodes, read_head, write_episode
from agent.spec import Episode
from tools.formats.foreign import Choices, Report, check_names


def detects(path: Path) -> bool:
    try:
        read_head(episode_paths([path])[0])
    except EpisodeFileError:
        return False
    return True


def actions(path: Path) -> Iterator[np.ndarray]:
    return (episode.actions for episode in read_episodes([path]))


def read(path: Path, choices: Choices, report: Report) -> Iterator[Episode]:
    for episode in read_episodes([path]):
        check_names(path, set(episode.observations), choices)
        yield episode


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    for number, episode in enumerate(episodes):
        write_episode(path / f"episode_{number:06d}{SUFFIX}", episode)
