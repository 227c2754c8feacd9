"""Videos of an evaluation's episodes, written in a thread, so that encoding holds up neither the arm nor STOP."""

from __future__ import annotations

import contextlib
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from agent.spec import Observation
from tools.common.video import mp4, picture

Frames = SimpleQueue[tuple[Observation, str] | None]

log = logging.getLogger(__name__)


def _ordinary_scheduling() -> None:
    """The control loop may have real-time scheduling, which its threads inherit: encoding must not have it."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _write(path: Path, fps: float, cameras: list[str], frames: Frames) -> None:
    try:
        with mp4(path, fps) as write:
            for observation, text in iter(frames.get, None):
                write(picture(observation, cameras, text))
    except Exception as error:  # the evaluation is worth more; a package may be missing, too
        log.warning("no video: %s", " ".join(str(error).split()))


class Films:
    """One video at a time. cameras: none, no videos."""

    def __init__(self, cameras: list[str], fps: float) -> None:
        self._cameras, self._fps = cameras, fps
        self._pool = ThreadPoolExecutor(1, "video", initializer=_ordinary_scheduling)
        self._frames: Frames | None = None
        self._path: Path | None = None
        self._written: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the last one is still being written."""
        return self._written is not None and not self._written.done()

    def add(self, path: Path, observation: Observation, text: str) -> None:
        """The next frame; the first one begins the video `path`."""
        if not self._cameras:
            return
        if self._frames is None:
            self._frames, self._path = SimpleQueue(), path
            self._written = self._pool.submit(_write, path, self._fps, self._cameras, self._frames)
        self._frames.put((observation, text))

    def end(self) -> None:
        """The episode has ended; the rest is written meanwhile."""
        if self._frames is not None:
            self._frames.put(None)
        self._frames = None

    def has(self, path: Path) -> bool:
        """Whether there is a video `path`, now or soon."""
        return self._path == path

    def close(self) -> None:
        """Return when the last one is on the disk."""
        self.end()
        self._pool.shutdown()
