"""Minari: a folder with data/main_data.hdf5, one group an episode with T + 1 observations, and data/metadata.json.

Images are written as they are (jpeg_encoding off); JPEG-encoded ones are read. A Dict observation has its keys (spaces
in them are "_", as in envs.gym), any other is called 'state'. Our step columns that Minari has no place for are in
`infos`, T + 1 long as Minari's are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.action_meaning import ActionMeaning
from agent.data.hdf5_writing import create_hdf5, write_rows, write_text
from agent.spec import STEP_COLUMNS, Episode, Spec
from tools.formats.common.arrays import attribute, flat, numbers, rows
from tools.formats.common.build import to_episode
from tools.formats.common.foreign import Choices, FormatError, Raw, Report, check_pointer, hdf5
from tools.formats.common.names import resolved
from tools.formats.common.source import Part

FILE = "main_data.hdf5"
NAMES = {"rewards": "rewards", "terminations": "terminated", "truncations": "truncated"}
INFOS = tuple(name for name in STEP_COLUMNS if name not in NAMES.values())


def _data(path: Path) -> Path:
    return path if (path / FILE).is_file() else path / "data"


def detects(path: Path) -> bool:
    return (_data(path) / FILE).is_file()


def _episodes(file: h5py.File, path: Path) -> list[tuple[str, h5py.Group]]:
    names = [name for name in file if name.startswith("episode_") and name[8:].isdigit()]
    if not names:
        raise FormatError(f"{path}: no episodes in it")
    return [(name, file[name]) for name in sorted(names, key=lambda name: int(name[8:]))]


@contextlib.contextmanager
def parts(path: Path, choices: Choices, report: Report) -> Iterator[list[Part]]:
    metadata = _metadata(path)
    report.say(f"Minari {metadata.get('minari_version', '')}: {metadata.get('dataset_id', path.name)}")
    _describe(path, metadata, report)
    file_path = _data(path) / FILE
    with hdf5(file_path) as file:
        found = _episodes(file, path)
        counted = metadata.get("total_episodes")
        if isinstance(counted, int) and counted != len(found):
            raise FormatError(f"{path}: metadata.json counts {counted} episodes, {FILE} has {len(found)}")
        yield [_part(path, file_path, metadata, name, group) for name, group in found]


def _describe(path: Path, metadata: dict[str, Any], report: Report) -> None:
    """Says which environment it is from. Raises FormatError where its actions are choices, and no numbers."""
    for name in ("env_spec", "action_space"):
        try:
            told = json.loads(metadata.get(name) or "{}")
            kind, env = str(told.get("type", "")), told.get("id")
        except (TypeError, ValueError, AttributeError, RecursionError):
            raise FormatError(f"{path}: metadata.json: '{name}' is not a JSON object") from None
        if name == "action_space" and "Discrete" in kind:
            raise FormatError(f"{path}: its actions are {kind}: choices; continuous ones are needed")
        if name == "env_spec" and env:
            report.say(f"its environment: {env} (--env gym:<id> remembers it as ours)")


def _part(path: Path, file_path: Path, metadata: dict[str, Any], name: str, group: h5py.Group) -> Part:
    def load(choices: Choices, report: Report) -> Episode:
        seen = group.get("observations")
        if seen is None:
            raise FormatError("'observations' is missing")
        found = dict(flat(seen)) if isinstance(seen, h5py.Group) else {"state": seen}
        asked = resolved(path, found, choices)
        raw = Raw(f"{path}: {name}", {}, numbers(group, "actions"))
        raw.observations = {key: rows(file_path, item) for key, item in found.items() if key not in asked.drop}
        raw.columns = {ours: numbers(group, theirs) for theirs, ours in NAMES.items()}
        steps = len(raw.actions)
        for key, item in flat(group["infos"]) if "infos" in group else ():
            if key in INFOS and len(item) in (steps, steps + 1):
                raw.columns[key] = item[()][-steps:]  # Minari's first is the reset's
            else:
                report.list("dropped", f"infos/{key}")
        raw.meta = attribute(group, "meta", path) if "meta" in group.attrs else None
        raw.meaning = ActionMeaning("normalized")
        raw.origin = {"source": {"format": "minari", "dataset": metadata.get("dataset_id"), "episode": name}}
        if isinstance(group.attrs.get("seed"), (int, np.integer)):
            raw.origin["seed"] = int(group.attrs["seed"])
        return to_episode(raw, asked, report)

    return Part(f"{path}: {name}", load, actions=lambda: numbers(group, "actions"))


def _metadata(path: Path) -> dict[str, Any]:
    file = _data(path) / "metadata.json"
    try:
        if file.is_file():
            check_pointer(file)
        data = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: metadata.json is missing or damaged: {error}") from None
    if not isinstance(data, dict):
        raise FormatError(f"{path}: metadata.json is not a JSON object")
    return data


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    data = path / "data"
    data.mkdir(parents=True)
    spec, count, steps = None, 0, 0
    with create_hdf5(data / FILE, track_order=True) as (file, output):
        for count, episode in enumerate(episodes, start=1):
            output.check()
            spec = spec or episode.spec
            _write_episode(file.create_group(f"episode_{count - 1}"), count - 1, episode)
            steps += len(episode)
    if spec is None:
        return
    metadata = {
        "dataset_id": f"calql/{path.name.strip('.').removesuffix('.part')}-v0",
        "total_episodes": count,
        "total_steps": steps,
        "dataset_size": round((data / FILE).stat().st_size / 1e6, 1),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_observation_space(spec)),
        "action_space": json.dumps(_box((spec.action_dim,), "float32", -1.0, 1.0)),
        "minari_version": "0.5.4",
        "algorithm_name": "demonstrations",
    }
    (data / "metadata.json").write_text(json.dumps(metadata, indent=2))


def _write_episode(group: h5py.Group, number: int, episode: Episode) -> None:
    group.attrs.update(id=number, total_steps=len(episode))
    write_text(group, "meta", json.dumps(episode.meta))
    if isinstance(episode.meta.get("seed"), int):
        group.attrs["seed"] = episode.meta["seed"]
    group["actions"] = episode.actions
    for theirs, ours in NAMES.items():
        group[theirs] = getattr(episode, ours)
    for name in INFOS:
        column = getattr(episode, name)
        group[f"infos/{name}"] = np.concatenate([np.zeros(1, column.dtype), column])
    for key, seen in episode.observations.items():
        chunks = (1, *seen.shape[1:]) if seen.ndim == 4 else None
        write_rows(group, f"observations/{key}", seen, chunks=chunks, compression="gzip" if chunks else None)


def _observation_space(spec: Spec) -> dict[str, Any]:
    cameras = {key: _box(shape, "uint8", 0, 255) for key, shape in spec.cameras.items()}
    states = {key: _box((size,), "float32", -np.inf, np.inf) for key, size in spec.states.items()}
    return {"type": "Dict", "subspaces": {**cameras, **states}}


def _box(shape: tuple[int, ...], dtype: str, low: float, high: float) -> dict[str, Any]:
    bounds = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}
