"""Depth is never written as an 8-bit picture: it is left out, and the report has a line of it."""

import av
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from agent.data.episode_file import read_episodes
from tools.convert import convert
from tools.formats.common.foreign import Choices

from . import lerobot_sets as sets

CHOICES = Choices(reward="zero", success="never")
DEPTH = "observation.images.depth"


def with_feature(source, feature):
    sets.write_info(source, features={**sets.INFO["features"], DEPTH: feature})


@pytest.mark.parametrize("told", [{"video.is_depth_map": True}, {"is_depth_map": True}])
def test_item_16_a_video_that_is_said_to_be_depth(tmp_path, told):
    source = sets.v21(tmp_path / "theirs", [4])
    with_feature(source, {"dtype": "video", "shape": [16, 16, 3], "info": told})
    report = convert(source, tmp_path / "ours", CHOICES)
    assert f"dropped, depth (8 bits a pixel cannot hold it): {DEPTH}" in report
    assert list(next(read_episodes([tmp_path / "ours"])).spec.cameras) == ["front"]


def test_item_16_a_video_whose_pixels_have_one_deep_channel(tmp_path):
    source = sets.v21(tmp_path / "theirs", [4])
    with_feature(source, {"dtype": "video", "shape": [16, 16, 1]})
    path = source / f"videos/chunk-000/{DEPTH}/episode_000000.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("ffv1", rate=sets.FPS)
        stream.width = stream.height = 16
        stream.pix_fmt = "gray16le"
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), 1234, np.uint16), format="gray16le")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert f"dropped, depth (8 bits a pixel cannot hold it): {DEPTH}" in convert(source, tmp_path / "ours", CHOICES)


@pytest.mark.parametrize("deep", [True, False])
def test_item_16_images_of_16_bits_in_a_table(tmp_path, deep):
    source = sets.v21(tmp_path / "theirs", [4])
    with_feature(source, {"dtype": "image", "shape": [16, 16, 1]})
    images = [np.full((16, 16), 300 * n if deep else n, np.uint16 if deep else np.uint8) for n in range(4)]
    cells = [{"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None} for image in images]
    file = sets.table_path(source, 0)
    parquet.write_table(parquet.read_table(file).append_column(DEPTH, pyarrow.array(cells)), file)
    report = convert(source, tmp_path / "ours", CHOICES)
    assert (f"dropped, depth (8 bits a pixel cannot hold it): {DEPTH}" in report) == deep
    episode = next(read_episodes([tmp_path / "ours"]))
    if not deep:
        assert [int(image.mean()) for image in episode.observations["depth"]] == [0, 1, 2, 3, 3]
