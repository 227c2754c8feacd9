import json

import imageio.v3 as iio
import numpy as np
import pytest

from agent.data.episode_file import episode_paths, read_episode, write_episode
from agent.spec import Episode, Transition
from tools.collect import collect


def write_by_hand(path, actions, success, camera="front", env=None, channels=3):
    """An episode with the given actions; a camera of 12x16 pixels and one state."""

    def look(step):
        return {camera: np.full((12, 16, channels), 40 + step, np.uint8), "q": np.full(2, step, np.float32)}

    steps = [
        Transition(look(t), np.array(a, np.float32), 0.5, success and last, not success and last, success and last,
                   intervention=t == 0, final_observation=look(t + 1) if last else None)
        for t, a in enumerate(actions) for last in [t == len(actions) - 1]
    ]  # fmt: skip
    write_episode(path, Episode.from_transitions(steps, {"env": env, "policy": "person", "robot": "r", "seed": 1}))


@pytest.fixture
def folder(tmp_path):
    folder, env = tmp_path / "demos", {"name": "fake", "options": {"size": 3}}
    write_by_hand(folder / "episode_000000.hdf5", [[0, 1], [0, -0.5]], True, env=env)
    write_by_hand(folder / "episode_000001.hdf5", [[0, 1], [0, 0.5], [0, 0], [0, 0]], False, env=env)
    return folder


def test_the_figures_are_those_of_the_files(folder, command):
    done = command("inspect", folder, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert (found["episodes"], found["steps"], found["success"]) == (2, 6, 0.5)
    assert found["length"] == {"min": 2, "median": 3, "max": 4}
    assert found["return"] == {"min": 1.0, "mean": 1.5, "max": 2.0}
    assert found["ends"] == {"terminated": 1, "truncated": 1}
    assert found["intervention_steps"] == pytest.approx(2 / 6)
    assert found["env"] == [{"value": {"name": "fake", "options": {"size": 3}}, "episodes": 2}]
    assert found["policy"] == [{"value": "person", "episodes": 2}]
    assert found["observations"]["front"] == {"shape": [12, 16, 3], "dtype": "uint8"}
    still, moving = found["actions"]
    assert still == {"min": 0, "max": 0, "mean": 0, "std": 0, "at_limits": 0}
    values = [1, -0.5, 1, 0.5, 0, 0]
    assert moving["min"] == -0.5 and moving["max"] == 1 and moving["at_limits"] == pytest.approx(2 / 6)
    assert (moving["mean"], moving["std"]) == pytest.approx((np.mean(values), np.std(values)))
    assert found["damaged"] == found["different"] == []


def test_the_report_for_people_warns_of_a_dimension_that_never_moves(folder, command):
    lines = command("inspect", folder, "--no-sheet").stdout.splitlines()
    assert "episodes       2, 6 steps" in lines
    assert [line.endswith("never moves") for line in lines[-2:]] == [True, False]
    assert not (folder / "contact_sheet.png").exists()


def test_states_that_hold_still_are_reported_in_one_line(folder, command):
    assert json.loads(command("inspect", folder, "--json", "--no-sheet").stdout)["still_states"] == []
    for path in episode_paths([folder]):
        episode = read_episode(path)
        episode.observations["q"][:, 1] = 0.25
        write_episode(path, episode)
    lines = command("inspect", folder, "--no-sheet").stdout.splitlines()
    assert len([line for line in lines if line.startswith("states that hardly vary in 8 rows: q[1] = 0.25; ")]) == 1
    found = json.loads(command("inspect", folder, "--json", "--no-sheet").stdout)
    assert found["still_states"] == [{"key": "q", "index": 1, "mean": 0.25, "std": 0.0}]


def test_a_file_with_nan_in_its_states_is_named_and_left_out(folder, command):
    path = folder / "episode_000001.hdf5"
    episode = read_episode(path)
    episode.observations["q"][2, 1] = np.nan
    write_episode(path, episode)
    done = command("inspect", folder, "--no-sheet")
    assert f"left out: {path}: 'q' has values that are not finite: nan at [2, 1]" in done.stderr
    assert "episodes       1, 2 steps" in done.stdout


def test_the_contact_sheet_shows_every_camera_in_time(folder, command):
    assert str(folder / "contact_sheet.png") in command("inspect", folder).stdout
    sheet = iio.imread(folder / "contact_sheet.png").astype(int)
    assert sheet.shape[1] > 6 * 100 and sheet.shape[0] > 2 * 96
    middle_of_first_row = sheet[80]
    shown = [value for value in range(30, 60) if (middle_of_first_row == value).all(-1).sum() > 100]
    assert shown == [40, 41, 42]  # two steps and the final observation, from left to right
    assert (
        np.flatnonzero((middle_of_first_row == 40).all(-1)).max()
        < np.flatnonzero((middle_of_first_row == 42).all(-1)).min()
    )


def test_the_sheet_has_at_most_twelve_rows(tmp_path, command):
    for number in range(15):
        write_by_hand(tmp_path / f"episode_{number:06d}.hdf5", [[0, 0]], True)
    command("inspect", tmp_path, "--sheet", tmp_path / "made" / "sheet.png")
    height = iio.imread(tmp_path / "made" / "sheet.png").shape[0]
    assert 12 * 96 < height < 13 * 150 and not (tmp_path / "contact_sheet.png").exists()


def test_a_truncated_file_is_named_and_left_out(folder, command, refused):
    whole, cut = folder / "episode_000000.hdf5", folder / "episode_000002.hdf5"
    cut.write_bytes(whole.read_bytes()[:-2000])
    done = command("inspect", folder, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["episodes"]) == (0, 2)
    assert len(found["damaged"]) == 1 and found["damaged"][0].startswith(f"{cut}: ")
    assert [str(cut) in line for line in done.stderr.splitlines() if line.startswith("left out")] == [True]
    assert str(cut) in refused("inspect", cut)  # nothing readable at all


def test_a_camera_that_is_not_rgb_is_named(tmp_path, refused):
    write_by_hand(tmp_path / "grey.hdf5", [[0, 0]], True, channels=1)
    assert f"{tmp_path}/grey.hdf5: camera 'front' is [12, 16, 1]" in refused("inspect", tmp_path)


def test_mixed_cameras_are_named_and_left_out(folder, command):
    write_by_hand(folder / "episode_000002.hdf5", [[0, 0]], True, camera="wrist")
    done = command("inspect", folder, "--json")
    (line,) = json.loads(done.stdout)["different"]
    assert line.startswith(f"{folder}/episode_000002.hdf5: differs from {folder}/episode_000000.hdf5")
    assert "camera 'front'" in line and "camera 'wrist'" in line
    assert json.loads(done.stdout)["episodes"] == 2 and f"left out: {line}" in done.stderr


def test_what_collect_records_can_be_inspected(demos, tmp_path, command):
    found = json.loads(command("inspect", demos, "--json", "--sheet", tmp_path / "sheet.png").stdout)
    episodes = [read_episode(path) for path in episode_paths([demos])]
    assert found["steps"] == sum(map(len, episodes)) and found["sheet"] == str(tmp_path / "sheet.png")
    assert found["success"] == pytest.approx(np.mean([e.succeeded for e in episodes]))


def test_missing_and_empty_places_are_named(tmp_path, refused):
    assert f"{tmp_path}/none" in refused("inspect", tmp_path / "none")
    assert f"{tmp_path}: no episode files" in refused("inspect", tmp_path)


def test_a_folder_with_other_cameras_is_not_continued(folder):
    from agent.spec import UserError
    from tools.recording.config import CollectConfig

    with pytest.raises(UserError, match="camera 'front'"):
        collect("fake", {}, "scripted", CollectConfig(episodes=1), folder)


def test_flags_name_their_episodes(folder, command):
    write_by_hand(folder / "episode_000002.hdf5", [[0.5, -0.3 * k % 1] for k in range(9)] + [[0, 0]] * 9, True)
    write_by_hand(folder / "episode_000003.hdf5", [[0.5, -0.3 * k % 1] for k in range(9)] + [[0, 0]] * 9, True)
    found = json.loads(command("inspect", folder, "--json", "--no-sheet").stdout)["flags"]
    names = [folder / f"episode_00000{number}.hdf5" for number in range(4)]
    idle = "idle for 50% of it, the last 9 steps"
    assert [each for each in found if each["kind"] in ("idle", "duplicate")] == [
        {"episode": str(names[2]), "kind": "idle", "text": idle},
        {"episode": str(names[3]), "kind": "idle", "text": idle},
        {"episode": str(names[3]), "kind": "duplicate", "text": "nearly equal to episode_000002.hdf5"},
    ]
    lines = command("inspect", folder, "--no-sheet").stdout.splitlines()
    assert "flags          idle (2): episode_000002, episode_000003" in lines
    assert "               duplicate (1): episode_000003" in lines
