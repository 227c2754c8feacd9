"""Images that are read block by block are those of the array, however they are asked for."""

import itertools

import h5py
import numpy as np
import pytest

from agent.data import frames
from agent.data.frames import CHUNK_FRAMES, Frames, blocks, image_chunks, span

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 4, 6, 3), dtype=np.uint8)


class Reads:
    """Frames of IMAGES. What is read is noted, and refused outside of them."""

    def __init__(self):
        self.noted, self.frames = [], Frames(IMAGES.shape, self.read)

    def read(self, first, end):
        assert 0 <= first < end <= len(IMAGES)
        self.noted.append((first, end))
        return IMAGES[first:end]


MADE = {
    "as they are": (lambda f: f, lambda a: a),
    "a span": (lambda f: f.span(3, 17), lambda a: a[3:17]),
    "a span to beyond the end": (lambda f: span(f, 5, 99), lambda a: a[5:]),
    "a span of a span": (lambda f: f.span(2, 20).span(4, 9), lambda a: a[6:11]),
    "one more": (lambda f: f.followed_by(IMAGES[7]), lambda a: np.concatenate([a, IMAGES[7:8]])),
    "the last again": (lambda f: f.followed_by(), lambda a: np.concatenate([a, a[-1:]])),
    "one more, spanned": (lambda f: f.followed_by(IMAGES[7]).span(18, 22), lambda a: np.stack([*a[18:], IMAGES[7]])),
    "changed": (lambda f: f.mapped((2, 3, 3), lambda a: a[:, ::2, ::2]), lambda a: a[:, ::2, ::2]),
}


@pytest.mark.parametrize("name", MADE)
def test_each_image_and_each_slice_is_that_of_the_array(name):
    make, expected = MADE[name]
    found, array = make(Reads().frames), expected(IMAGES)
    assert (found.shape, len(found), found.dtype, found.ndim) == (array.shape, len(array), np.uint8, 4)
    for number in range(-len(array), len(array)):
        np.testing.assert_array_equal(found[number], array[number])
    for first, end in itertools.product([None, 0, 1, 8, len(array) - 1, len(array), 50, -3], repeat=2):
        np.testing.assert_array_equal(found[first:end], array[first:end])
    assert [first for first, _ in blocks(found)] == [0]
    np.testing.assert_array_equal(next(blocks(found))[1], array)


@pytest.mark.parametrize("number", [len(IMAGES), len(IMAGES) + 1, -len(IMAGES) - 1])
def test_an_image_that_is_not_there_is_an_index_error(number):
    with pytest.raises(IndexError, match=f"image {number} of 21"):
        Reads().frames[number]


@pytest.mark.parametrize("step", [-1, 2])
def test_images_in_another_order_are_refused(step):
    with pytest.raises(ValueError, match="in order"):
        Reads().frames[::step]


def test_a_span_of_nothing_is_empty():
    reads = Reads()
    assert [len(reads.frames.span(first, end)) for first, end in ((4, 4), (9, 4), (30, 40))] == [0, 0, 0]
    assert reads.frames[4:4].shape == reads.frames.span(30, 40)[:].shape == (0, 4, 6, 3) and not reads.noted


def test_the_image_after_a_file_is_read_without_the_others():
    reads = Reads()
    np.testing.assert_array_equal(reads.frames.followed_by(IMAGES[7])[21], IMAGES[7])
    assert not reads.noted
    np.testing.assert_array_equal(reads.frames.followed_by()[21], IMAGES[20])
    assert reads.noted == [(20, 21)]


@pytest.mark.parametrize("block_bytes", [1, 72, 5 * 72, 8 * 72, 11 * 72, 16 * 72, 20 * 72])
def test_blocks_are_in_order_without_gaps_and_of_whole_chunks(monkeypatch, block_bytes):
    monkeypatch.setattr(frames, "BLOCK_BYTES", block_bytes)
    reads, found = Reads(), []
    for first, block in blocks(reads.frames):
        assert first == len(found) and block.nbytes <= max(72, block_bytes)
        found += list(block)
    np.testing.assert_array_equal(np.stack(found), IMAGES)
    chunks = [number for first, end in reads.noted for number in {row // CHUNK_FRAMES for row in range(first, end)}]
    if block_bytes >= CHUNK_FRAMES * 72:
        assert len(chunks) == len(set(chunks)), "a chunk is unpacked twice"


def test_blocks_of_rows_without_bytes():
    (only,) = blocks(np.zeros((3, 0), np.float32))
    assert only[0] == 0 and only[1].shape == (3, 0)


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 480, 640), (9, 84, 84), (8, 60, 4000), (40, 1, 3), (0, 8, 8)])
def test_chunks_are_bands_of_rows_that_h5py_takes(tmp_path, shape):
    count, height, width = shape
    chunk = image_chunks((*shape, 3))
    bands = -(-height // chunk[1])
    assert chunk[0] == min(CHUNK_FRAMES, max(1, count)) and chunk[2:] == (width, 3)
    assert chunk[1] == 1 or chunk[1] * width * 3 <= frames.CHUNK_BYTES + width * 3
    assert 0 <= bands * chunk[1] - height < bands, "bands of about one height"
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("x", (max(1, count), height, width, 3), np.uint8, chunks=chunk)


def test_frames_of_which_a_block_has_few_are_not_cut():
    assert image_chunks((8, 1080, 1920, 3)) == (1, 1080, 1920, 3)
