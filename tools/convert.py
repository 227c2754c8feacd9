"""Demonstrations from and to the formats that others use.

  python -m tools.convert demos/lift --to robomimic --out lift.hdf5       ours -> theirs
  python -m tools.convert recordings/demo.hdf5 --out demos/lift_human     theirs -> ours

Formats:  episodes   a folder of our own episode files (what --to means where nothing is said)
          robomimic  one HDF5 file
          robosuite  raw recordings of its collect_human_demonstrations (reads only). Their states are set into today's
                     model and rendered anew; options of the simulator are flags (--image-size 84, --cameras agentview)
          lerobot    LeRobotDataset, a folder of parquet and MP4: writes v3.0, reads v3.0 and v2.1
          minari     a Minari dataset folder (HDF5)
The source's format is found out; --from says it where that fails.

What a source does not say is never made up. It is asked for, by
  --reward sparse-at-end | success | zero      1 at each episode's last step (which is a success then), 1 where there is
                                     a success and 0 elsewhere, or no reward at all
  --success end | never | NUMBER     every episode at its last step, none, or where the reward reaches NUMBER
  --actions clip | scale             for values beyond [-1, 1]; scale maps each dimension's range to [-1, 1]
  --end success                      each episode ends at its first success, as the simulator's do
  --final repeat | drop              no observation after the last action: repeat the one before, or drop that action
Names: --rename SOURCE=NAME and --drop SOURCE (repeatable), or --map FILE, YAML with rename: {SOURCE: NAME}, drop: [..].

OUT must not exist yet; it appears whole or not at all. What was renamed, dropped, clipped and cut is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import glob
import importlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agent import cli, yaml_file
from agent.files import make_folder, move
from agent.spec import Episode, SpecError, UserError
from tools.formats.foreign import Choices, Report, renamed
from tools.rollout import env_options, env_record

READS = ("episodes", "lerobot", "minari", "robosuite", "robomimic")  # in the order in which they are tried
SAID = ("reward", "success", "actions", "final", "end", "no_ops", "env")  # what is asked of other formats only
WRITES = ("episodes", "robomimic", "lerobot", "minari")
OPTIONS = {
    "reward": ("sparse-at-end", "success", "zero"),
    "actions": ("clip", "scale"),
    "final": ("repeat", "drop"),
    "end": ("source", "success"),
    "no_ops": ("keep", "drop"),
}


def module(name: str) -> Any:
    return importlib.import_module(f"tools.formats.{name}")


def format_of(path: Path) -> str:
    """The name of the source's format. Raises UserError where it is none that is known."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    for name in READS:
        try:
            if module(name).detects(path):
                return name
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    raise UserError(f"{path}: none of {', '.join(READS)}; --from says which it is meant to be")


class Tally:
    """Passes episodes on, checked, and remembers what a report needs."""

    def __init__(self, source: Path, episodes: Iterable[Episode]) -> None:
        self._source, self._episodes = source, episodes
        self.lengths: list[int] = []
        self.successes = 0
        self.keys: dict[str, str] = {}

    def __iter__(self) -> Iterator[Episode]:
        first = None
        for number, episode in enumerate(self._episodes):
            try:
                episode.check(episode.spec)
            except SpecError as error:
                raise UserError(f"{self._source}: episode {number}: {error}") from None
            first = first or episode.spec
            if differences := first.differences(episode.spec):
                raise UserError(f"{self._source}: episode {number} differs from episode 0: {'; '.join(differences)}")
            self.keys = {key: f"{key} {'x'.join(map(str, first.shape(key)))}" for key in first.keys}
            self.lengths.append(len(episode))
            self.successes += episode.succeeded
            yield episode

    def __str__(self) -> str:
        steps = f"{sum(self.lengths):,} steps ({min(self.lengths)} to {max(self.lengths)} an episode)"
        found = f"{len(self.lengths)} episodes, {steps}, {self.successes} succeed"
        return f"{found}\nobservations: {', '.join(self.keys.values())}"


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A path beside `out` to write to; it takes `out`'s name once all is written."""
    if out.exists():
        raise UserError(f"--out {out}: is there already; name one that is not")
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        make_folder(out.parent)
        for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):  # of a conversion that was killed
            if _ended(left.suffixes[-2][1:]):
                _remove(left)
        yield aside
        move(aside, out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from None
    finally:
        _remove(aside)


def _ended(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return True
    except OSError:
        pass
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def convert(source: Path, out: Path, choices: Choices, reads: str | None = None, writes: str = "episodes") -> str:
    """Convert, and return the report. Raises UserError, naming file and episode, and leaves nothing behind then."""
    reads = reads or format_of(source)
    report = Report()
    if choices.sim and reads != "robosuite" and choices.env is None:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in choices.sim)
        raise UserError(f"{flags}: only robosuite's raw recordings are rendered anew; --resize N changes images' size")
    if reads == "episodes":
        plain = Choices()
        said = [name for name in SAID if getattr(choices, name) != getattr(plain, name)]
        if said:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in said)
            raise UserError(
                f"{flags}: {source} has our own episodes, which say that themselves; tools.edit marks and cuts"
            )
    for name, used, where in (
        ("no_ops", reads == "robosuite", "steps that do nothing are told apart in robosuite's raw recordings only"),
        ("fps", writes == "lerobot", "only a LeRobotDataset has a rate of its own"),
        ("instruction", writes == "lerobot", "only a LeRobotDataset has the task in words"),
    ):
        if not used and getattr(choices, name) != getattr(Choices(), name):
            raise UserError(f"--{name.replace('_', '-')}: {where}; {source} ({reads}) becomes {out} ({writes})")
    if choices.actions == "scale" and not hasattr(module(reads), "actions"):
        raise UserError(
            f"--actions scale: {source}: the actions of {reads} are what its simulator took; --actions clip"
        )
    if choices.actions == "scale":
        ranges = [
            (rows.min(axis=0), rows.max(axis=0)) for rows in whole(source, module(reads).actions(source)) if len(rows)
        ]
        choices = dataclasses.replace(choices, action_range=np.array([_lowest(ranges), _highest(ranges)]))
    with appearing(out) as aside:
        episodes = whole(source, module(reads).read(source, choices, report))
        if reads == "episodes":
            episodes = (renamed(episode, choices, report) for episode in episodes)
        tally = Tally(source, episodes)
        module(writes).write(aside, tally, choices, report)
        if not tally.lengths:
            raise UserError(f"{source}: no episodes in it")
    return f"{source} ({reads}) -> {out} ({writes})\n{tally}\n{report}".strip()


def whole(source: Path, episodes: Iterator[Any]) -> Iterator[Any]:
    """`episodes`, read from `source`; whatever a damaged or incomplete one does to its reader becomes one line."""
    try:
        yield from episodes
    except UserError:
        raise
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        missing = re.search(r"object '(.+)' doesn't exist", str(error))  # in HDF5's words
        what = f"'{missing[1]}' is missing" if missing else f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{source}: cannot be read: {' '.join(what.split())}") from error


def _lowest(ranges: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.min([low for low, _ in ranges], axis=0)


def _highest(ranges: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.max([high for _, high in ranges], axis=0)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", type=Path, metavar="SOURCE", help="file or folder to read")
    parser.add_argument("--out", type=Path, metavar="PATH", help="file or folder to write")
    parser.add_argument("--from", dest="reads", metavar="FORMAT", help=", ".join(READS))
    parser.add_argument("--to", dest="writes", default="episodes", metavar="FORMAT", help=", ".join(WRITES))
    parser.add_argument("--reward", metavar="HOW", help="sparse-at-end, success or zero")
    parser.add_argument("--success", metavar="WHEN", help="end, never, or a reward that means success")
    parser.add_argument("--actions", metavar="HOW", help="clip or scale")
    parser.add_argument("--final", default="repeat", metavar="HOW", help="repeat or drop")
    parser.add_argument("--end", default="source", metavar="WHERE", help="source, or success: cut what comes after it")
    parser.add_argument("--no-ops", default="keep", metavar="HOW", help="robosuite: keep or drop steps that do nothing")
    parser.add_argument("--resize", type=int, metavar="N", help="images of N x N pixels")
    parser.add_argument("--rename", action="append", default=[], metavar="SOURCE=NAME", help="repeatable")
    parser.add_argument("--drop", action="append", default=[], metavar="SOURCE", help="repeatable")
    parser.add_argument("--map", metavar="FILE", help="YAML with rename and drop")
    parser.add_argument("--fps", type=float, metavar="N", help="lerobot: frames a second, where no episode says it")
    parser.add_argument("--instruction", metavar="TEXT", help="lerobot: the task, in words")


def choices_of(arguments: cli.Arguments) -> Choices:
    flags = arguments.flags
    for name, known in OPTIONS.items():
        if (value := getattr(flags, name)) is not None and value not in known:
            raise UserError(f"--{name.replace('_', '-')} {value}: {' or '.join(known)}{cli.nearest(value, known)}")
    if flags.success not in (None, "end", "never"):
        try:
            if not math.isfinite(float(flags.success)):
                raise ValueError
        except ValueError:
            raise UserError(f"--success {flags.success}: end, never, or a number") from None
    if flags.resize is not None and flags.resize < 1:
        raise UserError(f"--resize {flags.resize}: at least 1")
    if flags.fps is not None and not 1 <= flags.fps <= 240:
        raise UserError(f"--fps {flags.fps:g}: expected 1 to 240")
    rename, drop = mapping(flags.map) if flags.map else ({}, [])
    for pair in flags.rename:
        source, equals, name = pair.partition("=")
        if not (source and equals and name):
            raise UserError(f"--rename {pair}: expected SOURCE=NAME")
        rename[source] = name
    asked = set(arguments.settings.get("env", {})) - {"name"}
    return Choices(
        rename=rename,
        drop=[*drop, *flags.drop],
        reward=flags.reward,
        success=flags.success,
        actions=flags.actions,
        final=flags.final,
        resize=flags.resize,
        no_ops=flags.no_ops,
        end=flags.end,
        sim={key: value for key, value in arguments.env()[1].items() if key in asked},
        env=env_record(*arguments.env()) if flags.env else None,
        fps=flags.fps,
        instruction=flags.instruction,
    )


def mapping(path: str) -> tuple[dict[str, str], list[str]]:
    """rename and drop of a YAML file. Raises UserError naming it."""
    try:
        data = yaml_file.load(path) or {}
        rename, drop = data.pop("rename", None) or {}, data.pop("drop", None) or []
        if data or not all(isinstance(word, str) for word in [*rename, *rename.values(), *drop]):
            raise ValueError("expected rename: {SOURCE: NAME} and drop: [SOURCE, ..]")
    except UserError as error:
        raise UserError(f"--map {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--map {path}: {error}") from None
    return dict(rename), list(drop)


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options, prog="python -m tools.convert")
    flags = arguments.flags
    if not flags.source or not flags.out:
        raise UserError("both a SOURCE and --out PATH are needed")
    for flag, value, known in (("--from", flags.reads, READS), ("--to", flags.writes, WRITES)):
        if value is not None and value not in known:
            raise UserError(f"{flag} {value}: the formats are {', '.join(known)}{cli.nearest(value, known)}")
    print(convert(flags.source, flags.out, choices_of(arguments), flags.reads, flags.writes))


if __name__ == "__main__":
    cli.run(main)
