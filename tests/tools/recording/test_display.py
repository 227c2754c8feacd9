import numpy as np

from tools.recording.display import in_characters, side_by_side, status_line

STATUS = {"kept": 2, "asked": 30, "state": "recording", "step": 4, "return": 0.5, "success": False,
          "gripper": 1.0, "motion": np.array([0.5, 0, -1, 0, 0, 0.25]), "enabled": True}  # fmt: skip


def test_the_status_line():
    observation = {"top": np.zeros((4, 4, 3), np.uint8), "proprio": np.array([1, -0.25, 3, 4], np.float32)}
    says = "2 kept of 30 | recording | step 4 | return 0.5 | closed | x+0.50 z-1.00 c+0.25 | proprio 1.000 -0.250 3.000"
    assert status_line(observation, STATUS) == says
    other = {**STATUS, "enabled": False, "success": True, "gripper": -1.0}
    assert "| open | not enabled" in status_line({}, other) and "recording (success)" in status_line({}, other)
    assert "| still" in status_line({}, {**STATUS, "motion": np.zeros(6)})


def test_cameras_of_two_sizes_stand_side_by_side():
    one, two = np.full((10, 10, 3), 50, np.uint8), np.full((20, 40, 3), 200, np.uint8)
    picture = side_by_side({"one": one, "two": two, "proprio": np.zeros(3)}, 5)
    assert picture.shape == (5, 15, 3) and (picture[:, :5] == 50).all() and (picture[:, 5:] == 200).all()
    assert side_by_side({"proprio": np.zeros(3)}, 5) is None


def test_a_character_has_two_pixels():
    picture = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], np.uint8)
    assert in_characters(picture) == [
        "\x1b[38;2;1;2;3;48;2;7;8;9m▀\x1b[38;2;4;5;6;48;2;10;11;12m▀\x1b[0m",
    ]
