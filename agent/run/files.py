"""A run's folder and the names in it; without torch, so that what is missing is reported at once."""

from __future__ import annotations

import time
from pathlib import Path

from agent.config import LearnerConfig
from agent.run.records import LOG_FILE
from agent.spec import UserError

LATEST = "latest.pt"
OLDER = "checkpoints"


def run_folder(config: LearnerConfig, kind: str) -> Path:
    return Path(config.run or f"runs/{kind}-{time.strftime('%Y%m%d-%H%M%S')}")


def has_data(folder: Path) -> bool:
    """Whether a run has got as far as leaving something in `folder`; a start that failed has not."""
    places = [folder / name for name in (OLDER, "episodes")]
    records = folder / LOG_FILE
    return (
        (folder / LATEST).exists()
        or any(place.is_dir() and any(place.iterdir()) for place in places)
        or (records.exists() and records.stat().st_size > 0)
    )


def check_file(path: str | Path) -> None:
    """Raise UserError unless `path` is a file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file" if not path.is_dir() else f"{path}: is a folder, not a checkpoint")


def check_folder(folder: str | Path) -> None:
    """Raise UserError unless the run in `folder` has a checkpoint."""
    folder = Path(folder)
    if not any((folder / OLDER).glob("[!.]*.pt")):
        check_file(folder / LATEST)
