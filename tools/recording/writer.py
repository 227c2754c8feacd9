"""Episode files, written in the background while the robot is reset."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from agent import cli
from agent.data.episode_file import write_episode
from agent.spec import Episode, UserError

RETRY_S = 1.0


class Writer:
    """Writes one episode at a time. Whoever calls `settle` before the next episode's first step risks no other one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._job: tuple[Path, Episode, Future[None]] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()  # waits: what is being written gets onto the disk
        if self._job and (error := self._job[2].exception()):
            print(f"{self._job[0]}: was not written: {error}", file=sys.stderr)

    def put(self, path: Path, episode: Episode) -> None:
        """Begin to write; `settle` comes before the next."""
        assert self._job is None, "the episode before is not written yet"
        self._job = path, episode, self._pool.submit(write_episode, path, episode)

    def settle(self, stop: cli.Stop | None = None, say: Callable[[str], None] = print) -> None:
        """Return once the last episode is on the disk.

        With `stop` there is a person: an episode that cannot be written is kept in memory, said, and tried again each
        second until it can be, or the next Ctrl-C gives it up. Raises UserError naming the file that was not written.
        """
        said, asked = False, stop is not None and stop.asked
        while self._job:
            path, episode, future = self._job
            try:
                future.result()
            except OSError as error:
                line = f"{path}: cannot be written: {error.strerror or error}"
                if not stop:
                    self._job = None
                    raise UserError(line) from None
                if not said:
                    say(f"{line}; the episode is in memory, writing is retried each second (Ctrl-C discards it)")
                said = True
                try:
                    time.sleep(RETRY_S)
                except KeyboardInterrupt:
                    asked, stop.asked = False, True
                if stop.asked and not asked:
                    self._job = None
                    raise UserError(f"{line}; the episode was not saved") from None
                self._job = path, episode, self._pool.submit(write_episode, path, episode)
            else:
                self._job = None
