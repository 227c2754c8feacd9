"""Demonstrations from somebody else: they may name other files, and declare more than they hold."""

import json
import zlib

import cv2
import h5py
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from agent import memory
from agent.data import frames
from agent.data.episode_file import read_episodes, write_episode
from agent.spec import UserError
from tools.common.video import Film
from tools.convert import convert
from tools.formats import lerobot_film
from tools.formats.common import arrays, pictures
from tools.formats.common.foreign import Choices, FormatError
from tools.formats.lerobot_meta import file_at

from .conftest import made


@pytest.fixture
def robomimic(tmp_path):
    path = tmp_path / "theirs.hdf5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["rewards"] = np.zeros((4, 2)), np.zeros(4)
        demo["obs/pos"] = np.zeros((4, 3))
    (tmp_path / "secret").write_bytes(b"x" * 5000)
    return path


HOSTILE = {
    "external storage": lambda obs, secret: obs.create_dataset(
        "cam", (4, 16, 16, 3), "u1", external=[(secret, 0, 3072)]
    ),
    "soft link": lambda obs, secret: obs.__setitem__("cam", h5py.SoftLink("/data/demo_0/obs/pos")),
    "external link": lambda obs, secret: obs.__setitem__("cam", h5py.ExternalLink(secret, "cam")),
    "22 kB": lambda obs, secret: obs.create_dataset("cam", (4, 60_000, 60_000, 3), "u1", chunks=(1, 600, 600, 3)),
    "a loop": lambda obs, secret: obs.__setitem__("again", obs.parent),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("source", [[], ["--from", "robomimic"]], ids=["found out", "said"])
def test_item_17_a_robomimic_file_is_refused_in_one_line(robomimic, tmp_path, refused, kind, source):
    with h5py.File(robomimic, "a") as file:
        HOSTILE[kind](file["data/demo_0/obs"], str(tmp_path / "secret"))
    line = refused("convert", robomimic, *source, "--out", tmp_path / "x", "--success", "never")
    assert f"{robomimic}: not read: /data/demo_0/obs" in line and not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["minari", "robosuite"])
def test_item_17_every_reader_of_hdf5_refuses(tmp_path, refused, kind):
    path = tmp_path / ("data/main_data.hdf5" if kind == "minari" else "demo.hdf5")
    path.parent.mkdir(exist_ok=True)
    (path.parent / "metadata.json").write_text("{}")
    with h5py.File(path, "w") as file:
        group = file.create_group("episode_0" if kind == "minari" else "data/demo_0")
        group.create_dataset("actions", (4, 2), "f4", external=[(str(tmp_path / "secret"), 0, 32)])
        group["states"] = group["observations"] = np.zeros((4, 3))
    (tmp_path / "secret").write_bytes(b"x" * 32)
    source = tmp_path if kind == "minari" else path
    line = refused("convert", source, "--from", kind, "--out", tmp_path / "x", "--success", "never")
    assert "its data are in other files; refused" in line


def test_item_17_one_jpeg_many_times_is_no_bomb(tmp_path):
    """A Minari dataset of 1,000 entries that are all the same 4096 x 4096 JPEG would take 50 GB."""
    jpeg = cv2.imencode(".jpg", np.zeros((4096, 4096, 3), np.uint8))[1].tobytes()
    path = tmp_path / "theirs.hdf5"
    with h5py.File(path, "w") as file:
        cells = file.create_dataset("cam", (1000,), h5py.vlen_dtype(np.uint8), chunks=(1,))
        cells[0] = cells[999] = np.frombuffer(jpeg, np.uint8)
        images = arrays.rows(path, cells)
    assert images.shape == (1000, 4096, 4096, 3)
    first, block = next(frames.blocks(images))  # all that a conversion holds at a time
    assert first == 0 and block.nbytes == 4096 * 4096 * 3


def png(width, height):
    """An image that declares its size, and of which nothing has to be right beyond that."""
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in (head, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_item_17_an_image_s_size_is_looked_at_before_it_is_decoded():
    for side in (30_000, 9000):
        with pytest.raises(FormatError, match="more than 16,777,216 pixels"):
            pictures.picture(png(side, side))
    for damaged in (b"", b"no image", png(60_000, 60_000)[:20]):
        with pytest.raises(FormatError, match=r"missing or damaged"):
            pictures.picture(damaged)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pictures.picture(cv2.imencode(".png", image[..., ::-1])[1].tobytes()), image)


def test_item_17_a_video_s_size_is_looked_at_before_it_is_decoded(tmp_path, monkeypatch):
    video = Film(tmp_path / "a.mp4", 10, lerobot_film.OPTIONS)
    video.add(np.zeros((64, 64, 3), np.uint8))
    video.close()
    monkeypatch.setattr(lerobot_film, "MAX_PIXELS", 64 * 63)
    with pytest.raises(FormatError, match=r"a\.mp4: 64 x 64 pixels"):
        lerobot_film.frames(tmp_path / "a.mp4", 0.0, 1, 10)


@pytest.fixture
def lerobot(tmp_path):
    write_episode(tmp_path / "ours/episode_000000.hdf5", made(5, meta={"fps": 10, "env": {"name": "arm"}}))
    convert(tmp_path / "ours", tmp_path / "theirs", Choices(), writes="lerobot")
    return tmp_path / "theirs"


@pytest.mark.parametrize(
    "template",
    [
        "../outside.parquet",
        "data/../../outside.parquet",
        "/etc/outside.parquet",
        "data/{file_index:0900000000d}.parquet",
        "data/{file_index:0900000000}.parquet",
        "data/{file_index.__class__}.parquet",
        "data/{file_index[0]}.parquet",
        "data/{nobody}.parquet",
        "data/{file_index!r:>90000000}.parquet",
        "data/{",
        17,
    ],
)
def test_item_17_a_lerobot_path_stays_in_the_dataset_and_short(lerobot, tmp_path, refused, template):
    info = json.loads((lerobot / "meta/info.json").read_text())
    (lerobot / "meta/info.json").write_text(json.dumps({**info, "data_path": template}))
    line = refused("convert", lerobot, "--out", tmp_path / "x")
    assert "meta/info.json" in line and len(line) < 400 and not (tmp_path / "x").exists()


def test_item_17_the_paths_that_lerobot_writes_are_read(tmp_path):
    v3 = file_at(tmp_path, "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", chunk_index=1, file_index=1234)
    assert v3 == tmp_path / "data/chunk-001/file-1234.parquet"
    v2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    found = file_at(tmp_path, v2, video_key="observation.images.top", episode_chunk=0, episode_index=np.int64(7))
    assert found == tmp_path / "videos/chunk-000/observation.images.top/episode_000007.mp4"
    with pytest.raises(FormatError, match="leads out"):
        file_at(tmp_path, v2, video_key="../..", episode_chunk=0, episode_index=7)


def test_item_17_a_table_s_size_is_looked_at_before_it_is_read(lerobot, tmp_path, refused, monkeypatch):
    """4,000,000,000 equal numbers are 32 GB of memory and some kB of file; a hundredth of that shows it, too."""
    assert len(list(read_episodes([tmp_path / "ours"]))) == 1
    path = next(lerobot.glob("data/*/*.parquet"))
    parquet.write_table(pyarrow.table({"action": pyarrow.array(np.zeros(40_000_000))}), path)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(memory, "_groups", lambda: [500_000_000])
    with pytest.raises(UserError, match=r"0\.3 GB"):
        convert(lerobot, tmp_path / "x", Choices())
