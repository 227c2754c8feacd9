"""Sources with faults: all are found before anything is written, each is one plain line."""

import json
import shutil

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from agent.data.episode_file import read_episodes, write_episode
from agent.spec import UserError
from tools.convert import convert
from tools.formats.common.foreign import Choices

from . import lerobot_sets as sets
from .conftest import made

CHOICES = Choices(reward="zero", success="never")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def nan_state(source, episode):
    rows = np.arange(8, dtype=np.float32)
    rows[3] = np.nan
    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows), 2)
    file = sets.table_path(source, episode)
    whole = parquet.read_table(file)
    parquet.write_table(whole.set_column(0, "observation.state", values), file)


def test_item_27_all_faults_are_listed_at_once_and_skip_bad_leaves_those_out(tmp_path, command):
    source = sets.v21(tmp_path / "theirs", [4] * 8)
    sets.video_path(source, 1).unlink()
    nan_state(source, 2)
    sets.keep(source, 3, [])
    sets.table_path(source, 4).write_bytes(POINTER)
    sets.video_path(source, 5).write_bytes(POINTER)
    sets.shoot(sets.video_path(source, 6), range(9))
    flags = ["--reward", "zero", "--success", "never"]
    done = command("convert", source, "--out", tmp_path / "ours", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 7 and "6 episodes are damaged; --skip-bad leaves them out" in lines[0]
    for number, words in enumerate(
        ("no such file", "not finite", "episode 3 is not in it", "Git LFS pointer", "git lfs pull", "5 frames after"), 1
    ):
        assert f"episode {number}: " in lines[number] and words in lines[number], lines[number]
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    done = command("convert", source, "--out", tmp_path / "ours", *flags, "--skip-bad")
    assert done.returncode == 0 and done.stdout.count("left out: episode ") == 6, done.stderr
    assert [e.meta["source"]["episode"] for e in read_episodes([tmp_path / "ours"])] == [0, 7]


def test_item_27_a_video_that_only_decoding_finds_damaged_is_left_out_too(tmp_path):
    source = sets.v21(tmp_path / "theirs", [20, 20])
    video = sets.video_path(source, 1)
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + len(data) // 3] = bytes(len(data) // 3)
    video.write_bytes(data)
    with pytest.raises(UserError, match=r"episode 1: .*\.mp4"):
        convert(source, tmp_path / "ours", CHOICES)
    report = convert(source, tmp_path / "ours", CHOICES, skip_bad=True)
    assert "left out: episode 1" in report and len(list(read_episodes([tmp_path / "ours"]))) == 1


@pytest.mark.parametrize("scale", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fps": 0}, "'fps' is 0; expected a number above 0"),
        ({"fps": "fast"}, "'fps' is 'fast'"),
        ({"fps": None}, "'fps' is missing"),
        ({"features": []}, "'features' is []"),
        ({"features": {"action": 3}}, "feature 'action': 'dtype' is missing"),
        ({"codebase_version": 2.1}, "'codebase_version' is 2.1"),
        ({"codebase_version": "v9.0"}, "v3.0, v2.1 and v2.0 can be read"),
        ({"chunks_size": "many"}, "'chunks_size' is 'many'"),
        ({"total_episodes": 5}, "counts 5 episodes, meta/episodes lists 2"),
        ({"total_frames": 77}, "counts 77 frames, meta/episodes 8"),
        ({"video_path": None}, "a path is"),
    ],
)
def test_item_27_malformed_info_is_one_line_whatever_is_asked(tmp_path, refused, changes, words, scale):
    source = sets.v21(tmp_path / "theirs", [4, 4])
    sets.write_info(source, **changes)
    flags = ["--actions", "scale"] if scale else []
    line = refused("convert", source, "--out", tmp_path / "x", "--reward", "zero", "--success", "never", *flags)
    assert words in line and not (tmp_path / "x").exists()


def change_row(source, **changes):
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    rows = parquet.read_table(file).to_pylist()
    rows[1].update(changes)
    for name in [name for name, value in changes.items() if value is ...]:
        for row in rows:
            row.pop(name)
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.mark.parametrize("actions", [None, "scale"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data/chunk_index": ...}, "'data/chunk_index' is missing"),
        ({f"videos/{sets.CAMERA}/from_timestamp": ...}, "from_timestamp' is missing"),
        ({f"videos/{sets.CAMERA}/from_timestamp": -1.0}, "from_timestamp' is -1.0"),
        ({"length": -4}, "'length' is -4"),
        ({"episode_index": 0}, "meta/episodes has it more than once"),
        ({"data/file_index": 7}, "file-007.parquet: No such file"),
    ],
)
def test_item_27_malformed_rows_of_the_metadata_are_lines(tmp_path, changes, words, actions):
    source = sets.v30(tmp_path / "theirs", [4, 4])
    change_row(source, **changes)
    with pytest.raises(UserError) as refused:
        convert(source, tmp_path / "x", Choices(reward="zero", success="never", actions=actions))
    assert words in str(refused.value) and [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("actions", [None, "scale"])
def test_item_27_ragged_actions_are_one_line(tmp_path, actions):
    source = sets.v21(tmp_path / "theirs", [4, 4])
    file = sets.table_path(source, 1)
    whole = parquet.read_table(file)
    ragged = pyarrow.array([[0.0, 0.1], [0.0], [0.0, 0.1, 0.2], [0.1, 0.1]])
    parquet.write_table(whole.set_column(whole.column_names.index("action"), "action", ragged), file)
    with pytest.raises(UserError, match="episode 1: column 'action' has rows of different sizes"):
        convert(source, tmp_path / "x", Choices(reward="zero", success="never", actions=actions))


def test_item_27_names_as_openpi_writes_them(tmp_path, refused):
    source = sets.v21(tmp_path / "theirs", [4, 4])
    names = {sets.CAMERA: "image", "observation.state": "state", "action": "actions"}
    features = json.loads((source / "meta/info.json").read_text())["features"]
    sets.write_info(source, features={names[name]: feature for name, feature in features.items()})
    (source / f"videos/chunk-000/{sets.CAMERA}").rename(source / "videos/chunk-000/image")
    for episode in range(2):
        table = parquet.read_table(sets.table_path(source, episode))
        renamed = table.rename_columns([names.get(name, name) for name in table.column_names])
        parquet.write_table(renamed, sets.table_path(source, episode))
    flags = ["--reward", "zero", "--success", "never"]
    line = refused("convert", source, "--out", tmp_path / "x", *flags)
    assert "no feature 'action'; it has image, state, actions" in line and "--rename FEATURE=action" in line
    choices = Choices(reward="zero", success="never")
    choices.rename = {"actions": "action", "image": "front", "state": "proprio"}
    convert(source, tmp_path / "ours", choices)
    first = next(read_episodes([tmp_path / "ours"]))
    assert first.spec.cameras == {"front": (16, 16, 3)} and first.spec.states == {"proprio": 2}


def robomimic(path, **columns):
    with h5py.File(path, "w") as file:
        for name in ("demo_0", "demo_1", "demo_2"):
            demo = file.create_group(f"data/{name}")
            demo["actions"], demo["rewards"] = np.zeros((4, 2)), np.zeros(4)
            demo["obs/camera/rgb"] = np.full((4, 8, 8, 3), 7, np.uint8)
            demo["obs/camera/depth"] = np.ones((4, 8, 8), np.uint16)
            demo["obs/pose"] = np.zeros((4, 3))
            for column, value in columns.items():
                del demo[column]
                demo[column] = value
    return path


def test_item_27_nested_groups_are_flattened_and_renamed_with_slashes(tmp_path):
    path = robomimic(tmp_path / "a.hdf5")
    choices = Choices(success="never", rename={"observation/camera/rgb": "front", "obs/pose": "proprio"})
    report = convert(path, tmp_path / "ours", choices)
    first = next(read_episodes([tmp_path / "ours"]))
    assert first.spec.cameras == {"front": (8, 8, 3)} and first.spec.states == {"proprio": 3}
    assert "neither an RGB image nor a vector: camera.depth (uint16 [8, 8])" in report  # and item 16


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16, np.float64])
def test_item_27_servo_ticks_and_double_precision_are_actions(tmp_path, kind):
    ticks = np.array([[0, 4095], [1024, 2048], [2048, 0], [4095, 1024]], kind)
    path = robomimic(tmp_path / "a.hdf5", actions=ticks)
    with pytest.raises(UserError, match=r"actions reach 4\.[01]e\+03; --actions clip or --actions scale"):
        convert(path, tmp_path / "ours", Choices(success="never"))
    convert(path, tmp_path / "ours", Choices(success="never", actions="scale"))
    for episode in read_episodes([tmp_path / "ours"]):
        assert episode.actions.dtype == np.float32
        np.testing.assert_allclose(episode.actions, 2 * ticks.astype(np.float64) / 4095 - 1, atol=1e-6)


def test_item_27_filter_keys_of_robomimic_choose_demonstrations(tmp_path, refused):
    path = robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["mask/train"], file["mask/valid"] = np.array([b"demo_2", b"demo_0"]), np.array([b"demo_1"])
    report = convert(path, tmp_path / "all", Choices(success="never"))
    assert "filter keys: train (2), valid (1); all demonstrations were taken" in report and "3 episodes" in report
    convert(path, tmp_path / "some", Choices(success="never", filter_key="train"))
    assert [e.meta["source"]["demo"] for e in read_episodes([tmp_path / "some"])] == ["demo_0", "demo_2"]
    line = refused("convert", path, "--out", tmp_path / "x", "--success", "never", "--filter-key", "tests")
    assert "no filter key 'tests'; it has train, valid" in line


def test_item_27_isaac_lab_s_success_is_read(tmp_path):
    path = robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        for name, demo in file["data"].items():
            del demo["rewards"]
            demo.attrs["success"] = name != "demo_1"
    report = convert(path, tmp_path / "ours", Choices(reward="success"))
    found = list(read_episodes([tmp_path / "ours"]))
    assert [episode.succeeded for episode in found] == [True, False, True]
    assert [episode.rewards.tolist() for episode in found] == [[0, 0, 0, 1], [0] * 4, [0, 0, 0, 1]]
    assert "success: 2 of 3" in report


@pytest.mark.parametrize("kind", ["robomimic", "minari", "episodes"])
def test_item_27_one_bad_episode_of_an_hdf5_source_can_be_left_out(tmp_path, kind):
    for number in range(3):
        write_episode(tmp_path / "a" / f"episode_{number:06d}.hdf5", made(5, (("front", (16, 16)),), seed=number))
    source = tmp_path / "a"
    if kind != "episodes":
        source = tmp_path / ("b.hdf5" if kind == "robomimic" else "b")
        convert(tmp_path / "a", source, Choices(), writes=kind)
    file, group = {
        "robomimic": (source, "data/demo_1"),
        "minari": (source / "data/main_data.hdf5", "episode_1"),
        "episodes": (source / "episode_000001.hdf5", "data/demo_0"),
    }[kind]
    with h5py.File(file, "a") as opened:
        opened[group]["actions"][2] = np.nan
    with pytest.raises(UserError, match=r"not finite|checksum"):
        convert(source, tmp_path / "c", Choices())
    report = convert(source, tmp_path / "c", Choices(), skip_bad=True)
    assert report.count("left out:") == 1
    assert [episode.meta["seed"] for episode in read_episodes([tmp_path / "c"])] == [0, 2]


def test_item_27_all_bad_is_refused_even_so(tmp_path):
    source = sets.v21(tmp_path / "theirs", [4])
    shutil.rmtree(source / "videos")
    with pytest.raises(UserError, match="no such file"):
        convert(source, tmp_path / "ours", CHOICES, skip_bad=True)


def test_item_27_a_pointer_alone_is_called_that(tmp_path, refused):
    (tmp_path / "demo.hdf5").write_bytes(POINTER)
    assert "Git LFS pointer" in refused("convert", tmp_path / "demo.hdf5", "--out", tmp_path / "x")
