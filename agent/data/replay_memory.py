"""What episodes will take in a replay, from the heads of their files, so that it is known before they are loaded."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from agent.data.episode_file import EpisodeFileError, read_size
from agent.data.storage import Storage
from agent.memory import available_bytes
from agent.spec import Spec, UserError

COLUMN_BYTES = 16  # of a row, besides observations and action: reward, terminated, return, succeeded

log = logging.getLogger(__name__)


def row_bytes(spec: Spec) -> int:
    """Bytes that a step takes in a replay."""
    images = sum(height * width * channels for height, width, channels in spec.cameras.values())
    return images + 4 * (sum(spec.states.values()) + spec.action_dim) + COLUMN_BYTES


def needed_bytes(paths: Sequence[Path], successes_only: bool = False, most_rows: int | None = None) -> int:
    """Bytes that these episodes take, the loading of the longest included; at most `most_rows` of their rows.

    Files that cannot be read count nothing: whoever loads them names them.
    """
    rows, longest, widest = 0, 0, 0
    for path in paths:
        with contextlib.suppress(EpisodeFileError):
            steps, row, success = read_size(path)
            widest, longest = max(widest, row + COLUMN_BYTES), max(longest, steps + 1)
            rows += steps + 1 if success or not successes_only else 0
    return (min(rows, rows if most_rows is None else most_rows) + 2 * longest) * widest


def check_room(needed: int, storage: Storage, what: str) -> None:
    """Raise UserError when host memory has no room for `needed` bytes more; other storage says so itself."""
    needed *= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun: each process on this machine has a replay
    if storage.kind == "host" and needed > (free := available_bytes()):
        raise UserError(
            f"{what}: needs {needed / 1e9:.2f} GB of memory, and {free / 1e9:.2f} GB are free; --storage file keeps "
            "the frames in a file in the run's folder"
        )


def warn_of_growth(more: int, storage: Storage) -> None:
    """Log it when the steps to come will not fit into host memory."""
    if storage.kind == "host" and more > (free := available_bytes()):
        log.warning(
            "the env steps to come need %.2f GB of memory, and %.2f GB are free: --storage file keeps the frames in a "
            "file, --capacity-steps limits them",
            more / 1e9,
            free / 1e9,
        )
