"""Pictures belong to the steps at whose time they were taken, whatever rows a table has lost."""

import numpy as np
import pytest

from agent.data.episode_file import read_episodes
from agent.spec import UserError
from tools.convert import convert
from tools.formats.common.foreign import Choices

from . import lerobot_sets as sets

CHOICES = Choices(reward="zero", success="never")
LENGTH = 12
KEPT = {
    "all": list(range(LENGTH)),
    "none at the start": list(range(3, LENGTH)),
    "none in the middle": [0, 1, 2, 7, 8, 9, 10, 11],
    "shuffled": np.random.default_rng(1).permutation(LENGTH).tolist(),
    "shuffled, trimmed": np.random.default_rng(1).permutation(np.arange(4, LENGTH)).tolist(),
}


def pairs(folder):
    """(number in the state, in the action, in the picture) of every step of each episode."""
    found = []
    for episode in read_episodes([folder]):
        states = episode.observations["state"][:-1, 0].astype(int).tolist()
        actions = np.round(episode.actions[:, 0] * 100).astype(int).tolist()
        images = [sets.number_of(image) for image in episode.observations["front"][:-1]]
        found.append(list(zip(states, actions, images, strict=True)))
    return found


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("version", [sets.v21, sets.v30])
def test_item_12_a_picture_is_the_one_of_its_step(tmp_path, version, kept):
    source = version(tmp_path / "theirs", [5, LENGTH, 4])
    sets.keep(source, 1, KEPT[kept])
    report = convert(source, tmp_path / "ours", CHOICES)
    steps = [range(5), sorted(KEPT[kept]), range(4)]
    assert pairs(tmp_path / "ours") == [[(step, step, step) for step in part] for part in steps]
    assert ("order: 1 of 1" in report) == ("shuffled" in kept)
    assert ("gaps: 1 of" in report) == ("middle" in kept)


def without_frame_index_and_time(source):
    """The table lost its first rows, and the rest was counted anew."""
    sets.keep(source, 1, range(3, LENGTH))
    if sets.table_path(source, 1).name.startswith("episode"):
        sets.set_column(source, 1, "frame_index", np.arange(LENGTH - 3))
        sets.set_column(source, 1, "timestamp", (np.arange(LENGTH - 3) / sets.FPS).astype(np.float32))
        sets.write_rows(source, [{"episode_index": n, "length": length} for n, length in enumerate((5, LENGTH - 3, 4))])
        sets.write_info(source, total_frames=5 + LENGTH - 3 + 4)


def time_alone_counted_anew(source):
    sets.keep(source, 1, range(3, LENGTH))
    sets.set_column(source, 1, "timestamp", (np.arange(LENGTH - 3) / sets.FPS).astype(np.float32))


def another_rate(source):
    sets.set_column(source, 1, "timestamp", (np.arange(LENGTH) / 30).astype(np.float32))


def one_row_twice(source):
    sets.keep(source, 1, [0, 1, 1, *range(2, LENGTH)])
    sets.write_rows(source, [{"episode_index": n, "length": length} for n, length in enumerate((5, LENGTH + 1, 4))])
    sets.write_info(source, total_frames=5 + LENGTH + 1 + 4)


def longer_video(source):
    sets.shoot(sets.video_path(source, 1), range(LENGTH + 1))


def shorter_video(source):
    sets.shoot(sets.video_path(source, 1), range(LENGTH - 1))


def end_of_the_table_lost(source):
    sets.keep(source, 1, range(LENGTH - 2))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_frame_index_and_time, "the video continues for 3 frames after the table's last row"),
        (time_alone_counted_anew, "timestamps are not frame_index / fps"),
        (another_rate, "timestamps are not frame_index / fps"),
        (one_row_twice, "rows of one frame_index more than once"),
        (longer_video, "the video continues for 1 frames after the table's last row"),
        (shorter_video, "no frame within half a period of 1.100 s"),
        (end_of_the_table_lost, "10 rows of it, and meta/episodes says 12"),
    ],
)
def test_item_12_what_cannot_be_paired_is_refused_and_can_be_left_out(tmp_path, spoil, words):
    source = sets.v21(tmp_path / "theirs", [5, LENGTH, 4])
    spoil(source)
    with pytest.raises(UserError) as refused:
        convert(source, tmp_path / "ours", CHOICES)
    assert words in str(refused.value) and "episode 1: " in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    report = convert(source, tmp_path / "ours", CHOICES, skip_bad=True)
    assert f"left out: episode 1: {source}" in report and words in report
    assert pairs(tmp_path / "ours") == [[(step, step, step) for step in range(length)] for length in (5, 4)]


def test_item_12_in_version_3_a_video_that_goes_on_after_the_table_is_a_fault(tmp_path):
    source = sets.v30(tmp_path / "theirs", [5, LENGTH, 4])
    sets.keep(source, 1, range(LENGTH - 2))
    with pytest.raises(UserError, match=r"episode 1: .*10 rows of it, and meta/episodes says 12"):
        convert(source, tmp_path / "ours", CHOICES)


def test_item_12_real_recording(real, tmp_path):
    """A real robot's 640 x 480 video: the frame of a late step is that of its time, with the first rows gone."""
    import shutil

    source = shutil.copytree(real("lerobot_v21_g1_6"), tmp_path / "theirs", copy_function=shutil.copy)
    for folder in [source, *source.rglob("*/")]:
        folder.chmod(0o755)
    for file in source.rglob("*.*"):
        if file.is_file():
            file.chmod(0o644)
    choices = Choices(reward="zero", success="never", actions="scale", resize=32)
    whole = convert(source, tmp_path / "whole", choices)
    assert "6 episodes, 1,749 steps" in whole
    sets.keep(source, 1, range(40, 297))
    for number in (0, 2, 3, 4, 5):  # which would only take time
        sets.table_path(source, number).write_bytes(b"")
    convert(source, tmp_path / "trimmed", choices, skip_bad=True)
    _, before, *_ = read_episodes([tmp_path / "whole"])
    (after,) = read_episodes([tmp_path / "trimmed"])
    assert len(after) == 257
    np.testing.assert_array_equal(after.observations["cam_high"], before.observations["cam_high"][40:])
    np.testing.assert_array_equal(after.observations["state"], before.observations["state"][40:])
