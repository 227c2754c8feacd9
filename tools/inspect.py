"""What is in these recordings? Reads every episode, prints a report and draws a contact sheet.

  python -m tools.inspect demos/lift
  python -m tools.inspect runs/a/episodes demos/lift/episode_000003.hdf5 --json

The report: episodes, lengths, success rate, raw returns, environment and options, who acted, shapes, and the range of
every action dimension (one that never moves, or is always at its limit, is a fault of the recording); and the numbers
of the states that hardly vary (a fault of the recording, unless the task holds them still). Flags name the
episodes in which something looks wrong: a black or frozen camera, idle parts, clipped actions, jumps, a near duplicate
of an earlier one (tools/common/quality.py).

Damaged files, and files whose cameras, states or actions differ from the first one's, are named on stderr and left out
of the figures; the exit code is still 0, unless nothing could be read (2). Only the contact sheet is written, to
--sheet PATH or contact_sheet.png beside the episodes (rows are episodes, columns are frames in time, camera by camera).
Nothing else changes (tools.edit marks, cuts and drops episodes); Ctrl-C stops at any time.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent import cli
from agent.data.episode_file import EpisodeFileError, episode_paths, read_episode
from agent.data.state_statistics import StateStatistics
from agent.env_record import EnvRecord
from agent.progress import Progress
from agent.spec import Episode, Spec, UserError, plural
from tools.common import quality
from tools.common.video import GREEN, GREY, RED, enlarge, with_text

SHEET_ROWS, SHEET_FRAMES, THUMBNAIL_HEIGHT = 12, 6, 96
SHOWN_NAMES = 6  # of the episodes with a flag


class Survey:
    """What has been seen so far; of the images, only a row of the contact sheet per chosen episode."""

    def __init__(self) -> None:
        self.spec: Spec | None = None
        self.first: Path | None = None
        self.damaged: list[str] = []
        self.different: list[str] = []
        self.rows: list[np.ndarray] = []
        self.states = StateStatistics({})
        self._episodes: list[Episode] = []  # without observations
        self._flags: dict[str, list[quality.Flag]] = {}
        self._signatures: dict[str, tuple[int, np.ndarray]] = {}

    def add(self, path: Path, with_row: bool) -> None:
        """Take `path` in; returns nothing, a file at fault ends up in `damaged` or `different`."""
        try:
            episode = read_episode(path)
        except EpisodeFileError as error:
            self.damaged.append(str(error))
            return
        if self.spec is None:
            self.spec, self.first = episode.spec, path
            self.states = StateStatistics(self.spec.states)
        elif differences := self.spec.differences(episode.spec):
            self.different.append(f"{path}: differs from {self.first}: {'; '.join(differences)}")
            return
        if with_row and self.spec.cameras:
            self.rows.append(sheet_row(path.name, episode))
        self.states.add(episode.observations)
        self._flags[str(path)] = quality.flags(episode)
        self._signatures[str(path)] = len(episode), quality.signature(episode)
        episode.observations = {}
        self._episodes.append(episode)

    def flags(self) -> dict[str, list[quality.Flag]]:
        """File -> its flags, near duplicates among them; those without any are left out."""
        found = {name: list(flags) for name, flags in self._flags.items()}
        for name, other in quality.duplicates(self._signatures).items():
            found[name].append(quality.Flag("duplicate", f"nearly equal to {Path(other).name}"))
        return {name: flags for name, flags in found.items() if flags}

    def report(self) -> dict[str, Any]:
        """JSON-able figures of what could be read."""
        episodes, spec = self._episodes, self.spec
        assert spec is not None
        lengths = np.array([len(e) for e in episodes])
        returns = np.array([e.episode_return for e in episodes])
        actions = np.concatenate([e.actions for e in episodes]).astype(np.float64)  # (steps, A)
        return {
            "episodes": len(episodes),
            "steps": int(lengths.sum()),
            "length": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
            "success": float(np.mean([e.succeeded for e in episodes])),
            "return": {"min": returns.min().item(), "mean": returns.mean().item(), "max": returns.max().item()},
            "ends": {
                "terminated": int(sum(e.terminated[-1] for e in episodes)),
                "truncated": int(sum(e.truncated[-1] and not e.terminated[-1] for e in episodes)),
            },
            "intervention_steps": float(np.concatenate([e.interventions for e in episodes]).mean()),
            "env": counted(e.meta.get("env") for e in episodes),
            "policy": counted(e.meta.get("policy") for e in episodes),
            "robot": counted(e.meta.get("robot") for e in episodes),
            "observations": {k: {"shape": list(spec.shape(k)), "dtype": str(spec.dtype(k))} for k in spec.keys},
            "flags": [
                {"episode": name, "kind": flag.kind, "text": flag.text}
                for name, flags in self.flags().items()
                for flag in flags
            ],
            "still_states": [dataclasses.asdict(state) for state in self.states.still()],
            "actions": [
                {
                    "min": column.min().item(),
                    "max": column.max().item(),
                    "mean": column.mean().item(),
                    "std": column.std().item(),
                    "at_limits": float((np.abs(column) >= quality.AT_LIMIT).mean()),
                }
                for column in actions.T
            ],
            "damaged": self.damaged,
            "different": self.different,
        }


def counted(values: Iterable[Any]) -> list[dict[str, Any]]:
    """[{"value": v, "episodes": n}], the most frequent first."""
    counts = Counter(json.dumps(value, sort_keys=True) for value in values)
    return [{"value": json.loads(text), "episodes": count} for text, count in counts.most_common()]


def sheet_row(name: str, episode: Episode) -> np.ndarray:
    """Evenly spaced frames of every camera, from the first observation to the final one, under a line of text."""
    steps = np.linspace(0, len(episode), SHEET_FRAMES).round().astype(int)
    strips = []
    for camera in episode.spec.cameras:
        frames = [enlarge(episode.observations[camera][step], THUMBNAIL_HEIGHT) for step in steps]
        tiles = [with_text(frame, f"{camera} {step}", GREY) for frame, step in zip(frames, steps, strict=True)]
        strips += [np.pad(tile, ((0, 0), (0, 3), (0, 0))) for tile in tiles]
    row = np.concatenate(strips, axis=1)
    text = f"{name}   {'success' if episode.succeeded else 'no success'}   {plural(len(episode), 'step')}"
    text += f"   return {episode.episode_return:.4g}"
    if episode.interventions.any():
        text += f"   intervention {episode.interventions.mean():.0%}"
    return with_text(row, text, GREEN if episode.succeeded else RED)


def text_of(report: dict[str, Any], still: str) -> str:
    """The report for people. still: StateStatistics.report()."""
    length, returns, ends = report["length"], report["return"], report["ends"]
    lines = [
        f"episodes       {report['episodes']}, {plural(report['steps'], 'step')}",
        f"length         {length['min']} to {length['max']}, median {length['median']:g} steps",
        f"success        {report['success']:.2f}",
        f"raw return     {returns['min']:.4g} to {returns['max']:.4g}, mean {returns['mean']:.4g}",
        f"ends           {ends['terminated']} terminated, {ends['truncated']} truncated (time limit, abort)",
        f"interventions  {report['intervention_steps']:.1%} of the steps",
    ]
    for kind in ("policy", "robot"):
        lines.append(f"{kind:15}" + ", ".join(f"{entry['value']} ({entry['episodes']})" for entry in report[kind]))
    for entry in report["env"]:
        env = EnvRecord.from_dict(entry["value"])
        options = ", ".join(f"{key}={value}" for key, value in env.options.items())
        lines.append(f"env            {env.name or 'unknown'} ({entry['episodes']}): {options or 'no options'}")
    for key, entry in report["observations"].items():
        lines.append(f"observation    {key}: {entry['dtype']} {'x'.join(map(str, entry['shape']))}")
    if still:
        lines.append(still)
    marked = quality.counted((Path(each["episode"]).stem, [each["kind"]]) for each in report["flags"])
    for number, (kind, names) in enumerate(marked.items()):
        shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
        lines.append(f"{'' if number else 'flags':15}{kind} ({len(names)}): {shown}")
    lines.append("action            min    max   mean    std   at limits")
    for number, a in enumerate(report["actions"]):
        figures = f"{a['min']:7.2f}{a['max']:7.2f}{a['mean']:7.2f}{a['std']:7.2f}{a['at_limits']:11.0%}"
        lines.append(f"  {number:<12}{figures}" + ("   never moves" if a["std"] == 0 else ""))
    return "\n".join(lines)


def write_sheet(path: Path, rows: list[np.ndarray]) -> None:
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 6), (0, width - row.shape[1]), (0, 0))) for row in rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _, png = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folders of episodes, or episode files")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="where the contact sheet goes")
    parser.add_argument("--no-sheet", action="store_true", help="write nothing at all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(argv: list[str] | None = None) -> None:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.inspect").flags
    paths = episode_paths(flags.paths)
    shown = set(np.linspace(0, len(paths) - 1, SHEET_ROWS).round().astype(int)) if not flags.no_sheet else set()
    survey = Survey()
    with Progress(len(paths), "inspect", "files") as progress:
        for number, path in enumerate(paths):
            survey.add(path, with_row=number in shown)
            progress.show(number + 1)
        if survey.spec is None:
            more = f" (and {len(survey.damaged) - 1} more, none readable)" if len(survey.damaged) > 1 else ""
            raise UserError(survey.damaged[0] + more)
    for line in survey.damaged + survey.different:
        print(f"left out: {line}", file=sys.stderr)
    report = survey.report()
    if survey.rows:
        place = flags.paths[0]
        sheet = flags.sheet or (place if place.is_dir() else place.parent) / "contact_sheet.png"
        write_sheet(sheet, survey.rows)
        report["sheet"] = str(sheet)
    print(json.dumps(report) if flags.json else text_of(report, survey.states.report()))
    if survey.rows and not flags.json:
        print(f"contact sheet  {report['sheet']}")


if __name__ == "__main__":
    cli.run(main)
