"""Writes LeRobotDataset v3.0 with pyarrow and PyAV, as `lerobot` itself lays it out.

LeRobot's frames are observation and action; it has no observation after the last action. That one, the episodes' meta
and our names lie in a table of their own beside (EXTRA), which lerobot does not look at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from agent.spec import STEP_COLUMNS, Episode, Spec, UserError
from tools.formats import film
from tools.formats.foreign import Choices, Report
from tools.video import fps_of

EXTRA = "meta/calql_extra.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200  # files in a folder, and where a new file begins
COLUMNS = {  # feature -> our column
    "next.reward": "rewards",
    "next.terminated": "terminated",
    "next.truncated": "truncated",
    "next.success": "success",
    "policy_version": "policy_versions",
    "intervention": "interventions",
    "time_s": "times_s",
    "observation_age_s": "observation_ages_s",
    "action_latency_s": "action_latencies_s",
}
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED = 32  # frames of an episode that statistics look at


def write(path: Path, episodes: Iterable[Episode], choices: Choices, report: Report) -> None:
    """Raises UserError where no episode says at which rate it was recorded, and --fps does not either."""
    writer: _Writer | None = None
    for episode in episodes:
        writer = writer or _Writer(path, episode, choices)
        writer.add(episode)
    if writer:
        writer.finish(report)


def rate_of(episode: Episode, choices: Choices) -> float:
    fps = choices.fps or fps_of(episode.meta)
    if not fps:
        raise UserError("no control rate is recorded in these episodes; --fps says how many steps a second they have")
    return int(fps) if float(fps).is_integer() else float(fps)


def feature_names(spec: Spec) -> dict[str, str]:
    """Feature -> our key. A single state is observation.state: the name that LeRobot's policies look for."""
    names = {f"observation.images.{key}": key for key in spec.cameras}
    only = len(spec.states) == 1
    return {**names, **{"observation.state" if only else f"observation.{key}": key for key in spec.states}}


class _Writer:
    def __init__(self, path: Path, first: Episode, choices: Choices) -> None:
        self.path, self.spec, self.choices = path, first.spec, choices
        self.fps, self.robot = rate_of(first, choices), first.meta.get("robot")
        self.names = feature_names(self.spec)
        self.features = self._features()
        self.tasks: list[str] = []
        self.rows: list[dict[str, Any]] = []  # of meta/episodes
        self.extra: list[dict[str, Any]] = []
        self.stats: list[dict[str, Any]] = []
        self.frames = 0
        self._table: parquet.ParquetWriter | None = None
        self._files = {key: 0 for key in ("data", *self.spec.cameras)}  # number of the current file
        self._films: dict[str, film.Film] = {}
        self._samples: list[tuple[Path, float, np.ndarray]] = []  # (video, second, frame) to compare with afterwards

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for name, key in self.names.items():
            if key in self.spec.cameras:
                height, width, _ = self.spec.cameras[key]
                info = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": film.CODEC,
                    "video.pix_fmt": film.pixel_format(height, width),
                    "video.is_depth_map": False,
                    "video.fps": self.fps,
                    "video.channels": 3,
                    "has_audio": False,
                }
                names = ["height", "width", "channels"]
                features[name] = {"dtype": "video", "shape": [height, width, 3], "names": names, "info": info}
            else:
                features[name] = _vector(key, self.spec.states[key])
        features["action"] = _vector("action", self.spec.action_dim)
        for name, column in {**COLUMNS, "next.done": "terminated"}.items():
            features[name] = {"dtype": np.dtype(STEP_COLUMNS[column]).name, "shape": [1], "names": None}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "int64", "shape": [1], "names": None}
        return features

    def add(self, episode: Episode) -> None:
        number, steps = len(self.rows), len(episode)
        if (fps := rate_of(episode, self.choices)) != self.fps:
            raise UserError(f"episode {number} was recorded at {fps:g} Hz, episode 0 at {self.fps:g}; --fps says one")
        env = episode.meta.get("env") or {}
        task = self.choices.instruction or episode.meta.get("instruction") or env.get("options", {}).get("task")
        task = str(task or env.get("name") or "unnamed task")
        if task not in self.tasks:
            self.tasks.append(task)
        columns = {feature: getattr(episode, ours) for feature, ours in COLUMNS.items()}
        columns["next.done"] = episode.terminated | episode.truncated
        columns["action"] = episode.actions
        columns.update({n: episode.observations[k][:-1] for n, k in self.names.items() if k in self.spec.states})
        columns["timestamp"] = (np.arange(steps) / self.fps).astype(np.float32)
        columns["frame_index"] = np.arange(steps)
        columns["index"] = np.arange(self.frames, self.frames + steps)
        columns["episode_index"], columns["task_index"] = np.full(steps, number), np.full(steps, self.tasks.index(task))
        row = {"episode_index": number, "tasks": [task], "length": steps}
        row.update(self._add_table(columns))
        row.update({"dataset_from_index": self.frames, "dataset_to_index": self.frames + steps})
        stats = {name: statistics(rows.reshape(steps, -1)) for name, rows in columns.items()}
        for name, key in self.names.items():
            if key in self.spec.cameras:
                row.update(self._add_film(name, key, episode.observations[key][:-1]))
                some = episode.observations[key][np.linspace(0, steps - 1, min(steps, SAMPLED)).astype(int)]
                stats[name] = statistics(some.reshape(-1, 3) / 255, (3, 1, 1))
        row.update({"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        row.update({f"stats/{name}/{k}": v.tolist() for name, found in stats.items() for k, v in found.items()})
        self.rows.append(row)
        self.stats.append(stats)
        self.extra.append(_extra(number, episode))
        self.frames += steps

    def _at(self, kind: str) -> dict[str, int]:
        return {"chunk_index": self._files[kind] // CHUNK_FILES, "file_index": self._files[kind] % CHUNK_FILES}

    def _add_table(self, columns: dict[str, np.ndarray]) -> dict[str, int]:
        arrays = {name: _arrow(columns[name]) for name in self.features if name in columns}
        table = pyarrow.table(arrays)
        at = self._at("data")
        if self._table is None:
            file = self.path / DATA_PATH.format(**at)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._written = 0
            self._table = parquet.ParquetWriter(file, table.schema, compression="snappy")
        self._table.write_table(table)
        self._written += table.nbytes
        if self._written > DATA_MB * 2**20:
            self._table.close()
            self._table = None
            self._files["data"] += 1
        return {f"data/{name}": number for name, number in at.items()}

    def _add_film(self, name: str, key: str, images: np.ndarray) -> dict[str, Any]:
        at = self._at(key)
        if key not in self._films:
            file = self.path / VIDEO_PATH.format(video_key=name, **at)
            self._films[key] = film.Film(file, self.fps, *images.shape[1:3])
        current = self._films[key]
        first = current.frames
        for image in images:
            current.add(image)
        for step in sorted({0, len(images) // 2, len(images) - 1}):
            self._samples.append((current.path, (first + step) / self.fps, images[step].copy()))
        found: dict[str, Any] = {f"videos/{name}/{k}": number for k, number in at.items()}
        found[f"videos/{name}/from_timestamp"] = first / self.fps
        found[f"videos/{name}/to_timestamp"] = current.frames / self.fps
        if current.bytes >= VIDEO_MB * 2**20:
            self._films.pop(key).close()
            self._files[key] += 1
        return found

    def finish(self, report: Report) -> None:
        """The tables that say what is where, and how well the videos hold what they were given."""
        if self._table is not None:
            self._table.close()
        for current in self._films.values():
            current.close()
        meta = self.path / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(self.rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        parquet.write_table(_tasks(self.tasks), meta / "tasks.parquet")
        extra = pyarrow.Table.from_pylist(self.extra)
        parquet.write_table(extra.replace_schema_metadata({"names": json.dumps(self.names)}), self.path / EXTRA)
        _json(meta / "stats.json", {name: aggregate([s[name] for s in self.stats]) for name in self.stats[0]})
        info = {
            "codebase_version": "v3.0",
            "robot_type": self.robot,
            "total_episodes": len(self.rows),
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.spec.cameras else None,
            "features": self.features,
        }
        _json(meta / "info.json", info)
        for name, key in self.names.items():
            report.list("written", f"{key} as {name}")
        found = [film.psnr(image, film.frames(path, at, 1, self.fps)[0]) for path, at, image in self._samples]
        if found:
            report.say(
                f"video ({film.CODEC}, crf {film.OPTIONS['crf']}): PSNR {np.mean(found):.1f} dB on average, "
                f"{np.min(found):.1f} at worst, of {len(found)} frames"
            )


def _vector(name: str, size: int) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [size], "names": [f"{name}_{number}" for number in range(size)]}


def _arrow(rows: np.ndarray) -> pyarrow.Array:
    flat = pyarrow.array(np.ascontiguousarray(rows).ravel())
    scalar = rows.ndim == 1 or rows.shape[1] == 1  # as lerobot has features of shape (1,)
    return flat if scalar else pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _extra(number: int, episode: Episode) -> dict[str, Any]:
    row: dict[str, Any] = {"episode_index": number, "meta": json.dumps(episode.meta)}
    for key, rows in episode.observations.items():
        if rows.ndim == 4:
            _, png = cv2.imencode(".png", rows[-1][..., ::-1])
            row[f"final/{key}"] = png.tobytes()
        else:
            row[f"final/{key}"] = rows[-1].tolist()
    return row


def _tasks(tasks: list[str]) -> pyarrow.Table:
    """A table whose index, for pandas, is the task's text: that is how lerobot looks it up."""
    index = "__index_level_0__"
    text = {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    head = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {"index_columns": [index], "column_indexes": [head], "columns": [{**number, "metadata": None}, text]}
    table = pyarrow.table({"task_index": np.arange(len(tasks)), index: tasks})
    return table.replace_schema_metadata({"pandas": json.dumps({**pandas, "pandas_version": "2.0.0"})})


def statistics(rows: np.ndarray, shape: tuple[int, ...] = (-1,)) -> dict[str, np.ndarray]:
    """Of rows (N, D), over N; as lerobot keeps them for normalisation."""
    rows = rows.astype(np.float64)
    found = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
    found.update({name: np.quantile(rows, q, axis=0) for name, q in QUANTILES.items()})
    return {**{name: value.reshape(shape) for name, value in found.items()}, "count": np.array([len(rows)])}


def aggregate(parts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Statistics of all episodes from those of each; quantiles are weighted means, as lerobot's own are."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = counts / counts.sum()

    def mean(name: str) -> np.ndarray:
        return np.tensordot(weights, np.stack([part[name] for part in parts]), axes=1)

    centre = mean("mean")
    spread = sum(w * (p["std"] ** 2 + (p["mean"] - centre) ** 2) for w, p in zip(weights, parts, strict=True))
    found = {name: mean(name) for name in QUANTILES}
    found.update(mean=centre, std=np.sqrt(spread), count=np.array([int(counts.sum())]))
    found.update(min=np.min([p["min"] for p in parts], axis=0), max=np.max([p["max"] for p in parts], axis=0))
    return {name: value.tolist() for name, value in found.items()}


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2))
