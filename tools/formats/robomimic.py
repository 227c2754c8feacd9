"""robomimic's HDF5: one file, group data/demo_<i> for each episode, with obs, next_obs, actions, rewards and dones.

What robomimic has no place for (success, policy versions, meta, ...) lies beside them under our own names.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.data.frames import Frames, blocks
from agent.data.hdf5_writing import create_hdf5, write_text
from agent.env_record import EnvRecord
from agent.spec import STEP_COLUMNS, Episode, UserError
from envs.base import is_flag
from tools.formats.common.actions import of_robosuite
from tools.formats.common.arrays import attribute, flat, numbers, rows
from tools.formats.common.build import to_episode
from tools.formats.common.foreign import Choices, FormatError, Raw, Report, hdf5
from tools.formats.common.names import action_name, resolved
from tools.formats.common.source import Part

Demos = list[tuple[str, h5py.Group]]


def demos(file: h5py.File, path: Path) -> Demos:
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
        return bool(found) and any({"obs", "observations"} & set(demo) for _, demo in found)


@contextlib.contextmanager
def parts(path: Path, choices: Choices, report: Report) -> Iterator[list[Part]]:
    action = action_name(choices, "actions")
    with hdf5(path) as file:
        found = selected(file, path, demos(file, path), choices, report)
        yield [_part(path, name, demo, action) for name, demo in found]


def selected(file: h5py.File, path: Path, found: Demos, choices: Choices, report: Report) -> Demos:
    """The demonstrations under --filter-key, all without one. Raises UserError for one that the file does not have."""
    mask = file.get("mask")
    keys = {key: _listed(item) for key, item in mask.items()} if isinstance(mask, h5py.Group) else {}
    if keys and not choices.filter_key:
        counts = ", ".join(f"{key} ({len(names)})" for key, names in keys.items())
        report.say(f"filter keys: {counts}; all demonstrations were taken (--filter-key NAME takes one's)")
    if not choices.filter_key:
        return found
    if choices.filter_key not in keys:
        raise UserError(f"{path}: no filter key '{choices.filter_key}'; it has {', '.join(keys) or 'none'}")
    wanted = keys[choices.filter_key]
    if missing := sorted(wanted - {name for name, _ in found}):
        raise FormatError(f"{path}: mask/{choices.filter_key} names {', '.join(missing[:5])}, and data has no such")
    report.say(f"filter key {choices.filter_key}: {len(wanted)} of {len(found)} demonstrations, as requested")
    return [(name, demo) for name, demo in found if name in wanted]


def _listed(item: Any) -> set[str]:
    rows = item[()] if isinstance(item, h5py.Dataset) else []
    return {row.decode(errors="replace") if isinstance(row, bytes) else str(row) for row in np.ravel(rows)}


def _part(path: Path, name: str, demo: h5py.Group, action: str) -> Part:
    def load(choices: Choices, report: Report) -> Episode:
        if not isinstance(demo, h5py.Group):
            raise FormatError("no group")
        found = _observations(path, demo)
        asked = resolved(path, found, choices)
        raw = Raw(f"{path}: {name}", found, numbers(demo, action))
        raw.origin = {"source": {"format": "robomimic", "file": path.name, "demo": name}}
        raw.meaning = of_robosuite(_arguments(demo))
        raw.columns = {column: numbers(demo, column) for column in STEP_COLUMNS if column in demo}
        raw.dones = numbers(demo, "dones") if "dones" in demo else None
        raw.meta = attribute(demo, "meta", path) if "meta" in demo.attrs else None
        if "success" in demo.attrs and "success" not in raw.columns:  # as Isaac Lab records it
            value = demo.attrs["success"]
            if not is_flag(value):
                raise FormatError(f"its attribute 'success' is a {type(value).__name__}, not true or false")
            raw.columns["success"] = np.zeros(len(raw.actions), np.bool_)
            raw.columns["success"][-1:] = bool(value)
            report.count("success: {} demonstrations, by their attribute 'success'", int(bool(value)), 1)
        for other in sorted(set(demo) - {"obs", "observations", "next_obs", action, "dones", *STEP_COLUMNS}):
            report.list("dropped", other)
        return to_episode(raw, asked, report)

    return Part(f"{path}: {name}", load, actions=lambda: numbers(demo, action))


def _arguments(demo: h5py.Group) -> Any:
    """env_args of the file; None where there are none that can be read."""
    try:
        return json.loads(demo.parent.attrs.get("env_args", "null"))
    except (ValueError, TypeError, RecursionError):
        return None


def _observations(path: Path, demo: h5py.Group) -> dict[str, Any]:
    """T + 1 rows where the last of next_obs is there, else T. Groups in groups are flattened: camera.rgb."""
    obs = demo.get("observations" if "observations" in demo else "obs")
    if obs is None:
        raise FormatError("'obs' is missing")
    if isinstance(obs, h5py.Dataset):
        return {"state": rows(path, obs)}
    following = dict(flat(demo["next_obs"])) if isinstance(demo.get("next_obs"), h5py.Group) else {}
    found: dict[str, Any] = {}
    for key, item in flat(obs):
        seen = rows(path, item)
        if key in following and len(following[key]):
            last = rows(path, following[key])[-1]
            seen = seen.followed_by(last) if isinstance(seen, Frames) else np.concatenate([seen, last[None]])
        found[key] = seen
    return found


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    with create_hdf5(path) as (file, output):
        data = file.create_group("data")
        total = 0
        for number, episode in enumerate(episodes):
            output.check()
            if number == 0:
                env = EnvRecord.of_episode(episode.meta)
                args = {"env_name": env.name, "env_kwargs": env.options, "type": 1}
                write_text(data, "env_args", json.dumps(args))
            _write_demo(data.create_group(f"demo_{number}"), episode)
            total += len(episode)
        data.attrs["total"] = total


def _write_demo(demo: h5py.Group, episode: Episode) -> None:
    demo.attrs["num_samples"] = len(episode)
    write_text(demo, "meta", json.dumps(episode.meta))
    demo["actions"] = episode.actions
    demo["dones"] = (episode.terminated | episode.truncated).astype(np.int64)
    for name in STEP_COLUMNS:
        demo[name] = getattr(episode, name)
    steps = len(episode)
    for key, seen in episode.observations.items():
        compressed: dict[str, Any] = {"chunks": (1, *seen.shape[1:]), "compression": "gzip", "compression_opts": 1}
        options = compressed if seen.ndim == 4 else {}
        shape = (steps, *seen.shape[1:])
        obs = demo.create_dataset(f"obs/{key}", shape, seen.dtype, **options)
        next_obs = demo.create_dataset(f"next_obs/{key}", shape, seen.dtype, **options)
        for first, block in blocks(seen):
            end = first + len(block)
            obs[first : min(end, steps)] = block[: steps - first]
            skipped = int(first == 0)
            next_obs[first - 1 + skipped : end - 1] = block[skipped:]
