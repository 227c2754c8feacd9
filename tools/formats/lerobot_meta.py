"""What a LeRobotDataset says of itself (meta/info.json, meta/episodes): read once, each value checked for its type."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from agent.spec import UserError
from tools.formats.common.foreign import FormatError, check_pointer
from tools.formats.common.pictures import check_fits

FIELD = re.compile(r"\{(?P<name>\w+)(?P<number>:(?:0(?P<width>[1-9]))?d)?\}")
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}  # bytes of a value; of others 8
LARGEST = 10**9  # episodes, frames, chunks


@dataclass(frozen=True)
class Feature:
    dtype: str  # "video", "image", or a number's
    depth: bool
    names: Any = None  # of its numbers, as they stand there


@dataclass(frozen=True)
class Info:
    """meta/info.json."""

    version: str
    fps: float
    robot: str | None
    features: dict[str, Feature]
    data_path: str
    video_path: Any
    chunks_size: int
    episodes: int | None  # as counted there
    frames: int | None


@dataclass(frozen=True)
class Span:
    """Where an episode's frames are in a video file; ends_s None: where the file ends."""

    file: Path
    begins_s: float
    ends_s: float | None


@dataclass
class Place:
    """Where an episode is: its table and videos, and its task in words. fault: what its row of meta/episodes lacks."""

    number: int
    table: Path
    length: int | None = None
    videos: dict[str, Span] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    fault: str = ""


def _value(data: Any, key: str, kind: str, where: str) -> Any:
    """data[key], checked. kind: text, texts, mapping, count (0, 1, ..), rate (above 0) or seconds (from 0)."""
    if not isinstance(data, Mapping) or data.get(key) is None:
        raise FormatError(f"{where}: '{key}' is missing")
    value = data[key]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    good = {
        "text": isinstance(value, str),
        "texts": isinstance(value, list) and all(isinstance(text, str) for text in value),
        "mapping": isinstance(value, Mapping),
        "count": isinstance(value, int) and number and 0 <= value <= LARGEST,
        "rate": number and 0 < value <= 100_000,
        "seconds": number and 0 <= value <= LARGEST,
    }[kind]
    if not good:
        wanted = {"count": "a whole number", "rate": "a number above 0", "texts": "a list of texts"}.get(kind, kind)
        raise FormatError(f"{where}: '{key}' is {value!r:.60}; expected {wanted}")
    return value


def _optional(data: Any, key: str, kind: str, where: str) -> Any:
    return _value(data, key, kind, where) if isinstance(data, Mapping) and data.get(key) is not None else None


def info_of(path: Path) -> Info:
    """Raises FormatError for what is missing or of another kind, UserError for a version that cannot be read."""
    where = f"{path}: meta/info.json"
    file = path / "meta" / "info.json"
    check_pointer(file)
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{where} is missing or damaged: {' '.join(str(error).split())}") from None
    version = _value(data, "codebase_version", "text", where)
    if version not in ("v2.0", "v2.1") and not version.startswith("v3."):
        raise UserError(f"{path}: LeRobotDataset {version}; v3.0, v2.1 and v2.0 can be read")
    features = {}
    for name, feature in _value(data, "features", "mapping", where).items():
        dtype = _value(feature, "dtype", "text", f"{where}: feature '{name}'")
        described = feature.get("info") or feature.get("video_info") or {}
        told = described if isinstance(described, Mapping) else {}
        depth = any(bool(part.get(key)) for part in (told, feature) for key in ("is_depth_map", "video.is_depth_map"))
        features[name] = Feature(dtype, depth, feature.get("names"))
    return Info(
        version=version,
        fps=float(_value(data, "fps", "rate", where)),
        robot=_optional(data, "robot_type", "text", where),
        features=features,
        data_path=data.get("data_path"),
        video_path=data.get("video_path"),
        chunks_size=_optional(data, "chunks_size", "count", where) or 1000,
        episodes=_optional(data, "total_episodes", "count", where),
        frames=_optional(data, "total_frames", "count", where),
    )


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


def places(path: Path, info: Info) -> list[Place]:
    """Every episode's place, in the order of their numbers; what is wrong with one is its `fault`."""
    found = []
    for where, row in _rows(path, info):
        number = _value(row, "episode_index", "count", where)
        place = Place(number, path)
        try:
            _locate(path, info, where, row, place)
        except FormatError as error:
            place.fault = str(error)
        found.append(place)
    if not found:
        raise FormatError(f"{path}: no episodes in it")
    times = Counter(place.number for place in found)
    for place in found:
        if times[place.number] > 1:
            place.fault = f"{path}: meta/episodes has it more than once"
    return sorted(found, key=lambda place: place.number)


def _rows(path: Path, info: Info) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of meta/episodes (v3) or meta/episodes.jsonl (v2)."""
    if info.version.startswith("v3."):
        for file in sorted(path.glob("meta/episodes/*/*.parquet")):
            table = read_table(file)
            table = table.select([name for name in table.column_names if not name.startswith("stats/")])
            for number, row in enumerate(table.to_pylist()):
                yield f"{file}: row {number}", row
        return
    file = path / "meta" / "episodes.jsonl"
    check_pointer(file)
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if line.strip():
            try:
                yield f"{file}: line {number}", json.loads(line)
            except (ValueError, RecursionError):
                raise FormatError(f"{file}: line {number}: not JSON") from None


def _locate(path: Path, info: Info, where: str, row: dict[str, Any], place: Place) -> None:
    place.length = _optional(row, "length", "count", where)
    place.tasks = _optional(row, "tasks", "texts", where) or []
    videos = [key for key, feature in info.features.items() if feature.dtype == "video" and not feature.depth]
    if info.version.startswith("v3."):
        at = {name: _value(row, f"data/{name}", "count", where) for name in ("chunk_index", "file_index")}
        for key in videos:
            names = {name: _value(row, f"videos/{key}/{name}", "count", where) for name in at}
            begins = float(_value(row, f"videos/{key}/from_timestamp", "seconds", where))
            ends = _optional(row, f"videos/{key}/to_timestamp", "seconds", where)
            place.videos[key] = Span(file_at(path, info.video_path, video_key=key, **names), begins, ends)
    else:
        at = {"episode_chunk": place.number // max(1, info.chunks_size), "episode_index": place.number}
        for key in videos:
            place.videos[key] = Span(file_at(path, info.video_path, video_key=key, **at), 0.0, None)
    place.table = file_at(path, info.data_path, **at)


def read_table(path: Path, without: tuple[str, ...] = ()) -> pyarrow.Table:
    """A parquet file, but for some columns. Raises FormatError naming it when it is none, damaged or too large."""
    check_pointer(path)
    try:
        metadata = parquet.read_metadata(path)
        names = [name for name in metadata.schema.to_arrow_schema().names if name not in without]
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        kept = [column for column in columns if column.path_in_schema.split(".")[0] not in without]
        sizes = [(column.num_values * WIDTHS.get(column.physical_type, 8), column) for column in kept]
        check_fits(sum(max(size, column.total_uncompressed_size) for size, column in sizes))
        return parquet.read_table(path, columns=names, partitioning=None)
    except (OSError, pyarrow.ArrowException) as error:
        raise FormatError(f"{path}: not a parquet file, or damaged: {str(error).splitlines()[0]}") from None
