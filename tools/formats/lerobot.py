"""LeRobotDataset: tables (parquet) and videos (MP4) in a folder. Reads v3.0, v2.1 and v2.0; writing is lerobot_write's.

v3 keeps many episodes in a file and says in meta/episodes which one is where; v2 has a file for each. Observations
lose the words before their own name: observation.images.front is 'front' here, observation.state is 'state'.

A row's picture is the frame that is shown at its timestamp, whatever rows the table has lost; an episode whose
timestamps do not match its videos is a fault. Rows are put in the order of frame_index.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow

from agent.data.frames import Frames
from agent.spec import Episode, UserError
from tools.formats import lerobot_film
from tools.formats.common.actions import listed_names, of_names
from tools.formats.common.build import to_episode
from tools.formats.common.foreign import Choices, FormatError, Raw, Report
from tools.formats.common.names import action_name, resolved
from tools.formats.common.pictures import DeepImage
from tools.formats.common.source import Part
from tools.formats.lerobot_meta import Info, Place, info_of, places, read_table
from tools.formats.lerobot_tables import Extra, extra_of, images, vectors
from tools.formats.lerobot_write import COLUMNS, write

__all__ = ["detects", "parts", "write"]
OTHER_NAMES = {"complementary_info.is_intervention": "interventions"}
MAX_NAME = 40  # characters
BOOKKEEPING = {"timestamp", "frame_index", "episode_index", "index", "task_index", "next.done"}


def detects(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


@dataclass
class _Source:
    """What reading any of its episodes needs."""

    path: Path
    info: Info
    names: dict[str, str]  # feature -> the observation's name here
    action: str  # the feature that has the actions
    extra: Extra | None

    def __post_init__(self) -> None:
        images = tuple(name for name, feature in self.info.features.items() if feature.dtype == "image")
        self._table = functools.lru_cache(maxsize=1)(lambda file: read_table(file, images))  # v3: many episodes' one

    def rows(self, place: Place) -> tuple[pyarrow.Table, np.ndarray]:
        """The episode's rows in the order of its steps, without images; and their numbers in the file."""
        if place.fault:
            raise FormatError(place.fault)
        table = self._table(place.table)
        for name in ("episode_index", self.action):
            if name not in table.column_names:
                raise FormatError(f"{place.table}: no column '{name}'; it has {', '.join(table.column_names)}")
        numbers = np.flatnonzero(np.ravel(table["episode_index"].to_numpy()) == place.number)
        if not len(numbers):
            raise FormatError(f"{place.table}: episode {place.number} is not in it")
        if place.length not in (None, len(numbers)) and not self._trimmed(table, numbers, place):
            raise FormatError(
                f"{place.table}: {len(numbers)} rows of it, and meta/episodes says {place.length}: rows were lost"
            )
        rows = table.take(numbers)
        if "frame_index" in rows.column_names or "timestamp" in rows.column_names:
            key = vectors(rows, "frame_index" if "frame_index" in rows.column_names else "timestamp").ravel()
            order = np.argsort(key, kind="stable")
            if (np.diff(key[order]) <= 0).any():
                raise FormatError(f"{place.table}: episode {place.number} has rows of one frame_index more than once")
            rows, numbers = rows.take(order), numbers[order]
        return rows, numbers

    def _trimmed(self, table: pyarrow.Table, numbers: np.ndarray, place: Place) -> bool:
        """Whether frame_index tells which rows were lost: then what is left can be paired with its frames."""
        assert place.length is not None
        if "frame_index" not in table.column_names or len(numbers) > place.length:
            return False
        steps = np.ravel(table["frame_index"].to_numpy())[numbers]
        return bool(len(steps)) and int(steps.max()) == place.length - 1

    def seconds(self, rows: pyarrow.Table, place: Place) -> np.ndarray:
        """(T,) timestamps, checked against frame_index: two that disagree say nothing about which frame is whose."""
        if "timestamp" not in rows.column_names:
            raise FormatError(f"{place.table}: no column 'timestamp', which says which frame belongs to which row")
        seconds = vectors(rows, "timestamp").ravel().astype(np.float64)
        if not np.isfinite(seconds).all():
            raise FormatError(f"{place.table}: episode {place.number}: timestamps that are not finite")
        if "frame_index" in rows.column_names:
            steps = vectors(rows, "frame_index").ravel() / self.info.fps
            if (np.abs(seconds - steps) > 0.5 / self.info.fps).any():
                raise FormatError(
                    f"{place.table}: episode {place.number}: timestamps are not frame_index / fps "
                    f"({self.info.fps:g}): which frame belongs to which row cannot be told"
                )
        return seconds


@contextlib.contextmanager
def parts(path: Path, choices: Choices, report: Report) -> Iterator[list[Part]]:
    info = info_of(path)
    extra = extra_of(path)
    action = action_name(choices, "action")
    if action not in info.features:
        raise UserError(
            f"{path}: no feature '{action}'; it has {', '.join(info.features)}; --rename FEATURE=action says which"
        )
    names = {name: key for name, key in _names(info, extra, choices).items() if name != action}
    choices = resolved(path, {*names.values()}, _short(names, choices))
    report.say(f"LeRobotDataset {info.version}: {info.robot}, {info.fps:g} frames a second")
    for feature in info.features:
        if feature not in {*names, *OTHER_NAMES, *COLUMNS, *BOOKKEEPING, action}:
            report.list("dropped", feature)
    found = places(path, info)
    for name in [name for name, key in names.items() if key not in choices.drop and _depth(name, info, found)]:
        report.list("dropped, depth (8 bits a pixel cannot hold it)", name)
        del names[name]
    _compare(path, info, found)
    source = _Source(path, info, names, action, extra)
    yield [_part(source, place, choices) for place in found]


def _compare(path: Path, info: Info, found: list[Place]) -> None:
    """What info.json counts against what meta/episodes lists; a difference is a fault of every episode concerned."""
    if info.episodes is not None and info.episodes != len(found):
        raise FormatError(
            f"{path}: meta/info.json counts {info.episodes} episodes, meta/episodes lists {len(found)}; fetch what is "
            "missing, or correct total_episodes"
        )
    lengths = [place.length for place in found]
    total = sum(length or 0 for length in lengths)
    if info.frames is not None and None not in lengths and info.frames != total:
        raise FormatError(
            f"{path}: meta/info.json counts {info.frames} frames, meta/episodes {total}; correct total_frames"
        )


def short_names(features: Iterable[str]) -> dict[str, str]:
    """Feature -> the name that it gets here."""
    names: dict[str, str] = {}
    for feature in features:
        if feature.startswith("observation."):
            short = feature.removeprefix("observation.").removeprefix("images.")
            names[feature] = short if short not in names.values() else feature
    return names


def _names(info: Info, extra: Extra | None, choices: Choices) -> dict[str, str]:
    """Feature -> the name that it gets here; features of other names are observations where --rename names them."""
    names = dict(extra.names) if extra else short_names(info.features)
    return {**names, **{name: name for name in choices.rename if name in info.features and name not in names}}


def _short(names: dict[str, str], choices: Choices) -> Choices:
    """`choices` with features' whole names as the short ones."""
    rename = {names.get(name, name): new for name, new in choices.rename.items()}
    return replace(choices, rename=rename, drop=[names.get(name, name) for name in choices.drop])


def _depth(name: str, info: Info, found: list[Place]) -> bool:
    """Whether a feature's images have more than 8 bits a pixel: as info.json says, or the first image."""
    feature = info.features.get(name)
    if feature is None or feature.depth or feature.dtype not in ("video", "image"):
        return feature is not None and feature.depth
    for place in found:
        try:
            if feature.dtype == "video":
                return lerobot_film.index(place.videos[name].file).deep
            images(place.table, name, np.arange(1))
        except DeepImage:
            return True
        except (FormatError, OSError, KeyError, pyarrow.ArrowException):
            continue  # a fault of that episode, found again when it is checked
        return False
    return False


def _part(source: _Source, place: Place, choices: Choices) -> Part:
    def load(asked: Choices, report: Report) -> Episode:
        mapped = replace(asked, rename=choices.rename, drop=choices.drop)
        return to_episode(_raw(source, place, mapped, report), mapped, report)

    name = f"{source.path}: episode {place.number}"
    return Part(name, load, actions=lambda: vectors(source.rows(place)[0], source.action))


def _raw(source: _Source, place: Place, choices: Choices, report: Report) -> Raw:
    rows, numbers = source.rows(place)
    info = source.info
    raw = Raw(f"{source.path}: episode {place.number}", {}, vectors(rows, source.action))
    videos = {name for name in source.names if info.features[name].dtype == "video"}
    seconds = source.seconds(rows, place) if videos else None
    for feature, name in source.names.items():
        if name in choices.drop:
            continue
        if feature in videos:
            assert seconds is not None
            raw.observations[name] = _clip(place, feature, seconds, info.fps)
        elif info.features[feature].dtype == "image":
            raw.observations[name] = images(place.table, feature, numbers)
        else:
            raw.observations[name] = vectors(rows, feature).reshape(len(rows), -1)
    columns = {**OTHER_NAMES, **COLUMNS}
    raw.columns = {ours: vectors(rows, name).ravel() for name, ours in columns.items() if name in rows.column_names}
    if "timestamp" in rows.column_names:
        times = vectors(rows, "timestamp").ravel()
        raw.columns.setdefault("times_s", times)
        gaps = int(np.count_nonzero(np.diff(times) > 1.5 / info.fps))
        report.count("gaps: {} steps are followed by rows that the table has lost", gaps, len(rows))
    if (np.diff(numbers) < 0).any():
        report.count("order: {} episodes had rows out of order; they are in the order of frame_index now", 1, 1)
    raw.dones = vectors(rows, "next.done").ravel() if "next.done" in rows.column_names else None
    raw.origin = {
        "robot": info.robot,
        "instruction": "; ".join(place.tasks),
        "fps": info.fps,
        "source": {"format": "lerobot", "folder": source.path.name, "episode": place.number},
    }
    if state_names := _state_names(info, source.names):
        raw.origin["state_names"] = state_names
    if not source.extra:
        size = int(np.prod(raw.actions.shape[1:]))
        raw.meaning = of_names(info.features[source.action].names, size, info.robot, info.fps)
    if source.extra:
        source.extra.complete(raw, place.number)
    return raw


def _state_names(info: Info, names: dict[str, str]) -> dict[str, list[str]]:
    """The observation's name here -> a name for each of its numbers, as meta/info.json has them."""
    found = {}
    for feature, name in names.items():
        given = listed_names(info.features[feature].names)
        if info.features[feature].dtype not in ("video", "image") and given is not None:
            found[name] = [str(each)[:MAX_NAME] for each in given]
    return found


def _clip(place: Place, feature: str, seconds: np.ndarray, fps: float) -> Frames:
    span = place.videos[feature]
    if not span.file.is_file():
        raise FormatError(f"{span.file}: no such file, and episode {place.number} has its video '{feature}' there")
    lerobot_film.paired(span.file, span.begins_s + seconds, span.ends_s, fps)
    if lerobot_film.index(span.file).deep:
        raise FormatError(f"{span.file}: depth, of which 8 bits a pixel hold next to nothing; --drop {feature}")
    return lerobot_film.clip(span.file, span.begins_s + seconds, fps)
