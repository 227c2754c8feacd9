"""What an HDF5 file from somebody else may make this program do: read itself, and take the memory that it holds."""

import os
import resource
import signal

import h5py
import numpy as np
import pytest

from agent import memory
from agent.data.episode_file import EpisodeFileError, read_episode, read_head, read_steps, write_episode
from agent.data.frames import Frames
from agent.data.hdf5 import UnsafeFile, check_memory, open_hdf5

SECRET = b"a secret key that is not to become an image" * 10


def set_external_storage(demo, folder):
    del demo["obs/cam"]
    demo.create_dataset("obs/cam", (6, 4, 4, 3), np.uint8, external=[(str(folder / "secret"), 0, 6 * 48)])


def set_external_link(demo, folder):
    with h5py.File(folder / "other.hdf5", "w") as other:
        other["cam"] = np.zeros((6, 4, 4, 3), np.uint8)
    del demo["obs/cam"]
    demo["obs/cam"] = h5py.ExternalLink(str(folder / "other.hdf5"), "cam")


def set_virtual(demo, folder):
    with h5py.File(folder / "other.hdf5", "w") as other:
        other["cam"] = np.zeros((6, 4, 4, 3), np.uint8)
    layout = h5py.VirtualLayout((6, 4, 4, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "cam", (6, 4, 4, 3))
    del demo["obs/cam"]
    demo.create_virtual_dataset("obs/cam", layout)


def set_soft_link(demo, folder):
    del demo["obs/cam"]
    demo["elsewhere"] = np.zeros((6, 4, 4, 3), np.uint8)
    demo["obs/cam"] = h5py.SoftLink("/data/demo_0/elsewhere")


def set_loop(demo, folder):
    demo["obs/again"] = demo


def set_compressed_bomb(demo, folder):
    del demo["obs/cam"]
    demo.create_dataset("obs/cam", (6, 60_000, 60_000, 3), np.uint8, chunks=(1, 600, 600, 3), compression="gzip")


def set_plain_bomb(demo, folder):
    del demo["obs/cam"]
    demo.create_dataset("obs/cam", (6, 60_000, 60_000, 3), np.uint8)  # none of it was ever written


def set_chunk_bomb(demo, folder):
    del demo["obs/cam"]
    shape, chunks = (6, 4, 4, 3), (100_000, 32, 32, 3)
    made = demo.create_dataset("obs/cam", shape, np.uint8, maxshape=(None, None, None, 3), chunks=chunks)
    assert made.id.get_storage_size() == 0


UNSAFE = {
    "external storage": set_external_storage,
    "external link": set_external_link,
    "virtual dataset": set_virtual,
    "soft link": set_soft_link,
    "a group in itself": set_loop,
    "compressed images of 60000 x 60000": set_compressed_bomb,
    "images of 60000 x 60000": set_plain_bomb,
    "large chunks": set_chunk_bomb,
}


@pytest.fixture
def unsafe(tmp_path, make_episode, request):
    path = tmp_path / "a.hdf5"
    write_episode(path, make_episode(6))
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["crc32"]
        UNSAFE[request.param](file["data/demo_0"], tmp_path)
    return path


@pytest.mark.parametrize("unsafe", UNSAFE, indirect=True)
@pytest.mark.parametrize("read", [read_episode, read_head, lambda path: read_steps(path, 0, 2)])
def test_item_17_an_episode_file_that_reads_other_files_or_declares_too_much_is_refused(unsafe, read):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EpisodeFileError, match=r"a\.hdf5: .*(refused|twice|are stored)") as caught:
        read(unsafe)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("unsafe", ["external storage"], indirect=True)
def test_item_17_the_attack_works_without_the_check(unsafe):
    """Otherwise the tests here would show nothing."""
    with h5py.File(unsafe) as file:
        assert file["data/demo_0/obs/cam"][()].tobytes() == SECRET[: 6 * 48]


def test_item_17_images_of_one_colour_compress_a_thousandfold_and_are_read(tmp_path):
    rows = np.full((20, 480, 640, 3), 7, np.uint8)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("cam", data=rows, chunks=(1, 480, 640, 3), compression="gzip", compression_opts=9)
    assert (tmp_path / "a.hdf5").stat().st_size < rows.nbytes / 500
    with open_hdf5(tmp_path / "a.hdf5") as file:
        check_memory(file)
        np.testing.assert_array_equal(file["cam"][()], rows)


def test_item_17_more_than_the_memory_is_refused_before_it_is_taken(tmp_path, make_episode, monkeypatch):
    write_episode(tmp_path / "a.hdf5", make_episode(50))
    monkeypatch.setattr(memory, "_groups", lambda: [20_000])
    with pytest.raises(EpisodeFileError, match=r"a\.hdf5: .*GB of memory"):
        read_episode(tmp_path / "a.hdf5")


@pytest.mark.parametrize("kind", [h5py.vlen_dtype(np.uint8), h5py.string_dtype(), h5py.ref_dtype, np.dtype("V8")])
def test_item_17_what_is_not_a_number_is_refused(tmp_path, make_episode, kind):
    write_episode(tmp_path / "a.hdf5", make_episode(6))
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["data/demo_0/obs/pos"]
        file["data/demo_0"].create_dataset("obs/pos", (6,), kind)
    for stream in (False, True):
        with pytest.raises(EpisodeFileError, match=r"/data/demo_0/obs/pos: .*numbers are expected"):
            read_episode(tmp_path / "a.hdf5", stream)


def test_item_17_texts_in_an_attribute_are_not_multiplied(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs.create("meta", ["x" * 1000] * 1000, dtype=h5py.string_dtype())
    with pytest.raises(UnsafeFile, match="'meta'"), open_hdf5(tmp_path / "a.hdf5"):
        pass


def write_as_before(path, episode):
    """With texts of variable length, as older releases and other programs write them."""
    write_episode(path, episode)
    with h5py.File(path, "r+") as file:
        for name in ("env_args", "meta"):
            text = file["data"].attrs[name].decode()
            del file["data"].attrs[name]
            file["data"].attrs[name] = text


def read_in_a_child(path):
    """How reading it ends: "read", "refused", or the number of a signal. HDF5 holds the lock when it loops."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        try:
            read_episode(path)
            os._exit(0)
        except EpisodeFileError:
            os._exit(1)
        finally:
            os._exit(2)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) or ["read", "refused", "failed"][os.WEXITSTATUS(status)]


@pytest.mark.parametrize("stream", [False, True])
def test_item_17_texts_of_our_files_are_in_no_heap(tmp_path, make_episode, stream):
    episode = make_episode(3)
    images = episode.observations["cam"]
    if stream:
        episode.observations["cam"] = Frames(images.shape, lambda first, end: images[first:end])
    episode.meta["note"] = "gr\u00f6\u00dfer"
    write_episode(tmp_path / "a.hdf5", episode)
    assert b"GCOL" not in (tmp_path / "a.hdf5").read_bytes()
    assert read_episode(tmp_path / "a.hdf5").meta == episode.meta


def test_item_17_a_meta_of_any_length_is_kept(tmp_path, make_episode):
    episode = make_episode(3)
    episode.meta["note"] = "x" * 200_000
    write_episode(tmp_path / "a.hdf5", episode)
    assert read_episode(tmp_path / "a.hdf5").meta == episode.meta


def test_item_17_a_damaged_size_in_the_heap_is_refused(tmp_path, make_episode):
    """HDF5 2.0 alone loops on some of these for ever."""
    path = tmp_path / "a.hdf5"
    write_as_before(path, make_episode(3))
    data = path.read_bytes()
    assert read_in_a_child(path) == "read"
    heap = data.index(b"GCOL")
    objects = [heap + 16]
    while objects[-1] < heap + 4096 - 16 and any(data[objects[-1] : objects[-1] + 2]):
        objects.append(
            objects[-1] + 16 + -(-int.from_bytes(data[objects[-1] + 8 : objects[-1] + 16], "little") // 8) * 8
        )
    ends = []
    for at in [heap + 8, *(at + 8 for at in objects)]:
        for position, mask in ((at, 0xFF), (at, 0x80), (at + 1, 0xFF), (at + 7, 0xFF)):
            damaged = bytearray(data)
            damaged[position] ^= mask
            path.write_bytes(damaged)
            ends.append(read_in_a_child(path))
        damaged[at : at + 8] = b"\xf0" + 7 * b"\xff"
        path.write_bytes(damaged)
        ends.append(read_in_a_child(path))
    assert "refused" in ends and set(ends) <= {"read", "refused"}, ends


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"proc": "0::/box\n", "box/memory.max": "1000", "box/memory.current": "300"}, 700),
        ({"proc": "0::/box/in\n", "box/in/memory.max": "max", "box/memory.max": "900", "box/memory.current": "1"}, 899),
        ({"proc": "0::/box\n", "memory.max": "500", "memory.current": "100", "memory.stat": "inactive_file 50"}, 450),
        (
            {
                "proc": "4:memory:/box\n",
                "memory/box/memory.limit_in_bytes": "1000",
                "memory/box/memory.usage_in_bytes": "900",
                "memory/box/memory.stat": "total_inactive_file 200",
            },
            300,
        ),
    ],
    ids=["version 2", "the limit above", "of a container", "version 1"],
)
def test_item_28_a_container_s_limit_is_memory_s_limit(tmp_path, monkeypatch, files, left):
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4000 kB\nMemAvailable: 2000 kB\n")
    assert memory.available_bytes() == 2000 * 1024
    for name, text in files.items():
        path = tmp_path / "proc/self/cgroup" if name == "proc" else tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.endswith("max"):
            (path.parent / "memory.stat").touch()
        if path.name.endswith("max") and not (path.parent / "memory.current").exists():
            (path.parent / "memory.current").write_text("0")
    assert memory.available_bytes() == left
