"""robomimic's HDF5: one file, group data/demo_<i> for each episode, with obs, next_obs, actions, rewards and dones.

What robomimic has no place for (success, policy versions, meta, ...) lies beside them under our own names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.hdf5 import check_memory
from agent.spec import STEP_COLUMNS, Episode
from tools.formats.foreign import Choices, FormatError, Raw, Report, check_names, hdf5, to_episode


def demos(file: h5py.File, path: Path) -> list[tuple[str, h5py.Group]]:
    """The file's demo_<i>, by their numbers. Raises FormatError when there are none."""
    data = file.get("data", {})
    names = [name for name in data if name.startswith("demo_") and name[5:].isdigit()]
    if not names:
        raise FormatError(f"{path}: no demonstrations (data/demo_0, ...) in it")
    return [(name, data[name]) for name in sorted(names, key=lambda name: int(name[5:]))]


def detects(path: Path) -> bool:
    if not (path.is_file() and h5py.is_hdf5(path)):
        return False
    with hdf5(path) as file:
        found = demos(file, path) if "data" in file else []
        return bool(found) and bool({"obs", "observations"} & set(found[0][1])) and "actions" in found[0][1]


def actions(path: Path) -> Iterator[np.ndarray]:
    with hdf5(path) as file:
        for _, demo in demos(file, path):
            yield demo["actions"][()]


def read(path: Path, choices: Choices, report: Report) -> Iterator[Episode]:
    with hdf5(path) as file:
        found = demos(file, path)
        check_names(path, set(_observations(found[0][1])), choices)
        origin: dict[str, Any] = {"source": {"format": "robomimic", "file": path.name}}
        for name, demo in found:
            check_memory(demo)
            raw = Raw(f"{path}: {name}", _observations(demo), demo["actions"][()])
            raw.origin = {**origin, "source": {**origin["source"], "demo": name}}
            raw.columns = {column: demo[column][()] for column in STEP_COLUMNS if column in demo}
            raw.dones = demo["dones"][()] if "dones" in demo else None
            raw.meta = json.loads(demo.attrs["meta"]) if "meta" in demo.attrs else None
            for other in sorted(set(demo) - {"obs", "observations", "next_obs", "actions", "dones", *STEP_COLUMNS}):
                report.list("dropped", other)
            yield to_episode(raw, choices, report)


def _observations(demo: h5py.Group) -> dict[str, np.ndarray]:
    """T + 1 rows where the last of next_obs is there, else T."""
    obs = demo["observations" if "observations" in demo else "obs"]
    if isinstance(obs, h5py.Dataset):
        return {"state": obs[()]}
    following = demo.get("next_obs", {})
    return {
        key: np.concatenate([rows[()], following[key][-1:]]) if key in following else rows[()]
        for key, rows in obs.items()
        if isinstance(rows, h5py.Dataset)
    }


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        total = 0
        for number, episode in enumerate(episodes):
            if number == 0:
                env = episode.meta.get("env") or {}
                args = {"env_name": env.get("name", ""), "env_kwargs": env.get("options", {}), "type": 1}
                data.attrs["env_args"] = json.dumps(args)
            _write_demo(data.create_group(f"demo_{number}"), episode)
            total += len(episode)
        data.attrs["total"] = total


def _write_demo(demo: h5py.Group, episode: Episode) -> None:
    demo.attrs.update(num_samples=len(episode), meta=json.dumps(episode.meta))
    demo["actions"] = episode.actions
    demo["dones"] = (episode.terminated | episode.truncated).astype(np.int64)
    for name in STEP_COLUMNS:
        demo[name] = getattr(episode, name)
    for key, rows in episode.observations.items():
        image = rows.ndim == 4
        options: dict[str, Any] = {"chunks": (1, *rows.shape[1:]), "compression": "gzip", "compression_opts": 1}
        demo.create_dataset(f"obs/{key}", data=rows[:-1], **(options if image else {}))
        demo.create_dataset(f"next_obs/{key}", data=rows[1:], **(options if image else {}))
