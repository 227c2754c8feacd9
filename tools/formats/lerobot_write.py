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

from agent.data.frames import blocks, span
from agent.env_record import EnvRecord
from agent.spec import STEP_COLUMNS, Episode, Spec, UserError
from tools.common.video import Film, fps_of, pixel_format
from tools.formats import lerobot_film
from tools.formats.common.foreign import Choices, Report
from tools.formats.lerobot_stats import Total, statistics

EXTRA = "meta/calql_extra.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
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
SAMPLED = 32  # frames of an episode that statistics look at,
STATISTICS_SIDE = 150  # at about so many pixels a side, as lerobot does
COMPARED = 24  # frames of all, drawn at random, that are compared with what the videos hold of them


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
        self.rows = _Rows(path / EPISODES_PATH, 64)
        self.extra = _Rows(path / EXTRA, 4, {"names": json.dumps(self.names)})
        self.stats = Total()
        self.episodes = self.frames = 0
        self._table: parquet.ParquetWriter | None = None
        self._files = {key: 0 for key in ("data", *self.spec.cameras)}  # number of the current file
        self._films: dict[str, Film] = {}
        self._samples: list[tuple[Path, float, np.ndarray]] = []  # (video, second, frame) to compare with afterwards
        self._offered, self._drawn = 0, np.random.default_rng(0)

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for name, key in self.names.items():
            if key in self.spec.cameras:
                height, width, _ = self.spec.cameras[key]
                info = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": lerobot_film.CODEC,
                    "video.pix_fmt": pixel_format(height, width),
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
        number, steps = self.episodes, len(episode)
        if (fps := rate_of(episode, self.choices)) != self.fps:
            raise UserError(f"episode {number} was recorded at {fps:g} Hz, episode 0 at {self.fps:g}; --fps says one")
        env = EnvRecord.of_episode(episode.meta)
        task = self.choices.instruction or episode.meta.get("instruction") or env.options.get("task")
        task = str(task or env.name or "unnamed task")
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
                found, some = self._add_film(name, key, episode.observations[key], steps)
                row.update(found)
                stats[name] = statistics(some.reshape(-1, 3) / 255, (3, 1, 1))
        row.update({"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        row.update({f"stats/{name}/{k}": v.tolist() for name, found in stats.items() for k, v in found.items()})
        self.rows.add(row)
        self.stats.add(stats)
        self.extra.add(_extra(number, episode))
        self.episodes, self.frames = number + 1, self.frames + steps

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

    def _add_film(self, name: str, key: str, images: Any, steps: int) -> tuple[dict[str, Any], np.ndarray]:
        """The episode's first `steps` images to the current video: where they are there, and some for statistics."""
        at = self._at(key)
        if key not in self._films:
            file = self.path / VIDEO_PATH.format(video_key=name, **at)
            self._films[key] = Film(file, self.fps, lerobot_film.OPTIONS)
        current = self._films[key]
        first, apart = current.frames, max(1, max(images.shape[1:3]) // STATISTICS_SIDE)
        sampled = set(np.linspace(0, steps - 1, min(steps, SAMPLED)).astype(int).tolist())
        some = []
        for start, block in blocks(span(images, 0, steps)):
            for step, image in enumerate(block, start=start):
                current.add(image)
                if step in sampled:
                    some.append(image[::apart, ::apart].copy())
                if step in (0, steps // 2, steps - 1):
                    self._offer(current.path, (first + step) / self.fps, image)
        found: dict[str, Any] = {f"videos/{name}/{k}": number for k, number in at.items()}
        found[f"videos/{name}/from_timestamp"] = first / self.fps
        found[f"videos/{name}/to_timestamp"] = current.frames / self.fps
        if current.bytes >= VIDEO_MB * 2**20:
            self._films.pop(key).close()
            self._files[key] += 1
        return found, np.stack(some)

    def _offer(self, path: Path, second: float, image: np.ndarray) -> None:
        """Keep COMPARED of all frames that are offered, each with the same probability."""
        self._offered += 1
        if len(self._samples) < COMPARED:
            self._samples.append((path, second, image.copy()))
        elif (place := int(self._drawn.integers(self._offered))) < COMPARED:
            self._samples[place] = (path, second, image.copy())

    def finish(self, report: Report) -> None:
        """The tables that say what is where, and how well the videos hold what they were given."""
        if self._table is not None:
            self._table.close()
        for current in self._films.values():
            current.close()
        meta = self.path / "meta"
        self.rows.close()
        self.extra.close()
        parquet.write_table(_tasks(self.tasks), meta / "tasks.parquet")
        _json(meta / "stats.json", self.stats.to_dict())
        info = {
            "codebase_version": "v3.0",
            "robot_type": self.robot,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.spec.cameras else None,
            "features": self.features,
        }
        _json(meta / "info.json", info)
        for name, key in self.names.items():
            report.list("written", f"{key} as {name}")
        found = [
            lerobot_film.psnr(image, lerobot_film.frames(path, at, 1, self.fps)[0])
            for path, at, image in sorted(self._samples, key=lambda s: s[:2])
        ]
        if found:
            report.say(
                f"video ({lerobot_film.CODEC}, crf {lerobot_film.OPTIONS['crf']}): PSNR {np.mean(found):.1f} dB on "
                f"average, {np.min(found):.1f} at worst, of {len(found)} frames"
            )


class _Rows:
    """A table that grows by rows, of which no more than `every` are in memory."""

    def __init__(self, path: Path, every: int, metadata: dict[str, str] | None = None) -> None:
        self._path, self._every, self._metadata = path, every, metadata
        self._waiting: list[dict[str, Any]] = []
        self._writer: parquet.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        if len(self._waiting) >= self._every:
            self._flush()

    def _flush(self) -> None:
        schema = self._writer.schema if self._writer else None
        table = pyarrow.Table.from_pylist(self._waiting, schema=schema)
        if self._writer is None:
            table = table.replace_schema_metadata(self._metadata)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._waiting = []

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer:
            self._writer.close()


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


def _json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2))
