"""Small LeRobotDatasets in which every frame's number can be read off its brightness, its state and its action."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from tools.common.video import Film
from tools.formats import lerobot_film

SIDE, FPS, CAMERA = 16, 10, "observation.images.front"
INFO = {
    "codebase_version": "v2.1",
    "robot_type": "arm",
    "fps": FPS,
    "chunks_size": 1000,
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "features": {
        CAMERA: {"dtype": "video", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        "action": {"dtype": "float32", "shape": [2], "names": None},
    },
}


def number_of(image):
    """The number that is coded in a frame's brightness."""
    return int(np.round((image.astype(np.float64).mean() - 10) / 10))


def shoot(path, numbers):
    made = Film(path, FPS, lerobot_film.OPTIONS)
    for number in numbers:
        made.add(np.full((SIDE, SIDE, 3), 10 + 10 * number, np.uint8))
    made.close()


def table(steps, episode, first=0):
    numbers = np.arange(steps)
    both = np.stack([numbers, numbers], axis=1).astype(np.float32)
    return pyarrow.table(
        {
            "observation.state": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(both.ravel()), 2),
            "action": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(both.ravel() / 100), 2),
            "timestamp": (numbers / FPS).astype(np.float32),
            "frame_index": numbers,
            "episode_index": np.full(steps, episode),
            "index": first + numbers,
            "task_index": np.zeros(steps, np.int64),
        }
    )


def v21(folder, lengths):
    """Version 2.1: a table and a video for each episode."""
    (folder / "meta").mkdir(parents=True)
    rows = []
    for episode, steps in enumerate(lengths):
        data = table_path(folder, episode)
        data.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(steps, episode, sum(lengths[:episode])), data)
        shoot(video_path(folder, episode), range(steps))
        rows.append({"episode_index": episode, "tasks": ["count"], "length": steps})
    write_info(folder, total_episodes=len(lengths), total_frames=sum(lengths))
    write_rows(folder, rows)
    return folder


def v30(folder, lengths):
    """Version 3.0: all episodes in one table and one video."""
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data").mkdir()
    names = ("chunk_index", "file_index")
    tables, rows, first = [], [], 0
    for episode, steps in enumerate(lengths):
        tables.append(table(steps, episode, first))
        where = {f"{kind}/{name}": 0 for kind in ("data", f"videos/{CAMERA}") for name in names}
        span = {"from_timestamp": first / FPS, "to_timestamp": (first + steps) / FPS}
        where.update({f"videos/{CAMERA}/{name}": value for name, value in span.items()})
        rows.append({"episode_index": episode, "tasks": ["count"], "length": steps, **where})
        first += steps
    parquet.write_table(pyarrow.concat_tables(tables), folder / "data/file-000.parquet")
    shoot(folder / f"videos/{CAMERA}/file-000.mp4", [step for steps in lengths for step in range(steps)])
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
    paths = {
        "data_path": "data/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/file-{file_index:03d}.mp4",
    }
    counts = {"total_episodes": len(lengths), "total_frames": first}
    write_info(folder, codebase_version="v3.0", **paths, **counts)
    return folder


def table_path(folder, episode):
    if (folder / "data/file-000.parquet").exists():
        return folder / "data/file-000.parquet"
    return folder / f"data/chunk-000/episode_{episode:06d}.parquet"


def video_path(folder, episode):
    return folder / f"videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"


def write_info(folder, **changes):
    file = folder / "meta/info.json"
    before = json.loads(file.read_text()) if file.exists() else INFO
    file.write_text(json.dumps({**before, **changes}))


def write_rows(folder, rows):
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def keep(folder, episode, rows):
    """Only these rows of an episode's table stay, in this order; others' do too."""
    file = table_path(folder, episode)
    whole = parquet.read_table(file)
    here = np.flatnonzero(whole["episode_index"].to_numpy() == episode)
    others = np.flatnonzero(whole["episode_index"].to_numpy() != episode)
    parquet.write_table(whole.take(np.concatenate([here[rows], others])), file)


def set_column(folder, episode, name, values):
    file = table_path(folder, episode)
    whole = parquet.read_table(file)
    parquet.write_table(whole.set_column(whole.column_names.index(name), name, pyarrow.array(values)), file)
