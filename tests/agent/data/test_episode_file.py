import dataclasses
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from agent.data import episode_file
from agent.data.episode_file import (
    EpisodeFileError,
    episode_paths,
    read_episode,
    read_episodes,
    read_outcome,
    read_steps,
    write_episode,
)
from agent.data.frames import blocks, image_chunks
from agent.spec import STEP_COLUMNS, Episode, UserError

META = {"robot": "r", "boot": "b", "number": 3, "seed": 5, "env": {"name": "fake", "options": {"size": 8}}}


def make(steps=6, seed=0, size=8, meta=META):
    rng = np.random.default_rng(seed)
    end = np.arange(steps) == steps - 1
    return Episode(
        observations={
            "front": rng.integers(0, 256, (steps + 1, size, size, 3), dtype=np.uint8),
            "state": rng.normal(size=(steps + 1, 4)).astype(np.float32),
        },
        actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=end,
        truncated=np.zeros(steps, bool),
        success=end,
        policy_versions=np.arange(steps),
        interventions=np.arange(steps) % 2 == 0,
        times_s=1.7e9 + np.arange(steps) / 10,
        observation_ages_s=np.arange(steps, dtype=np.float32),
        action_latencies_s=np.arange(steps, dtype=np.float32) / 8,
        meta=dict(meta),
    )


@pytest.mark.parametrize("steps", [1, 6])
def test_round_trip(tmp_path, steps):
    episode = make(steps)
    write_episode(tmp_path / "sub" / "a.hdf5", episode)
    assert read_episode(tmp_path / "sub" / "a.hdf5").equals(episode)


def test_the_layout_is_robomimics(tmp_path):
    episode = make(6)
    write_episode(tmp_path / "a.hdf5", episode)
    with h5py.File(tmp_path / "a.hdf5") as file:
        data, demo = file["data"], file["data/demo_0"]
        assert list(file) == ["data"] and list(data) == ["demo_0"]
        assert data.attrs["total"] == 6 and demo.attrs["num_samples"] == 6
        env_args = json.loads(data.attrs["env_args"])
        assert env_args["env_name"] == "fake" and env_args["env_kwargs"] == {"size": 8} and env_args["type"] == 1
        assert demo["obs/front"].shape == (6, 8, 8, 3) and demo["obs/front"].dtype == np.uint8
        assert demo["obs/state"].shape == (6, 4)
        assert demo["actions"].shape == (6, 2) and demo["rewards"].shape == (6,)
        np.testing.assert_array_equal(demo["obs/front"][()], episode.observations["front"][:6])
        np.testing.assert_array_equal(demo["final_obs/front"][()], episode.observations["front"][6])
        np.testing.assert_array_equal(demo["dones"][()], [0, 0, 0, 0, 0, 1])


def test_each_frame_is_stored_once(tmp_path):
    episode = make(50, size=32)
    write_episode(tmp_path / "a.hdf5", episode)
    images = episode.observations["front"].nbytes  # noise, which does not compress
    assert images < (tmp_path / "a.hdf5").stat().st_size < 1.25 * images


def test_a_file_that_is_cut_is_named(tmp_path):
    path = tmp_path / "a.hdf5"
    write_episode(path, make())
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(EpisodeFileError, match=r"a\.hdf5"):
            read_episode(path)


@pytest.mark.parametrize("signature", [b"HEAP", b"TREE", b"SNOD"])
def test_a_file_that_is_damaged_inside_is_named(tmp_path, signature):
    """h5py says RuntimeError for some of these. (Random bytes are no test: HDF5 itself can crash on them.)"""
    path = tmp_path / "a.hdf5"
    write_episode(path, make(3, size=2))
    whole = path.read_bytes()
    places = [place for place in range(len(whole)) if whole.startswith(signature, place)]
    assert places
    for place in places:
        path.write_bytes(whole[:place] + b"XXXX" + whole[place + 4 :])
        with pytest.raises(EpisodeFileError, match=r"a\.hdf5") as caught:
            read_episode(path)
        assert "\n" not in str(caught.value)


def edit(path, change):
    write_episode(path, make())
    with h5py.File(path, "r+") as file:
        change(file)


FOREIGN = {
    "empty": lambda file: file.__delitem__("data"),
    "no demo_0": lambda file: file["data"].__delitem__("demo_0"),
    "no actions": lambda file: file["data/demo_0"].__delitem__("actions"),
    "no column": lambda file: file["data/demo_0"].__delitem__("interventions"),
    "no final observation": lambda file: file["data/demo_0"].__delitem__("final_obs"),
    "no meta": lambda file: file["data"].attrs.__delitem__("meta"),
    "meta no JSON": lambda file: file["data"].attrs.__setitem__("meta", "{"),
    "demo_0 is data": lambda file: (file["data"].__delitem__("demo_0"), file["data"].create_dataset("demo_0", data=1)),
    "actions is a group": lambda file: (
        file["data/demo_0"].__delitem__("actions"),
        file["data/demo_0"].create_group("actions"),
    ),
    "rewards are text": lambda file: (
        file["data/demo_0"].__delitem__("rewards"),
        file["data/demo_0"].create_dataset("rewards", data=[b"x"] * 6),
    ),
    "a row too few": lambda file: (
        file["data/demo_0"].__delitem__("rewards"),
        file["data/demo_0"].create_dataset("rewards", data=np.zeros(5, np.float32)),
    ),
    "no end": lambda file: file["data/demo_0/terminated"].__setitem__(5, False),
    "an end inside": lambda file: file["data/demo_0/truncated"].__setitem__(2, True),
    "not finite": lambda file: file["data/demo_0/rewards"].__setitem__(2, np.nan),
    "action beyond its limits": lambda file: file["data/demo_0/actions"].__setitem__((2, 1), -1.5),
    "grey camera": lambda file: (
        file["data/demo_0"].__delitem__("obs"),
        file["data/demo_0"].__delitem__("final_obs"),
        file["data/demo_0"].create_dataset("obs/front", data=np.zeros((6, 8, 8, 1), np.uint8)),
        file["data/demo_0"].create_dataset("final_obs/front", data=np.zeros((8, 8, 1), np.uint8)),
    ),
    "action of one axis": lambda file: (
        file["data/demo_0"].__delitem__("actions"),
        file["data/demo_0"].create_dataset("actions", data=np.zeros(6, np.float32)),
    ),
    "action without axes": lambda file: (
        file["data/demo_0"].__delitem__("actions"),
        file["data/demo_0"].create_dataset("actions", data=np.float32(0)),
    ),
    "no observations": lambda file: (
        file["data/demo_0/obs"].__delitem__("front"),
        file["data/demo_0/obs"].__delitem__("state"),
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused_by_name(tmp_path, name):
    path = tmp_path / "foreign.hdf5"
    edit(path, FOREIGN[name])
    with pytest.raises(EpisodeFileError, match=r"foreign\.hdf5") as caught:
        read_episode(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verdict", ["", "failure", "success"])
def test_the_outcome_is_that_of_the_whole_episode(tmp_path, verdict):
    episode = make(meta={**META, "marked": verdict} if verdict else META)
    write_episode(tmp_path / "a.hdf5", episode)
    whole, (quick, images) = read_episode(tmp_path / "a.hdf5"), read_outcome(tmp_path / "a.hdf5")
    assert images and quick.meta == whole.meta and len(quick) == len(whole)
    for name in ("rewards", "terminated", "truncated", "success", "interventions"):
        assert np.array_equal(getattr(quick, name), getattr(whole, name))


@pytest.mark.parametrize("name", ["empty", "text"])
def test_an_outcome_of_a_foreign_file_is_refused_by_name(tmp_path, name):
    path = tmp_path / "foreign.hdf5"
    write_episode(path, make())
    with h5py.File(path, "a") as file:
        del file["data/demo_0/success"]
        file["data/demo_0/success"] = [b"yes"] * 6 if name == "text" else np.zeros(0, bool)
    with pytest.raises(EpisodeFileError, match=r"foreign\.hdf5: .*its columns are not numbers") as caught:
        read_outcome(path)
    assert "\n" not in str(caught.value)


def test_a_byte_that_flipped_is_never_read_as_data(tmp_path, make_episode):
    """Wherever it flips: the file is refused, or what it says is unchanged (a byte that means nothing)."""
    episode = make_episode(6)
    write_episode(tmp_path / "whole.hdf5", episode)
    data = (tmp_path / "whole.hdf5").read_bytes()
    refused = 0
    for position in range(0, len(data), 37):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        (tmp_path / "flipped.hdf5").write_bytes(flipped)
        try:
            read = read_episode(tmp_path / "flipped.hdf5")
        except EpisodeFileError:
            refused += 1
        else:
            for key, rows in episode.observations.items():
                np.testing.assert_array_equal(read.observations[key], rows)
            for name in ("actions", *STEP_COLUMNS):
                np.testing.assert_array_equal(getattr(read, name), getattr(episode, name))
    assert refused > 100


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(EpisodeFileError, match=r"none\.hdf5: no such file"):
        read_episode(tmp_path / "none.hdf5")
    with pytest.raises(EpisodeFileError, match=r"nowhere: no such"):
        episode_paths([tmp_path / "nowhere"])
    with pytest.raises(EpisodeFileError, match="no episode files"):
        episode_paths([tmp_path])
    assert issubclass(EpisodeFileError, UserError)


class Crash(Exception):
    pass


def crash(*ignored, **ignored_too):
    raise Crash


@pytest.mark.parametrize("moment", ["write", "sync", "rename"])
def test_a_crash_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.hdf5"
    write_episode(path, make(seed=1))
    target = {"write": (episode_file, "_write"), "sync": (os, "fsync"), "rename": (os, "replace")}[moment]
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(*target, crash)
        write_episode(path, make(seed=2))
    assert read_episode(path).equals(make(seed=1))
    assert list(tmp_path.iterdir()) == [path]


def test_parts_of_a_killed_process_are_no_episodes(tmp_path, monkeypatch):
    """kill -9 in mid-write: nobody cleans up, but nobody reads the part either."""
    write_episode(tmp_path / "b.hdf5", make())
    seen = []
    monkeypatch.setattr(os, "replace", lambda aside, path: seen.append((aside, os.listdir(tmp_path))))
    write_episode(tmp_path / "a.hdf5", make())
    aside, names = seen[0]
    assert sorted(names) == sorted(["b.hdf5", aside.name])
    aside.write_bytes(b"half an episode")
    assert episode_paths([tmp_path]) == [tmp_path / "b.hdf5"]


def test_a_disk_that_gets_full_anywhere_in_the_file_is_an_error_and_nothing_more(tmp_path):
    """In a process of its own, whose files may only get so long: HDF5 raised other errors there, or crashed at exit."""
    write_episode(tmp_path / "whole.hdf5", make())
    source = f"""
import resource
from agent.data.episode_file import read_episode, write_episode
episode = read_episode({str(tmp_path / "whole.hdf5")!r})
for size in range(0, {(tmp_path / "whole.hdf5").stat().st_size}, 512):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        write_episode({str(tmp_path / "cut.hdf5")!r}, episode)
    except OSError as error:
        print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, set(done.stdout.splitlines()), done.stderr) == (0, {"File too large"}, "")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.hdf5"]


def test_the_file_and_its_name_are_synced(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.path.isdir(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("rename"), replace(*names)))
    write_episode(tmp_path / "a.hdf5", make())
    assert order == [False, "rename", True]  # the data, the rename, the folder


def test_reading_many(tmp_path):
    for number, name in enumerate("cab"):
        write_episode(tmp_path / f"{name}.hdf5", make(seed=number))
    (tmp_path / "notes.txt").write_text("not an episode")
    assert [path.name for path in episode_paths([tmp_path])] == ["a.hdf5", "b.hdf5", "c.hdf5"]
    assert episode_paths([tmp_path / "b.hdf5", tmp_path])[0].name == "b.hdf5"
    read = list(read_episodes([tmp_path]))
    assert [episode.equals(make(seed=seed)) for episode, seed in zip(read, (1, 2, 0), strict=True)] == [True] * 3


def test_episodes_of_another_shape_are_named(tmp_path):
    write_episode(tmp_path / "a.hdf5", make())
    write_episode(tmp_path / "b.hdf5", make(size=16))
    with pytest.raises(EpisodeFileError, match=r"b\.hdf5: differs from .*a\.hdf5: .*'front'"):
        list(read_episodes([tmp_path]))


def test_every_column_is_compared():
    """The tests above compare with Episode.equals: it must not be blind to one."""
    assert {f.name for f in dataclasses.fields(Episode)} == {"observations", "actions", "meta", *STEP_COLUMNS}


def test_files_from_before_ages_were_recorded_are_read(tmp_path, monkeypatch):
    """Their checksum is of the columns that they have."""
    older = {name: dtype for name, dtype in STEP_COLUMNS.items() if name not in episode_file.NEWER}
    assert len(older) == len(STEP_COLUMNS) - 2
    with monkeypatch.context() as then:
        then.setattr(episode_file, "STEP_COLUMNS", older)
        write_episode(tmp_path / "a.hdf5", make())
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert "observation_ages_s" not in file["data/demo_0"]
    zeros = np.zeros(6, np.float32)
    expected = dataclasses.replace(make(), observation_ages_s=zeros, action_latencies_s=zeros)
    assert read_episode(tmp_path / "a.hdf5").equals(expected)
    assert [step.observation_age_s for step in read_steps(tmp_path / "a.hdf5", 2, 2)] == [0.0, 0.0]


def moving(steps=21, size=64):
    """As an arm's camera sees it: a scene with texture, of which little changes from frame to frame."""
    episode = make(steps, size=size)
    scene = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    front = np.repeat(scene[None], steps + 1, 0)
    for number in range(steps + 1):
        front[number, number : number + 9, 20:29] = 255 - number
    return dataclasses.replace(episode, observations={**episode.observations, "front": front})


@pytest.mark.parametrize("chunks", ["one frame", "bands"])
def test_files_with_a_chunk_for_each_frame_are_read_as_those_in_bands(tmp_path, monkeypatch, chunks):
    """Releases before bands wrote the first kind."""
    episode, path = moving(), tmp_path / "a.hdf5"
    if chunks == "one frame":
        monkeypatch.setattr(episode_file, "image_chunks", lambda shape: (1, *shape[1:]))
    write_episode(path, episode)
    with h5py.File(path) as file:
        assert file["data/demo_0/obs/front"].chunks == ((1, 64, 64, 3) if chunks == "one frame" else (8, 32, 64, 3))
    assert read_episode(path).equals(episode)
    streamed = read_episode(path, stream=True)
    np.testing.assert_array_equal(streamed.observations["front"][:], episode.observations["front"])
    for first, count in ((0, 4), (5, 7), (16, 8), (20, 1)):
        read, steps = read_steps(path, first, count), episode.transitions()[first : first + count]
        assert len(read) == len(steps)
        for one, other in zip(read, steps, strict=True):
            np.testing.assert_array_equal(one.observation["front"], other.observation["front"])
            np.testing.assert_array_equal(one.action, other.action)
            assert (one.final_observation is None) == (other.final_observation is None) == (not one.last)
    if read[-1].last:
        np.testing.assert_array_equal(read[-1].final_observation["front"], episode.observations["front"][-1])


def test_frames_that_are_alike_are_stored_together(tmp_path, monkeypatch):
    episode = moving(size=128)  # a frame of 49 kB: further back than gzip looks
    write_episode(tmp_path / "bands.hdf5", episode)
    monkeypatch.setattr(episode_file, "image_chunks", lambda shape: (1, *shape[1:]))
    write_episode(tmp_path / "frames.hdf5", episode)
    bands, frames = ((tmp_path / f"{name}.hdf5").stat().st_size for name in ("bands", "frames"))
    assert bands < 0.3 * frames


@pytest.mark.parametrize(
    "shape, chunks",
    [
        ((100, 64, 64, 3), (8, 32, 64, 3)),
        ((100, 84, 84, 3), (8, 21, 84, 3)),
        ((100, 128, 128, 3), (8, 16, 128, 3)),
        ((100, 480, 640, 3), (8, 3, 640, 3)),
        ((100, 720, 1280, 3), (1, 720, 1280, 3)),
        ((3, 8, 8, 3), (3, 8, 8, 3)),
        ((100, 2, 2048, 3), (8, 1, 2048, 3)),
        ((100, 2, 4096, 3), (8, 1, 4096, 3)),
    ],
)
def test_images_are_cut_into_bands_and_read_in_whole_chunks(shape, chunks):
    assert image_chunks(shape) == chunks
    images = np.broadcast_to(np.uint8(0), shape)
    found = list(blocks(images))
    assert all(first % chunks[0] == 0 for first, _ in found)
    assert sum(len(block) for _, block in found) == shape[0]


def test_any_other_column_must_be_there(tmp_path):
    for name in STEP_COLUMNS:
        edit(tmp_path / "a.hdf5", lambda file, name=name: file["data/demo_0"].__delitem__(name))
        with pytest.raises(EpisodeFileError, match=r"a\.hdf5"):
            read_episode(tmp_path / "a.hdf5")


MALFORMED = {
    "a list": [],
    "a number": 5,
    "unmarked is a number": {"marked": "failure", "unmarked": 5},
    "unmarked beyond the end": {"marked": "failure", "unmarked": [[99, 0.0, False, False, True]]},
    "unmarked of texts": {"marked": "failure", "unmarked": [["a", "b"]]},
}


@pytest.mark.parametrize("meta", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_meta_is_refused_in_one_line(tmp_path, meta):
    write_episode(tmp_path / "a.hdf5", make(6))
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["data"].attrs["meta"] = json.dumps(meta)
    with pytest.raises(EpisodeFileError, match=r"a\.hdf5: .*its meta") as caught:
        read_episode(tmp_path / "a.hdf5")
    assert "\n" not in str(caught.value)
