"""Minari: a folder with data/main_data.hdf5, one group an episode with T + 1 observations, and data/metadata.json.

Images are written as they are (jpeg_encoding off); JPEG-encoded ones are read. A Dict observation has its keys (spaces
in them are "_", as in envs.gym), any other is called 'state'. Our step columns that Minari has no place for are in
`infos`, T + 1 long as Minari's are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.hdf5 import check_memory
from agent.spec import STEP_COLUMNS, Episode, Spec
from tools.formats.foreign import Choices, FormatError, Raw, Report, check_names, hdf5, pictures, to_episode

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


def actions(path: Path) -> Iterator[np.ndarray]:
    with hdf5(_data(path) / FILE) as file:
        for _, group in _episodes(file, path):
            yield group["actions"][()]


def read(path: Path, choices: Choices, report: Report) -> Iterator[Episode]:
    metadata = _metadata(path)
    report.say(f"Minari {metadata.get('minari_version', '')}: {metadata.get('dataset_id', path.name)}")
    if metadata.get("env_spec"):
        report.say(f"its environment: {json.loads(metadata['env_spec'])['id']} (--env gym:<id> remembers it as ours)")
    with hdf5(_data(path) / FILE) as file:
        for name, group in _episodes(file, path):
            check_memory(group)
            raw = Raw(f"{path}: {name}", dict(_flat("", group["observations"])), group["actions"][()])
            check_names(path, set(raw.observations), choices)
            raw.columns = {ours: group[theirs][()] for theirs, ours in NAMES.items()}
            infos = dict(_flat("", group["infos"])) if "infos" in group else {}
            steps = len(raw.actions)
            for key, rows in infos.items():
                if key in INFOS and len(rows) in (steps, steps + 1):
                    raw.columns[key] = rows[-steps:]  # Minari's first is the reset's
                else:
                    report.list("dropped", f"infos/{key}")
            raw.meta = json.loads(group.attrs["meta"]) if "meta" in group.attrs else None
            raw.origin = {"source": {"format": "minari", "dataset": metadata.get("dataset_id"), "episode": name}}
            if "seed" in group.attrs:
                raw.origin["seed"] = int(group.attrs["seed"])
            yield to_episode(raw, choices, report)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((_data(path) / "metadata.json").read_text()))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: metadata.json is missing or damaged: {error}") from None


def _flat(name: str, node: h5py.Group | h5py.Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays below `node` under their names, joined by dots; encoded images decoded."""
    if isinstance(node, h5py.Group):
        for key, below in node.items():
            key = key.replace(" ", "_")
            yield from _flat(f"{name}.{key}" if name else key, below)
        return
    if h5py.check_vlen_dtype(node.dtype) == np.uint8:
        rows = pictures((np.asarray(row, np.uint8).tobytes() for row in node), len(node))
    else:
        rows = node[()]
        if rows.dtype == np.uint8 and rows.ndim == 2 and len(rows) and rows[0, :2].tobytes() == b"\xff\xd8":
            rows = pictures((row.tobytes() for row in rows), len(rows))
    yield name or "state", rows


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    data = path / "data"
    data.mkdir(parents=True)
    spec, count, steps = None, 0, 0
    with h5py.File(data / FILE, "w", track_order=True) as file:
        for count, episode in enumerate(episodes, start=1):
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
    group.attrs.update(id=number, total_steps=len(episode), meta=json.dumps(episode.meta))
    if isinstance(episode.meta.get("seed"), int):
        group.attrs["seed"] = episode.meta["seed"]
    group["actions"] = episode.actions
    for theirs, ours in NAMES.items():
        group[theirs] = getattr(episode, ours)
    for name in INFOS:
        rows = getattr(episode, name)
        group[f"infos/{name}"] = np.concatenate([np.zeros(1, rows.dtype), rows])
    for key, rows in episode.observations.items():
        chunks = (1, *rows.shape[1:]) if rows.ndim == 4 else None
        group.create_dataset(f"observations/{key}", data=rows, chunks=chunks, compression="gzip" if chunks else None)


def _observation_space(spec: Spec) -> dict[str, Any]:
    cameras = {key: _box(shape, "uint8", 0, 255) for key, shape in spec.cameras.items()}
    states = {key: _box((size,), "float32", -np.inf, np.inf) for key, size in spec.states.items()}
    return {"type": "Dict", "subspaces": {**cameras, **states}}


def _box(shape: tuple[int, ...], dtype: str, low: float, high: float) -> dict[str, Any]:
    bounds = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}
