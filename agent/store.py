"""A run's episodes on disk, and in the replay: each is a file first, so that a crash at any moment loses none."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agent.episode_file import SUFFIX, EpisodeFileError, read_episode, read_head, write_episode
from agent.spec import Episode, UserError
from agent.storage import NoSpace
from agent.wire import EpisodeKey, episode_name

Read = TypeVar("Read")

log = logging.getLogger(__name__)


class Store:
    """Episodes of the run in `folder`: those that learning uses in episodes/, the others in set_aside/ or discarded/.

    An episode that contradicts the config (a third reward value in a sparse task, more steps than the replay has rows)
    is set aside, whole and named, and the run goes on. After the config has been put right, read_back takes it in.
    Damaged files go to damaged/; those that a person discarded (meta "marked") to discarded/.
    add: gives an episode to learning; raises UserError if that cannot use it.
    episodes, env_steps: of those that learning uses. set_aside: how many it does not. tell: gets the path of each that
    it does.
    """

    def __init__(
        self, folder: Path, add: Callable[[Episode], None], tell: Callable[[Path], None] = lambda path: None
    ) -> None:
        self._use, self._tell = add, tell
        self._good, self._aside, self._discarded = (folder / name for name in ("episodes", "set_aside", "discarded"))
        self.episodes = self.env_steps = self.set_aside = 0
        self._order = 0  # of the next one in the replay; not how many there are: reading back may set one aside

    def take(self, episode: Episode) -> bool:
        """To disk, then to learning; False when that cannot or, as a person said, should not use it."""
        episode.meta["order"] = self._order
        name = episode_name(episode.meta) + SUFFIX
        if episode.meta.get("marked") == "discard":
            self._discarded.mkdir(exist_ok=True)
            write_episode(self._discarded / name, episode)
            return False
        write_episode(self._good / name, episode)
        return self._add(episode, name)

    def read_back(self) -> list[EpisodeKey]:
        """Fill the replay from the files, in the order in which they were taken; returns the identities of them all."""
        for aside in (self._good, self._aside, self._discarded, self._good.parent):
            for part in aside.glob(".*.part"):  # of a learner that was killed while it wrote
                part.unlink()
        keys, orders = [], {}
        for path in self._files(self._good):
            if (meta := self._whole(path, _run_meta)) is not None:
                orders[path] = meta["order"]
        for path in sorted(orders, key=lambda path: orders[path]):
            if (episode := self._whole(path, read_episode)) is not None:
                keys.append(_key(episode))
                self._add(episode, path.name)
        for path in self._files(self._discarded):
            if (meta := self._whole(path, _run_meta)) is not None:
                keys.append((meta["robot"], meta["boot"], meta["number"]))
        known = {path.name for path in orders}
        for path in self._files(self._aside):
            if (episode := self._whole(path, read_episode)) is not None:
                keys.append(_key(episode))
                if path.name not in known and self.take(episode):
                    path.unlink()
        return keys

    def _add(self, episode: Episode, name: str) -> bool:
        try:
            self._use(episode)
        except NoSpace:
            raise  # not the episode's fault
        except UserError as error:
            self._aside.mkdir(exist_ok=True)
            os.replace(self._good / name, self._aside / name)
            self.set_aside += 1
            log.warning("set aside, not learnt from: %s: %s", self._aside / name, error)
            return False
        self._order = episode.meta["order"] + 1
        self.episodes += 1
        self.env_steps += len(episode)
        self._tell(self._good / name)
        return True

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return sorted(folder.glob(f"[!.]*{SUFFIX}"))

    def _whole(self, path: Path, read: Callable[[Path], Read]) -> Read | None:
        """What `read` makes of `path`; None when that is damaged or foreign: it is then in damaged/, and named."""
        try:
            return read(path)
        except EpisodeFileError as error:
            damaged = path.parent.parent / "damaged"
            damaged.mkdir(exist_ok=True)
            os.replace(path, damaged / path.name)
            log.warning("moved to %s, not learnt from: %s", damaged, error)
            return None


def _key(episode: Episode) -> EpisodeKey:
    return episode.meta["robot"], episode.meta["boot"], episode.meta["number"]


def _run_meta(path: Path) -> dict[str, Any]:
    """The meta of an episode of a run. Raises EpisodeFileError for any other file."""
    meta = read_head(path)[1]
    if missing := {"robot", "boot", "number", "order"} - meta.keys():
        raise EpisodeFileError(f"{path}: not an episode of a run: no '{min(missing)}' in its meta")
    return meta
