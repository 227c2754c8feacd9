"""The folder of an evaluation on an arm: its settings, and a file to which each attempt is appended and synced.

  settings.json    what is evaluated, and how; another command line does not continue it
  episodes.jsonl   a line when an attempt begins and a line when it has a result. It names no policy.
  videos/          one of each attempt

An attempt that began and has no result (the process was killed) is void. So nothing is counted twice or lost, whenever
the process is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.env_record import EnvRecord
from agent.files import make_folder, sync_folder, try_lock, written
from agent.options import build
from agent.spec import UserError

SETTINGS, EPISODES, VIDEOS = "settings.json", "episodes.jsonl", "videos"
RESULT_JSON, RESULT_TABLE = "result.json", "result.md"  # written at the end
SUCCESS, FAILURE, VOID = "success", "failure", "void"
KILLED = "the process was killed"


@dataclass(frozen=True)
class Settings:
    """checkpoints: file and SHA-256 of each. episodes: of each checkpoint. seed: of the first reset; the episodes of
    one block start alike. order_seed: of the order. env: EnvRecord.to_dict().
    """

    checkpoints: list[dict[str, str]]
    episodes: int
    seed: int
    order_seed: int
    verdict: str
    stochastic: bool
    env: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return [each["file"] for each in self.checkpoints]

    @property
    def total(self) -> int:
        """Episodes of all checkpoints."""
        return len(self.checkpoints) * self.episodes

    def order(self) -> list[int]:
        """Which checkpoint acts in each episode: blocks that have each checkpoint once, in random order."""
        draw = random.Random(self.order_seed).random  # of all generators the one that never changes
        blocks = (sorted(range(len(self.checkpoints)), key=lambda _: draw()) for _ in range(self.episodes))
        return [policy for block in blocks for policy in block]

    def differences(self, other: Settings) -> list[str]:
        """What distinguishes two, each as "what: mine against theirs". The order's seed may be drawn: it is none."""
        found = []
        if self.names != other.names:
            found.append(f"checkpoints: {', '.join(self.names)} against {', '.join(other.names)}")
        else:
            changed = [mine["file"] for mine, theirs in zip(self.checkpoints, other.checkpoints) if mine != theirs]
            found += [f"checkpoint {name}: its content has changed" for name in changed]
        for key in ("episodes", "seed", "verdict", "stochastic"):
            if getattr(self, key) != getattr(other, key):
                found.append(f"{key}: {getattr(self, key)} against {getattr(other, key)}")
        env = EnvRecord.from_dict(self.env).differences(EnvRecord.from_dict(other.env))
        return found + [
            f"env option {key}: {values}" if key != "env" else f"env: {values}" for key, values in env.items()
        ]


@dataclass(frozen=True)
class Trial:
    """One attempt at an episode.

    episode: its place in the order. result: SUCCESS, FAILURE or VOID, for `reason`. judged_by: person or signal.
    signal: the environment's own success signal. by_hand: steps of a person, in `takeovers` stretches. reset_s: until
    the first step; episode_s: until the last; verdict_s: until the verdict.
    """

    attempt: int
    episode: int
    result: str
    reason: str = ""
    judged_by: str = ""
    signal: bool = False
    steps: int = 0
    by_hand: int = 0
    takeovers: int = 0
    reset_s: float = 0.0
    episode_s: float = 0.0
    verdict_s: float = 0.0
    video: str = ""

    @property
    def counts(self) -> bool:
        return self.result != VOID

    @property
    def succeeded(self) -> bool:
        """By itself: an episode with an intervention counts as a failure, whatever its verdict."""
        return self.result == SUCCESS and not self.by_hand


class Ledger:
    """Opens the evaluation in `folder`, or begins it. trials: those so far. Only one process can have it open.

    same_order: whether one that is there must have the order of `settings`; it has its own otherwise.
    Raises UserError for a folder that is in use or damaged, or has an evaluation with other settings.
    """

    def __init__(self, folder: Path, settings: Settings, same_order: bool = False) -> None:
        self.folder, self.settings, self._same_order = folder, settings, same_order
        self.trials: list[Trial] = []
        self._attempts = 0
        self._others: list[str] = []  # files of these names that are not ours
        try:
            make_folder(folder)
            self._file = os.open(folder / EPISODES, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}") from None
        if not try_lock(self._file):
            os.close(self._file)
            raise UserError(f"{folder}: another tools.evaluate is running there")
        try:
            self._check_own()
            self._read()
        except BaseException:
            self.close()
            raise

    @property
    def remaining(self) -> list[int]:
        """Episodes without a result, in their order."""
        done = {trial.episode for trial in self.trials if trial.counts}
        return [episode for episode in range(self.settings.total) if episode not in done]

    def begin(self, episode: int) -> int:
        """Note that an attempt begins, and return its number."""
        self._append({"attempt": self._attempts, "episode": episode, "begun_s": time.time()})
        self._attempts += 1
        return self._attempts - 1

    def end(self, trial: Trial) -> None:
        """Add the result of the attempt that began last. It is on the disk when this returns."""
        self._append(dataclasses.asdict(trial))
        self.trials.append(trial)

    def close(self) -> None:
        """Nothing is left of an evaluation in which nothing began."""
        if not os.fstat(self._file).st_size:
            with contextlib.suppress(OSError):  # something else is there
                (self.folder / EPISODES).unlink()
                if SETTINGS not in self._others:
                    (self.folder / SETTINGS).unlink(missing_ok=True)
                self.folder.rmdir()
        os.close(self._file)

    def _check_own(self) -> None:
        """Raise UserError where a new evaluation would take the place of other files."""
        if os.fstat(self._file).st_size:
            return
        self._others = [name for name in (SETTINGS, RESULT_JSON, RESULT_TABLE) if (self.folder / name).exists()]
        with contextlib.suppress(UserError):
            read_settings(self.folder)  # of an evaluation that was killed before its first episode
            self._others.remove(SETTINGS)
        if self._others:
            raise UserError(f"{self.folder}: has a {self._others[0]} of something else; choose another --out")

    def _read(self) -> None:
        path = self.folder / EPISODES
        whole = path.read_bytes()
        lines = whole.split(b"\n")
        if lines[-1]:  # of a process that was killed while it wrote
            os.ftruncate(self._file, len(whole) - len(lines[-1]))
        if len(lines) == 1:
            return
        self._continue()
        begun: dict[int, int] = {}  # attempts without a result -> episode
        for number, line in enumerate(lines[:-1], 1):
            try:
                data = json.loads(line)
                if "result" in data:
                    trial = build(Trial, data)
                    if begun.pop(trial.attempt) != trial.episode or (
                        trial.counts and trial.episode not in self.remaining
                    ):
                        raise ValueError("counted twice")
                    self.trials.append(trial)
                else:
                    begun[data["attempt"]] = data["episode"]
                    self._attempts = data["attempt"] + 1
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}: line {number} is damaged; restore the file, or use another --out") from None
        for attempt, episode in begun.items():
            self.end(Trial(attempt, episode, VOID, KILLED))

    def start(self) -> None:
        """Everything has been checked: keep the settings, if this begins."""
        if self._attempts:
            return
        try:
            with written(self.folder / SETTINGS) as file:
                file.write(json.dumps(dataclasses.asdict(self.settings), indent=1).encode() + b"\n")
            sync_folder(self.folder)
        except OSError as error:
            raise UserError(f"{self.folder / SETTINGS}: cannot be written: {error.strerror}") from None

    def _continue(self) -> None:
        """Take over the order of the evaluation that is there. Raises UserError where it has other settings."""
        before = read_settings(self.folder)
        found = before.differences(self.settings)
        if self._same_order and before.order_seed != self.settings.order_seed:
            found.append(f"order_seed: {before.order_seed} against {self.settings.order_seed}")
        if found:
            raise UserError(
                f"{self.folder}: cannot be continued, it was begun with other settings (first): {'; '.join(found)}; "
                "begin another with another --out"
            )
        self.settings = before

    def _append(self, data: dict[str, Any]) -> None:
        line = json.dumps(data).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            path = self.folder / EPISODES
            raise UserError(
                f"{path}: cannot be written: {error.strerror}; the episode does not count: make room, and resume"
            ) from None


def read_settings(folder: Path) -> Settings:
    """Of the evaluation in `folder`. Raises UserError."""
    try:
        return build(Settings, json.loads((folder / SETTINGS).read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / SETTINGS}: cannot be read: {error!s:.200}") from None


def drop_unfinished(folder: Path) -> None:
    """Videos that a killed process was writing."""
    for left in folder.glob(".*.part"):
        left.unlink(missing_ok=True)


def by_policy(settings: Settings, trials: Sequence[Trial]) -> list[dict[int, Trial]]:
    """For each checkpoint: block -> its counted trial."""
    order, found = settings.order(), [dict[int, Trial]() for _ in settings.checkpoints]
    for trial in trials:
        if trial.counts:
            found[order[trial.episode]][trial.episode // len(found)] = trial
    return found
