"""Episode <-> HDF5, one file an episode, in the robomimic layout (`data/demo_0/{obs,actions,rewards,dones}`).

The T + 1st observation is in `data/demo_0/final_obs`, so every frame is stored once. A file appears whole or not at
all, and survives a power cut from then on: see agent.files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.commands import typed
from agent.data.frames import Frames, blocks, image_chunks, span
from agent.data.hdf5 import check_memory, check_numbers, open_hdf5
from agent.data.hdf5_writing import hdf5_into, write_rows, write_text
from agent.env_record import EnvRecord
from agent.files import written
from agent.spec import STEP_COLUMNS, Episode, SpecError, Transition, UserError
from agent.verdict import with_recorded_verdict

SUFFIX = ".hdf5"
EDIT_JOURNALS = "originals/.edits-*/*/journal.json"  # in a folder of episodes: tools.common.edit_journal writes them
NEWER = ("observation_ages_s", "action_latencies_s")  # columns that older files have not: 0 then


class EpisodeFileError(UserError):
    """An episode file that is missing, damaged or not ours; the message names it."""


def write_episode(path: str | Path, episode: Episode) -> None:
    """Write `episode` to `path`, atomically and durably. An existing file is replaced. A full disk is an OSError.

    Its cameras' images may be Frames: they are read and written block by block.
    """
    path = Path(path)
    if any(isinstance(rows, Frames) for rows in episode.observations.values()):
        with written(path) as file, hdf5_into(file.raw) as (hdf5, _):
            _write(hdf5.create_group("data"), episode)
        return
    with h5py.File(path, "w", driver="core", backing_store=False) as memory:
        _write(memory.create_group("data"), episode)
        memory.flush()
        image = memory.id.get_file_image()  # HDF5 itself, when the disk gets full, may end the whole process
    with written(path) as file:
        file.write(image)


def _write(data: h5py.Group, episode: Episode) -> None:
    steps = len(episode)
    if not isinstance(given := episode.meta.get("env") or {}, dict):
        raise SpecError(f"env in the episode's meta is of type {type(given).__name__}, not a mapping")
    env = EnvRecord.from_dict(given)
    env_args = {"env_name": env.name, "env_kwargs": env.options, "type": 1}
    data.attrs["total"] = steps
    write_text(data, "env_args", json.dumps(env_args))
    write_text(data, "meta", json.dumps(episode.meta))
    data.attrs["crc32"] = _checksum(episode, STEP_COLUMNS)
    demo = data.create_group("demo_0")
    demo.attrs["num_samples"] = steps
    demo["actions"] = episode.actions
    demo["dones"] = (episode.terminated | episode.truncated).astype(np.int64)
    for name in STEP_COLUMNS:
        demo[name] = getattr(episode, name)
    for key, rows in episode.observations.items():
        image = rows.ndim == 4
        options: dict[str, Any] = (
            {"chunks": image_chunks((steps, *rows.shape[1:])), "compression": "gzip", "compression_opts": 1}
            if image
            else {}
        )
        write_rows(demo, f"obs/{key}", span(rows, 0, steps), **options)
        demo[f"final_obs/{key}"] = rows[steps]


def _checksum(episode: Episode, names: Iterable[str]) -> int:
    """CRC-32 of observations, actions and the columns `names`: a flipped byte would be learnt from in silence."""
    checksum = 0
    columns = {name: getattr(episode, name) for name in ("actions", *names)}
    for _, rows in sorted({**episode.observations, **columns}.items()):
        for _, block in blocks(rows):
            checksum = zlib.crc32(np.ascontiguousarray(block).view(np.uint8).data, checksum)
    return checksum


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[h5py.Group]:
    """The file's group `data`; whatever fails inside is an EpisodeFileError that names the file."""
    path = Path(path)
    if not path.is_file():
        raise EpisodeFileError(f"{path}: no such file")
    try:
        with open_hdf5(path) as file:
            yield file["data"]
    except (OSError, RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise EpisodeFileError(f"{path}: not an episode file, or damaged: {' '.join(str(error).split())}") from None


def _meta(data: h5py.Group) -> dict[str, Any]:
    meta = json.loads(data.attrs["meta"])
    if not isinstance(meta, dict):
        raise ValueError("its meta is not a JSON object")
    return meta


def read_head(path: str | Path) -> tuple[int, dict[str, Any]]:
    """Steps and meta of the episode in `path`, without reading its arrays. Raises EpisodeFileError naming the file."""
    with _opened(path) as data:
        return len(data["demo_0/actions"]), _meta(data)


def read_size(path: str | Path) -> tuple[int, int, bool]:
    """Steps of the episode in `path`, bytes of a row of its observations and actions, and whether it succeeded.

    Reads no frames. Raises EpisodeFileError naming the file.
    """
    with _opened(path) as data:
        demo = data["demo_0"]
        rows = [demo["actions"], *demo["obs"].values()]
        width = sum(int(np.prod(row.shape[1:], dtype=np.int64)) * row.dtype.itemsize for row in rows)
        return len(demo["actions"]), width, bool(np.any(demo["success"][()]))


def read_episode(path: str | Path, stream: bool = False, checksum: bool = True) -> Episode:
    """The episode in `path`, checked; a person's verdict in its meta is applied (agent.verdict.with_recorded_verdict).

    stream: its cameras' images are Frames, read from the file block by block whenever they are asked for. checksum:
    without it no image of a streamed episode is read now, so that a list of many is quick.
    Raises EpisodeFileError naming the file when it is missing, cut or foreign.
    """
    with _opened(path) as data:
        demo = data["demo_0"]
        check_numbers(demo)
        if not stream:
            check_memory(demo)
        episode = _rows(demo, 0, len(demo["actions"]), _meta(data), Path(path) if stream else None)
        there = [name for name in STEP_COLUMNS if name in demo]
        if checksum and data.attrs.get("crc32") not in (None, _checksum(episode, there)):
            raise ValueError("its arrays do not have their checksum")
    try:
        if not episode.observations or episode.actions.ndim != 2:
            raise SpecError("no observations, or actions that are not (T, A)")
        episode.check(episode.spec)
        return with_recorded_verdict(episode)
    except SpecError as error:
        raise EpisodeFileError(f"{path}: {error}") from None


OUTCOME = ("rewards", "terminated", "truncated", "success", "interventions")  # of STEP_COLUMNS, what read_outcome reads


def read_outcome(path: str | Path) -> tuple[Episode, bool]:
    """The episode in `path` without observations and actions, and whether it has images: quick, for a list of many.

    A person's verdict in its meta is applied; columns that are not in OUTCOME are 0. Its checksum is not looked at.
    Raises EpisodeFileError naming the file.
    """
    with _opened(path) as data:
        demo = data["demo_0"]
        steps, read = len(demo["actions"]), {name: demo[name] for name in OUTCOME}
        if not steps or any(each.shape != (steps,) or each.dtype.kind not in "biuf" for each in read.values()):
            raise ValueError("its columns are not numbers, one for each step")
        columns = {
            name: read[name][()].astype(dtype, copy=False) if name in read else np.zeros(steps, dtype)
            for name, dtype in STEP_COLUMNS.items()
        }
        episode = Episode(observations={}, actions=np.zeros((steps, 0), np.float32), meta=_meta(data), **columns)
        images = any(rows.ndim == 4 for rows in demo["obs"].values())
    try:
        return with_recorded_verdict(episode), images
    except SpecError as error:
        raise EpisodeFileError(f"{path}: {error}") from None


def read_steps(path: str | Path, first: int, count: int) -> list[Transition]:
    """Up to `count` steps of the episode in `path` from number `first` on.

    As they are in the file: no verdict is applied, their checksum is not looked at.

    Raises EpisodeFileError naming the file.
    """
    with _opened(path) as data:
        demo = data["demo_0"]
        check_numbers(demo)
        end = min(first + count, len(demo["actions"]))
        steps = _rows(demo, first, end, {}).transitions()
        if end < len(demo["actions"]):
            steps[-1] = dataclasses.replace(steps[-1], final_observation=None)
    return steps


def _rows(demo: h5py.Group, first: int, end: int, meta: dict[str, Any], stream: Path | None = None) -> Episode:
    """Steps `first` to `end` (exclusive), with the observation after them; images stay in the file `stream`.

    That observation is the last one again where the episode goes on: nobody asks for it, and its chunk is not unpacked.
    """
    whole = end == len(demo["actions"])
    columns = {
        name: np.zeros(end - first, dtype)
        if name in NEWER and name not in demo
        else demo[name][first:end].astype(dtype, copy=False)
        for name, dtype in STEP_COLUMNS.items()
    }
    observations: dict[str, Any] = {}
    for key, rows in demo["obs"].items():
        after = demo["final_obs"][key][()] if whole else None
        if stream and rows.ndim == 4 and rows.dtype == np.uint8:
            observations[key] = Frames.of_dataset(stream, rows).followed_by(after)
        else:
            read = rows[first:end]
            observations[key] = np.concatenate([read, read[-1:] if after is None else after[None]])
    return Episode(observations=observations, actions=demo["actions"][first:end], meta=meta, **columns)


def check_edits(folder: Path) -> None:
    """Raise EpisodeFileError where an edit of several episodes in `folder` has been made by half."""
    for journal in folder.glob(EDIT_JOURNALS):
        if not journal.exists():
            continue  # it was discarded meanwhile
        try:
            done = journal.is_file() and json.loads(journal.read_text())["done"] is True
        except FileNotFoundError:
            continue  # it was discarded meanwhile
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            done = False
        if not done:
            raise EpisodeFileError(
                f"{folder}: an edit of several episodes is under way, or was interrupted; "
                f"wait for it, or take it back: {typed('tools.edit', folder)}"
            )


def episode_paths(places: Iterable[str | Path]) -> list[Path]:
    """Episode files in the given folders (sorted by name) and files.

    Raises EpisodeFileError when there are none, and where an edit has been made by half.
    """
    paths: list[Path] = []
    given = [Path(place) for place in places]
    for folder in {place if place.is_dir() else place.parent for place in given}:
        check_edits(folder)
    for place in given:
        if place.is_dir():
            found = sorted(p for p in place.glob(f"*{SUFFIX}") if not p.name.startswith("."))
            if not found:
                raise EpisodeFileError(f"{place}: no episode files (*{SUFFIX}) in this folder")
            paths += found
        elif place.is_file():
            paths.append(place)
        else:
            raise EpisodeFileError(f"{place}: no such file or folder")
    return paths


def read_episodes(places: Iterable[str | Path]) -> Iterator[Episode]:
    """Every episode in the given folders and files; all must have the spec of the first (raises EpisodeFileError)."""
    spec, first = None, None
    for path in episode_paths(places):
        episode = read_episode(path)
        if spec is None:
            spec, first = episode.spec, path
        elif differences := spec.differences(episode.spec):
            raise EpisodeFileError(f"{path}: differs from {first}: {'; '.join(differences)}")
        yield episode
