"""LeRobotDataset: tables (parquet) and videos (MP4) in a folder. Reads v3.0, v2.1 and v2.0; writing is lerobot_write's.

v3 keeps many episodes in a file and says in meta/episodes which one is where; v2 has a file for each. Observations
lose the words before their own name: observation.images.front is 'front' here, observation.state is 'state'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from agent.progress import Progress
from agent.spec import Episode, UserError
from tools.formats import film
from tools.formats.foreign import (
    Choices,
    FormatError,
    Raw,
    Report,
    check_fits,
    check_names,
    picture,
    resized,
    to_episode,
)
from tools.formats.lerobot_write import COLUMNS, EXTRA, write

__all__ = ["actions", "detects", "read", "write"]
OTHER_NAMES = {"complementary_info.is_intervention": "interventions"}
FIELD = re.compile(r"\{(?P<name>\w+)(?P<number>:(?:0(?P<width>[1-9]))?d)?\}")
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}  # bytes of a value; of others 8
BOOKKEEPING = {"timestamp", "frame_index", "episode_index", "index", "task_index", "action", "next.done"}


@dataclass
class Place:
    """Where an episode is: its table, the videos' files with the second at which it begins, and its task in words."""

    number: int
    table: Path
    videos: dict[str, tuple[Path, float]]
    tasks: list[str]


def detects(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


def info_of(path: Path) -> dict[str, Any]:
    try:
        info = json.loads((path / "meta" / "info.json").read_text())
        version = info["codebase_version"]
        if "action" not in info["features"]:
            raise UserError(f"{path}: no feature 'action'; it has {', '.join(info['features'])}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: meta/info.json is missing or damaged: {error!r}") from None
    if version not in ("v2.0", "v2.1") and not version.startswith("v3."):
        raise UserError(f"{path}: LeRobotDataset {version}; v3.0, v2.1 and v2.0 can be read")
    return info


def file_at(path: Path, template: Any, **values: Any) -> Path:
    """The file below `path` that a template of info.json ("data/chunk-{chunk_index:03d}/...") names for these values.

    Templates come with the dataset: {field} and {field:03d} are all that may be in them. Raises FormatError for any
    other, and for a name that leads out of `path`.
    """
    if not isinstance(template, str) or re.search(r"[{}]", FIELD.sub("", template)):
        raise FormatError(
            f"{path}: meta/info.json: a path is {{field}} or {{field:03d}} and plain text, not {template!r:.80}"
        )

    def value(field: re.Match[str]) -> str:
        if field["name"] not in values:
            raise FormatError(f"{path}: meta/info.json: a path with the unknown field '{field['name']:.40}'")
        given = values[field["name"]]
        return f"{int(given):0{field['width'] or 0}d}" if field["number"] else str(given)

    name = PurePosixPath(FIELD.sub(value, template))
    if name.is_absolute() or ".." in name.parts:
        raise FormatError(f"{path}: meta/info.json: a path leads out of the dataset: {str(name)!r:.80}")
    return path / name


def places(path: Path, info: dict[str, Any]) -> list[Place]:
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    found = []
    if info["codebase_version"].startswith("v3."):
        rows = [row for file in sorted(path.glob("meta/episodes/*/*.parquet")) for row in _table(file).to_pylist()]
        for row in rows:
            where = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            begins = {}
            for key in videos:
                at = {name: row[f"videos/{key}/{name}"] for name in where}
                file = file_at(path, info["video_path"], video_key=key, **at)
                begins[key] = (file, float(row[f"videos/{key}/from_timestamp"]))
            found.append(Place(row["episode_index"], file_at(path, info["data_path"], **where), begins, row["tasks"]))
    else:
        lines = (path / "meta" / "episodes.jsonl").read_text().splitlines()
        for row in map(json.loads, filter(None, lines)):
            number = row["episode_index"]
            at = {"episode_chunk": number // info["chunks_size"], "episode_index": number}
            begins = {key: (file_at(path, info["video_path"], video_key=key, **at), 0.0) for key in videos}
            found.append(Place(number, file_at(path, info["data_path"], **at), begins, row.get("tasks", [])))
    if not found:
        raise FormatError(f"{path}: no episodes in it")
    return sorted(found, key=lambda place: place.number)


class Tables:
    """Tables by their paths; the last one is kept, because in v3 many episodes share it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._table: pyarrow.Table | None = None

    def rows(self, place: Place) -> pyarrow.Table:
        if self._table is None or self._path != place.table:
            self._path, self._table = place.table, _table(place.table)
        numbers = self._table["episode_index"].to_numpy()
        return self._table.take(np.flatnonzero(np.ravel(numbers) == place.number))


def _table(path: Path) -> pyarrow.Table:
    try:
        metadata = parquet.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        sizes = [(column.num_values * WIDTHS.get(column.physical_type, 8), column) for column in columns]
        check_fits(sum(max(size, column.total_uncompressed_size) for size, column in sizes))
        return parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise FormatError(f"{path}: not a parquet file, or damaged: {str(error).splitlines()[0]}") from None


def vectors(table: pyarrow.Table, key: str) -> np.ndarray:
    """A column of numbers or of lists of numbers; (T,) or (T, D)."""
    column = table[key].combine_chunks()
    flat = column.flatten() if pyarrow.types.is_nested(column.type) else column
    values = flat.to_numpy(zero_copy_only=False)
    return values if flat is column else values.reshape(len(table), -1)


def actions(path: Path) -> Iterator[np.ndarray]:
    tables = Tables()
    return (vectors(tables.rows(place), "action") for place in places(path, info_of(path)))


def read(path: Path, choices: Choices, report: Report) -> Iterator[Episode]:
    info = info_of(path)
    features, fps = info["features"], float(info["fps"])
    extra = _extra(path)
    names = extra.names if extra else short_names(features)
    check_names(path, set(names.values()), choices)
    report.say(f"LeRobotDataset {info['codebase_version']}: {info.get('robot_type')}, {fps:g} frames a second")
    columns = {**OTHER_NAMES, **COLUMNS}
    for feature in features:
        if feature not in {*names, *columns, *BOOKKEEPING}:
            report.list("dropped", feature)
    found, tables = places(path, info), Tables()
    with Progress(len(found), "read", "episodes") as progress:
        for number, place in enumerate(found):
            rows = tables.rows(place)
            if not len(rows):
                raise FormatError(f"{place.table}: episode {place.number} is not in it")
            raw = Raw(f"{path}: episode {place.number}", {}, vectors(rows, "action"))
            for feature, name in names.items():
                if name not in choices.drop:
                    raw.observations[name] = _observation(rows, place, feature, features[feature], fps, choices)
            raw.columns = {ours: vectors(rows, c).ravel() for c, ours in columns.items() if c in rows.column_names}
            raw.columns.setdefault("times_s", vectors(rows, "timestamp").ravel())
            raw.dones = vectors(rows, "next.done").ravel() if "next.done" in rows.column_names else None
            raw.origin = {
                "robot": info.get("robot_type"),
                "instruction": "; ".join(place.tasks),
                "fps": fps,
                "source": {"format": "lerobot", "folder": path.name, "episode": place.number},
            }
            if extra:
                extra.complete(raw, place.number, choices)
            yield to_episode(raw, choices, report)
            progress.show(number + 1)


def short_names(features: dict[str, Any]) -> dict[str, str]:
    """Feature -> the name that it gets here."""
    names: dict[str, str] = {}
    for feature in features:
        if feature.startswith("observation."):
            short = feature.removeprefix("observation.").removeprefix("images.")
            names[feature] = short if short not in names.values() else feature
    return names


def _observation(
    rows: pyarrow.Table, place: Place, feature: str, kind: dict[str, Any], fps: float, choices: Choices
) -> np.ndarray:
    if kind["dtype"] == "video":
        file, begins = place.videos[feature]
        return film.frames(file, begins, len(rows), fps, choices.resize)
    if kind["dtype"] == "image":
        return np.stack(
            [resized(picture(cell["bytes"])[None], choices.resize)[0] for cell in rows[feature].to_pylist()]
        )
    return vectors(rows, feature).reshape(len(rows), -1)


class _Extra:
    """What LeRobot has no place for, from the table beside: names, meta, and what was seen after the last action."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._rows = {row["episode_index"]: row for row in table.to_pylist()}
        self.names: dict[str, str] = json.loads(table.schema.metadata[b"names"])

    def complete(self, raw: Raw, number: int, choices: Choices) -> None:
        row = self._rows.get(number)
        if row is None:
            return  # an episode that somebody added
        raw.meta = json.loads(row["meta"])
        for name, seen in raw.observations.items():
            value = row[f"final/{name}"]
            last = resized(picture(value)[None], choices.resize) if isinstance(value, bytes) else [value]
            raw.observations[name] = np.concatenate([seen, np.asarray(last, seen.dtype)])


def _extra(path: Path) -> _Extra | None:
    return _Extra(_table(path / EXTRA)) if (path / EXTRA).is_file() else None
