"""A run's episodes on disk, and in the replay: each is a file first, so that a crash at any moment loses none."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.data.episode_file import SUFFIX, EpisodeFileError, check_edits, read_episode, read_head, write_episode
from agent.data.storage import NoSpace
from agent.files import move
from agent.spec import Episode, UserError
from agent.wire.bad_messages import shown, unexpected
from agent.wire.messages import REASON, EpisodeKey, episode_key, episode_name, without_meta

Read = TypeVar("Read")
QUARANTINE = "quarantine"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Writing:
    """An episode on its way to the disk, as `path`: see Store.start. written: None for one that is there already.

    replaced_bytes: of the file that was there before.
    """

    episode: Episode
    path: Path
    written: Future[None] | None
    replaced_bytes: int = 0

    @property
    def key(self) -> EpisodeKey:
        return episode_key(self.episode.meta)

    @property
    def done(self) -> bool:
        """Whether `finish` need not wait."""
        return self.written is None or self.written.done()

    def cancel(self) -> bool:
        """Whether it was not begun, and will not be; then there is nothing to finish."""
        return self.written is not None and self.written.cancel()


class Store:
    """Episodes of the run in `folder`: those that learning uses in episodes/, the others in quarantine/ or discarded/.

    An episode that learning cannot use goes to quarantine/, whatever the reason, and the run goes on. If it contradicts
    the config (a third reward value in a sparse task, more steps than the replay has rows), read_back takes it in once
    the config has been put right. Older releases named that folder set_aside/; it is read, too.
    Damaged files go to damaged/; those that a person discarded (meta "marked") to discarded/. Of an episode that comes
    a second time, longer (its robot was away, and the learner had cut it short), only the longer version stays.
    A thread compresses, writes and syncs, in the order of `start`; all else happens in `start` and `finish`.
    add: gives an episode to learning; raises if that cannot use it. drop: takes one back.
    episodes, env_steps: of those that learning uses. quarantined: how many it does not. tell: gets what learning
    used or dropped, in this order, with the file where it used it.
    """

    def __init__(
        self,
        folder: Path,
        add: Callable[[Episode], None],
        drop: Callable[[EpisodeKey], None],
        tell: Callable[[EpisodeKey, Path | None], None] = lambda key, path: None,
    ) -> None:
        self.folder, self._use, self._drop, self._tell = folder, add, drop, tell
        self._good, self._quarantine, self._discarded = (
            folder / name for name in ("episodes", QUARANTINE, "discarded")
        )
        self._older = folder / "set_aside"
        self.episodes = self.env_steps = self.quarantined = 0
        self._order = 0  # of the next file; not how many there are: reading back may quarantine one
        self._writer = ThreadPoolExecutor(1, "episode writer")
        self.bytes: Counter[str] = Counter()  # on disk, by robot
        self._kept: dict[EpisodeKey, tuple[Path, int]] = {}  # file and steps of each

    @property
    def steps(self) -> dict[EpisodeKey, int]:
        """How many steps there are on disk of each episode, used or not."""
        return {key: steps for key, (_, steps) in self._kept.items()}

    def stored(self, key: EpisodeKey) -> int:
        """How many steps of an episode are on disk."""
        return self._kept[key][1] if key in self._kept else 0

    def take(self, episode: Episode) -> bool:
        """`start` and `finish` in one."""
        return self.finish(self.start(episode))

    def start(self, episode: Episode) -> Writing:
        """Begin to write an episode that nobody changes from now on, and no other version of which is being written.

        One of which as much is on disk stays as it is.
        """
        if len(episode) <= self.stored(key := episode_key(episode.meta)):
            return Writing(episode, self._kept[key][0], None)
        path = self._place(episode)
        before = _size(path)
        return Writing(episode, path, self._writer.submit(write_episode, path, episode), before)

    def finish(self, writing: Writing) -> bool:
        """Once it is on disk, to learning; False when that cannot or, as a person said, should not use it.

        A shorter version of the same episode is replaced. Raises OSError, and changes nothing, when the disk did not
        take it, NoSpace when the replay does not. Whatever else goes wrong, the episode is quarantined; if no file can
        hold it, it is lost, with a line in the log.
        """
        episode, path, key = writing.episode, writing.path, writing.key
        if writing.written is None:
            return path.parent == self._good
        try:
            writing.written.result()
        except OSError:
            raise
        except Exception as error:
            return self._rescue(episode, error)
        shorter = self._kept.get(key)
        if shorter:
            self._forget(key, *shorter, path)
        self.bytes[key[0]] += _size(path) - writing.replaced_bytes
        self._kept[key] = path, len(episode)
        if path.parent == self._quarantine:
            self._say_quarantined(path, episode.meta[REASON])
        return path.parent == self._good and self._add(episode, path)

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown()

    def _rescue(self, episode: Episode, error: Exception) -> bool:
        """Write an episode that could not be written to quarantine/, without its meta; False. Raises OSError."""
        key, reason = episode_key(episode.meta), shown(unexpected(error))
        bare = dataclasses.replace(episode, meta=without_meta(key, reason))
        try:
            self._kept[key] = path, _ = self._write(bare), len(episode)
        except OSError:
            raise
        except Exception:
            name = episode_name(bare.meta)
            log.exception("lost: episode %s cannot be written to a file, and is excluded from training", name)
        else:
            self._say_quarantined(path, reason)
        return False

    def _say_quarantined(self, path: Path, reason: object) -> None:
        self.quarantined += 1
        log.warning("quarantined, excluded from training: %s: %s", path, reason)

    def read_back(self) -> None:
        """Fill the replay from the files, in the order in which they were taken.

        Raises EpisodeFileError where an edit has been made by half.
        """
        folders = (self._good, self._quarantine, self._older, self._discarded)
        for edited in folders:
            check_edits(edited)
        for aside in (*folders, self.folder):
            for part in aside.glob(".*.part"):  # of a learner that was killed while it wrote
                part.unlink()
        orders: dict[EpisodeKey, int] = {}
        for path in (path for folder in folders for path in self._files(folder)):
            if (head := self._whole(path, _head_of_run)) is not None:
                steps, meta = head
                key = episode_key(meta)
                if key in self._kept:  # the learner was killed while it replaced one
                    path, steps = self._longer((path, steps), self._kept[key])
                self._kept[key], orders[key] = (path, steps), meta["order"]
                self.bytes[key[0]] += _size(path)
        for key in sorted(self._kept, key=lambda key: (self._kept[key][0].parent != self._good, orders[key])):
            path, _ = self._kept[key]
            if path.parent == self._discarded:
                continue
            if (episode := self._whole(path, read_episode)) is None:
                del self._kept[key]
            elif path.parent == self._good:
                self._add(episode, path)
            elif REASON in episode.meta:
                self.quarantined += 1
            else:
                self._add(episode, self._write(episode))  # the config may have been put right since
                if self._kept[key][0] != path:
                    self._remove(path, key)

    def _place(self, episode: Episode) -> Path:
        """Where it is written; gives it its place in the order."""
        meta = episode.meta
        folder = (
            self._quarantine if REASON in meta else self._discarded if meta.get("marked") == "discard" else self._good
        )
        meta["order"], self._order = self._order, self._order + 1
        return folder / (episode_name(meta) + SUFFIX)

    def _write(self, episode: Episode) -> Path:
        path = self._place(episode)
        before = _size(path)
        write_episode(path, episode)
        self.bytes[episode.meta["robot"]] += _size(path) - before
        return path

    def _forget(self, key: EpisodeKey, path: Path, steps: int, instead: Path) -> None:
        """Drop a shorter version, now that the longer one is on disk."""
        if path != instead:
            self._remove(path, key)
        if path.parent == self._good:
            self._drop(key)
            self._tell(key, None)
            self.episodes -= 1
            self.env_steps -= steps
        self.quarantined -= path.parent in (self._quarantine, self._older)

    def _remove(self, path: Path, key: EpisodeKey) -> None:
        self.bytes[key[0]] -= _size(path)
        path.unlink(missing_ok=True)

    def _longer(self, one: tuple[Path, int], other: tuple[Path, int]) -> tuple[Path, int]:
        """The file with more steps of one episode; the other one goes to replaced/."""
        shorter, longer = sorted((one, other), key=lambda each: each[1])
        replaced = self.folder / "replaced"
        move(shorter[0], replaced / shorter[0].name)
        log.warning("moved to %s, excluded from training: %s has more steps of the same episode", replaced, longer[0])
        return longer

    def _add(self, episode: Episode, path: Path) -> bool:
        key = episode_key(episode.meta)
        try:
            self._use(episode)
        except NoSpace:
            raise  # not the episode's fault
        except Exception as error:  # nothing in one episode ends a run
            aside = self._quarantine / path.name
            move(path, aside)
            self._kept[key] = aside, len(episode)
            self._say_quarantined(aside, error if isinstance(error, UserError) else shown(unexpected(error)))
            return False
        self._kept[key] = path, len(episode)
        self._order = max(self._order, episode.meta["order"] + 1)
        self.episodes += 1
        self.env_steps += len(episode)
        self._tell(key, path)
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
            move(path, damaged / path.name)
            log.warning("moved to %s, excluded from training: %s", damaged, error)
            return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _head_of_run(path: Path) -> tuple[int, dict[str, Any]]:
    """Steps and meta of an episode of a run. Raises EpisodeFileError for any other file."""
    steps, meta = read_head(path)
    if missing := {"robot", "boot", "number", "order"} - meta.keys():
        raise EpisodeFileError(f"{path}: not an episode of a run: no '{min(missing)}' in its meta")
    return steps, meta
