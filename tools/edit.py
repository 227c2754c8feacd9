"""Mark recorded episodes as success or failure, cut them, drop them; the originals stay until --purge.

  python -m tools.edit demos/lift --failure 3,7           episodes 3 and 7 (the number in the file's name) failed
  python -m tools.edit demos/lift --cut 12:40:160         keep episode 12's steps 40 to 159
  python -m tools.edit demos/lift --drop 5                leave it out; no later episode takes its number
  python -m tools.edit demos/lift --undo 3,5              back to what was recorded
  python -m tools.edit demos/lift                         what has been edited
  python -m tools.edit demos/lift --purge                 the originals go for good: nothing can be undone any more

tools.inspect shows what there is to edit. A mark is a person's verdict and wins over the environment's signal (in the
file as `env_success`): a success that only the person saw gets a reward of 1 at its last step and terminates there, a
failure that the environment took for a success loses that reward; another mark takes the first one's place. What is
kept of a cut episode ends truncated, unless its end is the episode's own; a success marked at an end cut off is none.

Originals lie in FOLDER/originals/, where nothing else looks. Each edit happens whole or not at all, however it is
interrupted. A folder that a learner or tools.collect is at is left alone.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from agent import cli
from agent.data.episode_file import SUFFIX, read_episode, write_episode
from agent.files import try_lock
from agent.run.records import LOG_FILE
from agent.spec import STEP_COLUMNS, Episode, UserError, plural
from agent.verdict import with_verdict, without_verdict
from tools.common.edit_journal import forget_all, take_back_interrupted
from tools.common.originals import ORIGINALS, keep_original, named, undo


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[list[str]]:
    """Keep learner and tools.collect out of `folder`. Raises UserError while one is at it.

    An edit whose process was killed is taken back first; yields a line about each.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    with contextlib.ExitStack() as stack:
        for place in (folder, folder.parent / LOG_FILE):  # the second is a learner's, if this is a run's folder
            if place.exists():
                handle = os.open(place, os.O_RDONLY)
                stack.callback(os.close, handle)
                if not try_lock(handle):
                    raise UserError(f"{folder}: a learner or tools.collect is using it; edit when it has ended")
        with named(folder):
            lines = take_back_interrupted(folder)
        yield lines


def find(folder: Path, word: str) -> Path:
    """Where the episode `word` is: a number or a file's name. It need not be there any more, if its original is."""
    whole = word.removesuffix(SUFFIX) + SUFFIX
    there = any(os.path.isfile(place / whole) for place in (folder, folder / ORIGINALS))
    if there and not whole.startswith(".") and "/" not in whole:  # without a look at all names of a large folder
        return folder / whole
    names = {path.name for place in (folder, folder / ORIGINALS) for path in place.glob(f"[!.]*{SUFFIX}")}
    matching = [name for name in names if name.removesuffix(SUFFIX) == word.removesuffix(SUFFIX)]
    if not matching and word.isdecimal():
        matching = [name for name in names if re.search(rf"(?:^|\D)0*{int(word)}{re.escape(SUFFIX)}$", name)]
    if len(matching) != 1:
        what = f"{len(matching)} episodes are" if matching else "no episode is"
        raise UserError(f"{folder}: {what} called '{word}'")
    return folder / matching[0]


def change(path: Path, edit: Callable[[Episode], Episode]) -> Episode:
    """Put what `edit` makes of the episode in its place. Raises UserError, and changes nothing, when it cannot."""
    if not path.exists():
        raise UserError(f"{path}: was dropped; --undo first")
    episode = read_episode(path)
    changed = edit(episode)
    changed.check(episode.spec)
    with named(path):
        keep_original(path)
        write_episode(path, changed)
    return changed


def mark(path: Path, word: str) -> Episode:
    """word: "success" or "failure"."""
    return change(path, lambda episode: with_verdict(episode, word))


def part(episode: Episode, first: int, end: int) -> Episode:
    """Its steps from `first` to before `end`; meta["cut"] has them, counted in what was recorded.

    Raises ValueError for steps that it has not. A person's "success" goes with the last step, a "failure" stays.
    """
    steps = len(episode)
    if not 0 <= first < end <= steps:
        raise ValueError(f"cut {first}:{end}: it has the steps 0 to {steps - 1}")
    if end < steps and episode.meta.get("marked") == "success":
        episode = without_verdict(episode)
    columns = {name: getattr(episode, name)[first:end].copy() for name in ("actions", "rewards", *STEP_COLUMNS)}
    if end < steps:
        columns["truncated"][-1] = True
    begun = episode.meta.get("cut", [0, 0])[0]
    meta = {**episode.meta, "cut": [begun + first, begun + end]}
    if "unmarked" in meta:
        meta["unmarked"] = [[k - first, *values] for k, *values in meta["unmarked"] if first <= k < end]
    observations = {key: rows[first : end + 1] for key, rows in episode.observations.items()}
    return dataclasses.replace(episode, observations=observations, meta=meta, **columns)


def cut(path: Path, first: int, end: int) -> Episode:
    """Keep the steps from `first` to before `end`."""

    def edit(episode: Episode) -> Episode:
        try:
            return part(episode, first, end)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None

    return change(path, edit)


def drop(path: Path) -> None:
    if path.exists():
        with named(path):
            keep_original(path)
            path.unlink()


def edited(folder: Path) -> list[str]:
    """A line for each episode that has an original."""
    lines = []
    for original in sorted((folder / ORIGINALS).glob(f"[!.]*{SUFFIX}")):
        path = folder / original.name
        what = ["dropped"]
        if path.exists():
            before, now = read_episode(original), read_episode(path)
            what = [f"marked {now.meta['marked']}"] if now.meta.get("marked") != before.meta.get("marked") else []
            what += [f"cut to {':'.join(map(str, now.meta['cut']))}"] if len(now) != len(before) else []
        lines.append(f"{original.name}: {', '.join(what) or 'as it was'}")
    return lines


def purge(folder: Path) -> int:
    """How many originals went."""
    originals = sorted((folder / ORIGINALS).glob(f"*{SUFFIX}"))
    with named(folder):
        forget_all(folder)
    for original in originals:
        with named(original):
            original.unlink()
    with contextlib.suppress(OSError):
        (folder / ORIGINALS).rmdir()
    return len(originals)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of episodes")
    for name, what in (("success", "they succeeded"), ("failure", "they failed"), ("drop", "leave them out")):
        parser.add_argument(f"--{name}", default="", metavar="K,K,..", help=what)
    parser.add_argument("--undo", default="", metavar="K,K,..", help="back to what was recorded")
    parser.add_argument("--cut", action="append", default=[], metavar="K:A:B", help="keep steps A to B - 1; repeatable")
    parser.add_argument("--purge", action="store_true", help="remove the originals")


def cuts(folder: Path, words: list[str]) -> list[tuple[Path, int, int]]:
    found = []
    for word in words:
        try:
            name, first, end = word.rsplit(":", 2)
            found.append((find(folder, name), int(first), int(end)))
        except ValueError:
            raise UserError(f"--cut {word}: EPISODE:FIRST:END, such as 12:40:160") from None
    return found


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.edit").flags
    folder = flags.folder
    with claimed(folder):  # logs what it takes back
        asked = {
            name: [find(folder, word) for word in getattr(flags, name).split(",") if word]
            for name in ("undo", "success", "failure", "drop")
        }
        shorter = cuts(folder, flags.cut)
        if asked["undo"] and (shorter or asked["success"] or asked["failure"] or asked["drop"]):
            raise UserError("--undo: by itself, before other edits")
        for path in asked["undo"]:
            undo(path)
            print(f"{path.name}: as it was recorded")
        for path, first, end in shorter:
            print(f"{path.name}: {plural(len(cut(path, first, end)), 'step')} kept")
        for word in ("success", "failure"):
            for path in asked[word]:
                episode = mark(path, word)
                print(f"{path.name}: {word}, return {episode.episode_return:g}")
        for path in asked["drop"]:
            drop(path)
            print(f"{path.name}: dropped")
        if flags.purge:
            print(f"{purge(folder)} originals removed")
        elif not (shorter or any(asked.values())):
            print("\n".join(edited(folder)) or "nothing has been edited")


if __name__ == "__main__":
    cli.run(main)
