"""Videos that are not whole: a frame that is missing must never shift the ones behind it to other steps."""

import numpy as np
import pytest

from agent.data.episode_file import write_episode
from agent.spec import UserError
from tools.common.video import Film
from tools.convert import convert
from tools.formats import lerobot_film
from tools.formats.common.foreign import Choices, FormatError

from .conftest import made

SIDE = 16


def shoot(path, numbers, fps=10):
    """A video of the frames `numbers`, each at its own time and as bright as its number is high."""
    made_of = Film(path, fps, lerobot_film.OPTIONS)
    for number in numbers:
        made_of.frames = number
        made_of.add(np.full((SIDE, SIDE, 3), 10 + 20 * number, np.uint8))
    made_of.close()
    return path


def seen(path, first, count, fps=10):
    """The numbers of the frames that come back."""
    return (
        np.round((lerobot_film.frames(path, first / fps, count, fps).mean(axis=(1, 2, 3)) - 10) / 20)
        .astype(int)
        .tolist()
    )


def test_frames_are_found_by_their_time(tmp_path):
    path = shoot(tmp_path / "whole.mp4", range(10))
    assert seen(path, 0, 10) == list(range(10)) and seen(path, 3, 4) == [3, 4, 5, 6] and seen(path, 9, 1) == [9]


@pytest.mark.parametrize(
    ("there", "first", "count", "says"),
    [
        ([0, 1, 2, 4, 5, 6, 7], 0, 7, "no frame at 0.3 s (number 4 of 7)"),  # one is missing inside
        ([0, 1, 2, 4, 5, 6, 7], 3, 2, "no frame at 0.3 s (number 1 of 2)"),  # the first
        (range(5), 0, 7, "no frame at 0.5 s (number 6 of 7)"),  # the last ones
        (range(5), 6, 1, "no frame at 0.6 s (number 1 of 1)"),  # all
    ],
)
def test_a_frame_that_is_missing_is_named(tmp_path, there, first, count, says):
    path = shoot(tmp_path / "gap.mp4", there)
    with pytest.raises(FormatError) as refused:
        seen(path, first, count)
    assert str(refused.value) == f"{path}: {says}"


def test_a_gap_elsewhere_in_the_video_does_not_matter(tmp_path):
    path = shoot(tmp_path / "gap.mp4", [0, 1, 2, 4, 5, 6, 7])
    assert seen(path, 0, 3) == [0, 1, 2] and seen(path, 4, 4) == [4, 5, 6, 7]


def test_a_dataset_whose_video_lacks_a_frame_is_refused_in_one_line(tmp_path):
    steps = 7
    episode = made(steps, (("front", (SIDE, SIDE)),))
    write_episode(tmp_path / "a" / "episode_000000.hdf5", episode)
    convert(tmp_path / "a", tmp_path / "lerobot", Choices(), writes="lerobot")
    video = next((tmp_path / "lerobot").rglob("*.mp4"))
    shoot(video, [0, 1, 2, 3, 5, 6, 7])
    with pytest.raises(UserError) as refused:
        convert(tmp_path / "lerobot", tmp_path / "b", Choices())
    line = f"{video}: no frame within half a period of 0.400 s, where its table has row 4; 1 of 7 rows have none"
    assert f"episode 0: {line}" in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "lerobot"]
