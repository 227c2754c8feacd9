"""Recorded episodes as frames that show a success or do not, and their split by episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.cli import nearest
from agent.data.episode_file import episode_paths, read_episodes
from agent.env_record import EnvRecord
from agent.progress import Progress
from agent.spec import Episode, UserError

LEAST = 2  # successful and failed episodes in each part of a split


@dataclass
class Labelled:
    """N frames of some episodes, in order. images: camera -> uint8 (N, H, W, 3); success: bool (N,), what they show;
    episode, step: int (N,), where they come from; names: of the episodes' files, by number.
    """

    images: dict[str, np.ndarray]
    success: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    names: list[str]

    @classmethod
    def read(cls, places: Sequence[str | Path], cameras: Sequence[str] = (), end_frames: int = 1) -> Labelled:
        """Every frame of these folders and files; of these cameras, or all. end_frames: see labels.

        Raises UserError naming what is wrong.
        """
        paths = episode_paths(places)
        rows: list[dict[str, np.ndarray]] = []
        success: list[np.ndarray] = []
        with Progress(len(paths), "read", "episodes") as progress:
            for path, episode in zip(paths, read_episodes(places)):
                rows.append(_images(path, episode, cameras))
                success.append(labels(episode, end_frames))
                progress.show(len(rows))
        return cls(
            images={name: np.concatenate([row[name] for row in rows]) for name in rows[0]},
            success=np.concatenate(success),
            episode=np.repeat(np.arange(len(rows)), [len(words) for words in success]),
            step=np.concatenate([np.arange(len(words)) for words in success]),
            names=[str(path) for path in paths],
        )

    def of(self, episodes: np.ndarray) -> Labelled:
        """The frames of these episodes, by number."""
        mine = np.isin(self.episode, episodes)
        images = {name: rows[mine] for name, rows in self.images.items()}
        return Labelled(images, self.success[mine], self.episode[mine], self.step[mine], self.names)

    def succeeded(self) -> np.ndarray:
        """bool (episodes,): whether a frame of the episode shows a success."""
        return np.bincount(self.episode, self.success, len(self.names)) > 0


def labels(episode: Episode, end_frames: int = 1) -> np.ndarray:
    """bool (T + 1,): what each observation shows. The word after step t is about the observation after it, t + 1; at
    its reset no episode is a success. Of one that ends as a success the last `end_frames` show it, whatever was said.
    """
    words = np.concatenate([[False], episode.success])
    if words[-1]:
        words[max(1, len(words) - end_frames) :] = True
    return words


def _images(path: Path, episode: Episode, cameras: Sequence[str]) -> dict[str, np.ndarray]:
    judge = EnvRecord.of_episode(episode.meta).options.get("classifier")
    if judge:
        raise UserError(
            f"{path}: its success signal is that of classifier {judge}, from which there is nothing to learn"
        )
    there = episode.spec.cameras
    if not there:
        raise UserError(f"{path}: no cameras, so there is nothing to look at")
    for name in cameras:
        if name not in there:
            raise UserError(f"{path}: no camera '{name}'{nearest(name, there)}; there are {', '.join(there)}")
    return {name: episode.observations[name] for name in sorted(cameras or there)}


def split(succeeded: np.ndarray, shares: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Episode numbers to train on, to choose the threshold from and to measure on: of successful and failed ones alike
    the two `shares`, rounded (and LEAST each), the rest to train on. succeeded: bool (episodes,).

    Raises UserError when there are too few.
    """
    rng = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for word, name in ((True, "successful"), (False, "failed")):
        numbers = rng.permutation(np.flatnonzero(succeeded == word))
        held = [max(LEAST, round(share * len(numbers))) for share in shares]
        if len(numbers) - sum(held) < LEAST:
            raise UserError(
                f"{len(numbers)} {name} episodes are too few: {LEAST} or more each are needed to train on, to choose "
                f"the threshold from and to measure on (validation_share {shares[0]:g}, test_share {shares[1]:g})"
            )
        cuts = np.split(numbers, np.cumsum(held))
        for part, some in zip(parts, (cuts[2], cuts[0], cuts[1])):
            part += some.tolist()
    train, validation, test = (np.sort(part) for part in parts)
    return train, validation, test
