"""Demonstrations from and to the formats that others use.

  python -m tools.convert demos/lift --to robomimic --out lift.hdf5       ours -> theirs
  python -m tools.convert recordings/demo.hdf5 --out demos/lift_human     theirs -> ours

Formats:  episodes   a folder of our own episode files (what --to means by default)
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
  --action-range LOW:HIGH | FOLDER   that range, in the source's numbers, or the one that FOLDER was scaled with
  --action-kind absolute | delta | velocity | normalized      what they are; a LeRobotDataset's are taken for absolute
  --end success | each-success       each episode ends at its first success, as the simulator's do; or at each success,
                                     and what follows, up to the last one, is another episode (Adroit, as published)
  --final repeat | drop              no observation after the last action: repeat the one before, or drop that action
Names: --rename SOURCE=NAME and --drop SOURCE (repeatable), or --map FILE, YAML with rename: {SOURCE: NAME}, drop: [..].
--rename SOURCE=actions says which are the actions where a source calls them otherwise.

All episodes are checked before anything is written: what is damaged is listed, and --skip-bad leaves it out.
OUT must not exist yet; it appears whole or not at all. What was renamed, dropped, clipped and cut is printed.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from agent import cli, yaml_file
from agent.action_meaning import KINDS
from agent.spec import Episode, UserError
from tools.common.rollout import env_options, env_record
from tools.formats.common.actions import check_kind, fitting, read_range
from tools.formats.common.foreign import Choices, FormatError, Report
from tools.formats.common.output import DiskError, Tally, appearing
from tools.formats.common.source import Stopped, Survey, explained, going_on, loaded, survey
from tools.formats.format import READERS, WRITERS, format_of, reader, writer

SAID = ("reward", "success", "actions", "final", "end", "no_ops", "env")  # what is asked of other formats only
OPTIONS = {
    "reward": ("sparse-at-end", "success", "zero"),
    "actions": ("clip", "scale"),
    "final": ("repeat", "drop"),
    "end": ("source", "success", "each-success"),
    "no_ops": ("keep", "drop"),
}


def convert(
    source: Path,
    out: Path,
    choices: Choices,
    reads: str | None = None,
    writes: str = "episodes",
    skip_bad: bool = False,
    stop: Callable[[], bool] = going_on,
) -> str:
    """Convert, and return the report. Raises UserError, naming file and episode, and leaves nothing behind then.

    skip_bad: leave out the episodes that are damaged, and report them. stop: asked now and then; Stopped is raised.
    """
    reads = reads or format_of(source)
    _check_choices(source, out, choices, reads, writes)
    left_out = Survey()
    while True:
        try:
            return _converted(source, out, choices, reads, writes, skip_bad, left_out, stop)
        except _Damaged as found:  # one whose images cannot be decoded: seen only now
            left_out.fault(source, found.name, str(found))
            if not skip_bad:
                raise _refusal(source, left_out) from None


class _Damaged(Exception):
    """An episode that is damaged where only decoding it finds out."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _converted(
    source: Path,
    out: Path,
    choices: Choices,
    reads: str,
    writes: str,
    skip_bad: bool,
    left_out: Survey,
    stop: Callable[[], bool],
) -> str:
    report, current = Report(), ""
    known_bad = {name for names in left_out.faults.values() for name in names}
    with appearing(out) as aside, contextlib.ExitStack() as stack:
        with explained(source):
            parts = stack.enter_context(reader(reads).parts(source, choices, report))
        parts = [part for part in parts if part.name.removeprefix(f"{source}: ") not in known_bad]
        found = survey(source, parts, choices, stop)
        if found.faults and not skip_bad:
            raise _refusal(source, found)
        if not found.good:
            raise _refusal(source, found) if found.faults else FormatError(f"{source}: no episodes in it")
        for line in [*left_out.lines(), *found.lines()]:
            report.say(f"left out: {line}")
        if choices.actions == "scale":
            assert found.low is not None
            asked = choices.action_range
            ends = np.array([found.low, found.high]) if asked is None else fitting(asked, len(found.low))
            choices = dataclasses.replace(choices, action_range=ends)

        def each() -> Iterator[Episode]:
            nonlocal current
            for part, episode in loaded(source, found.good, choices, report, stop):
                current = part.name
                yield episode

        tally = Tally(source, each())
        try:
            writer(writes).write(aside, tally, choices, report)
        except FormatError as error:
            raise _Damaged(current, str(error)) from None
    return f"{source} ({reads}) -> {out} ({writes})\n{tally}\n{report}".strip()


def _refusal(source: Path, found: Survey) -> UserError:
    lines = found.lines()
    if len(lines) == 1:
        return UserError(f"{source}: {lines[0]} (--skip-bad leaves out what is damaged)")
    count = sum(map(len, found.faults.values()))
    return UserError("\n  ".join([f"{source}: {count} episodes are damaged; --skip-bad leaves them out", *lines]))


def _check_choices(source: Path, out: Path, choices: Choices, reads: str, writes: str) -> None:
    """Raise UserError for flags that mean nothing between these two formats."""
    if choices.sim and reads != "robosuite" and choices.env is None:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in choices.sim)
        raise UserError(f"{flags}: only robosuite's raw recordings are re-rendered; --resize N changes images' size")
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
        ("filter_key", reads in ("robomimic", "robosuite"), "only robomimic's files have filter keys (mask/...)"),
    ):
        if not used and getattr(choices, name) != getattr(Choices(), name):
            raise UserError(f"--{name.replace('_', '-')}: {where}; {source} ({reads}) becomes {out} ({writes})")
    if choices.actions == "scale" and reads == "robosuite":
        raise UserError(
            f"--actions scale: {source}: the actions of {reads} are what its simulator took; --actions clip"
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", type=Path, metavar="SOURCE", help="file or folder to read")
    parser.add_argument("--out", type=Path, metavar="PATH", help="file or folder to write")
    parser.add_argument("--from", dest="reads", metavar="FORMAT", help=", ".join(READERS))
    parser.add_argument("--to", dest="writes", default="episodes", metavar="FORMAT", help=", ".join(WRITERS))
    parser.add_argument("--reward", metavar="HOW", help="sparse-at-end, success or zero")
    parser.add_argument("--success", metavar="WHEN", help="end, never, or a reward that means success")
    parser.add_argument("--actions", metavar="HOW", help="clip or scale")
    parser.add_argument("--action-range", metavar="RANGE", help="scale: LOW:HIGH, or a folder that was scaled before")
    parser.add_argument("--action-kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--final", default="repeat", metavar="HOW", help="repeat or drop")
    parser.add_argument(
        "--end", default="source", metavar="WHERE", help="source, success (cut what follows) or each-success"
    )
    parser.add_argument("--no-ops", default="keep", metavar="HOW", help="robosuite: keep or drop steps that do nothing")
    parser.add_argument("--resize", type=int, metavar="N", help="images of N x N pixels")
    parser.add_argument("--rename", action="append", default=[], metavar="SOURCE=NAME", help="repeatable")
    parser.add_argument("--drop", action="append", default=[], metavar="SOURCE", help="repeatable")
    parser.add_argument("--map", metavar="FILE", help="YAML with rename and drop")
    parser.add_argument("--fps", type=float, metavar="N", help="lerobot: frames a second, where no episode says it")
    parser.add_argument("--filter-key", metavar="NAME", help="robomimic: the demonstrations that mask/NAME lists")
    parser.add_argument("--skip-bad", action="store_true", help="leave out damaged episodes; they are reported")
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
    check_kind(flags.action_kind)
    if flags.action_range and flags.actions != "scale":
        raise UserError("--action-range: for --actions scale only")
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
        action_range=read_range(flags.action_range) if flags.action_range else None,
        action_kind=flags.action_kind,
        final=flags.final,
        resize=flags.resize,
        no_ops=flags.no_ops,
        end=flags.end,
        sim={key: value for key, value in arguments.env()[1].items() if key in asked},
        env=env_record(*arguments.env()) if flags.env else None,
        fps=flags.fps,
        instruction=flags.instruction,
        filter_key=flags.filter_key,
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


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options, prog="python -m tools.convert")
    flags = arguments.flags
    if missing := ["SOURCE"] * (not flags.source) + ["--out PATH"] * (not flags.out):
        raise UserError(f"missing: {', '.join(missing)}")
    for flag, value, known in (("--from", flags.reads, READERS), ("--to", flags.writes, WRITERS)):
        if value is not None and value not in known:
            raise UserError(f"{flag} {value}: the formats are {', '.join(known)}{cli.nearest(value, known)}")
    choices = choices_of(arguments)
    with cli.Stop() as stop:
        try:
            print(convert(flags.source, flags.out, choices, flags.reads, flags.writes, flags.skip_bad, stop))
        except Stopped:
            print("stopped; nothing was written", file=sys.stderr)
            return stop.exit_code
        except DiskError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    cli.run(main)
