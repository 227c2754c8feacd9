"""The command: what it finds out, what it asks for, what it reports, and that it leaves nothing half done."""

import json
import os

import h5py
import numpy as np
import pytest

from agent.config import RewardConfig
from agent.data.episode_file import read_episodes, write_episode
from agent.data.returns import rewards_and_returns
from agent.spec import UserError
from tools.convert import convert
from tools.formats.common.foreign import Choices
from tools.formats.format import format_of

from .conftest import made


@pytest.fixture
def foreign(tmp_path):
    """A robomimic file that somebody else wrote: float64, no next_obs, no success; its rewards can be left out."""

    def write(rewards=True, scale=1.0, dones=(0, 0, 0, 1)):
        path = tmp_path / "theirs.hdf5"
        with h5py.File(path, "w") as file:
            for number in (10, 9):
                demo = file.create_group(f"data/demo_{number}")
                demo["actions"] = np.full((4, 2), scale * number / 10) * [1, -0.5]
                demo["obs/robot0_eef_pos"] = np.arange(12.0).reshape(4, 3)
                demo["obs/agentview_image"] = np.full((4, 8, 8, 3), number, np.uint8)
                demo["obs/depth"] = np.zeros((4, 8, 8, 1), np.float32)
                demo["states"] = np.zeros((4, 5))
                demo["dones"] = np.array(dones)
                if rewards:
                    demo["rewards"] = np.array([0.0, 0, 0, number == 9])
        return path

    return write


def test_names_are_mapped_and_what_is_lost_is_said(foreign, tmp_path, command):
    mapping = tmp_path / "map.yaml"
    mapping.write_text("rename: {agentview_image: front}\ndrop: []\n")
    options = ["--map", mapping, "--rename", "robot0_eef_pos=pose", "--success", 1, "--resize", 4]
    done = command("convert", foreign(), "--out", tmp_path / "ours", *options)
    assert done.returncode == 0, done.stderr
    nine, ten = read_episodes([tmp_path / "ours"])
    assert nine.spec.cameras == {"front": (4, 4, 3)} and nine.spec.states == {"pose": 3}
    assert nine.observations["front"].max() == 9 and nine.succeeded and not ten.succeeded
    assert nine.terminated[-1] and ten.truncated[-1] and nine.meta["source"]["demo"] == "demo_9"
    assert np.array_equal(nine.observations["pose"][-1], nine.observations["pose"][-2])
    for words in (
        "(robomimic)",
        "2 episodes, 8 steps (4 to 4 an episode), 1 succeed",
        "dropped, neither an RGB image nor a vector: depth",
        "dropped: states",
        "renamed: agentview_image is front",
        "rounded from float64 to float32: robot0_eef_pos",
        "final observation: not in the source",
        "success: where the reward is 1 or more, as requested",
    ):
        assert words in done.stdout, words


def test_rewards_and_success_are_never_made_up(foreign, tmp_path, refused):
    assert "does not say which episodes succeeded; --success end" in refused(
        "convert", foreign(), "--out", tmp_path / "x"
    )
    path = foreign(rewards=False)
    assert "no rewards in it; --reward sparse-at-end" in refused("convert", path, "--out", tmp_path / "x")
    convert(path, tmp_path / "sparse", Choices(reward="sparse-at-end"))
    for episode in read_episodes([tmp_path / "sparse"]):
        assert episode.rewards.tolist() == [0, 0, 0, 1] and episode.success.tolist() == [False] * 3 + [True]
        assert episode.terminated[-1]
    convert(path, tmp_path / "zero", Choices(reward="zero", success="never"))
    for episode in read_episodes([tmp_path / "zero"]):
        assert not episode.rewards.any() and not episode.succeeded and episode.truncated[-1]


def test_a_dense_reward_can_be_made_the_binary_one_of_the_success_that_it_shows(foreign, tmp_path):
    report = convert(foreign(), tmp_path / "binary", Choices(reward="success", success="0.5", end="success"))
    assert "rewards: 1 where there is a success, else 0, as requested" in report
    nine, ten = read_episodes([tmp_path / "binary"])
    assert nine.rewards.tolist() == [0, 0, 0, 1] and nine.terminated[-1] and nine.succeeded
    assert ten.rewards.tolist() == [0, 0, 0, 0] and ten.truncated[-1] and not ten.succeeded
    convert(foreign(rewards=False), tmp_path / "end", Choices(reward="success", success="end"))
    assert [e.rewards.sum() for e in read_episodes([tmp_path / "end"])] == [1, 1]


def authors_returns(rewards):
    """Of a trajectory of 0 and 1 with terminal steps inside, 10 (r - 1) + 5 and gamma 0.99 (nakamotoo/Cal-QL)."""
    found, following = [], 0.0
    for reward in rewards[::-1]:
        following = 10 * (reward - 1) + 5 + 0.99 * following * (1 - reward)
        found.append(following)
    return found[::-1]


def test_each_success_can_end_an_episode_as_in_the_published_adroit_data(foreign, tmp_path):
    """Cut after the last success, and each one terminal: an episode of its own for each."""
    path, rewards = foreign(), np.array([0, 0, 1, 1, 0, 1, 0], np.float32)
    with h5py.File(path, "a") as file:
        del file["data/demo_9"]
        group = file["data/demo_10"]
        for name in ("actions", "obs/robot0_eef_pos", "obs/agentview_image", "obs/depth", "states", "dones", "rewards"):
            shape = group[name].shape[1:]
            del group[name]
            numbers = np.arange(7.0).reshape(7, *[1] * len(shape)) / 10
            group[name] = rewards if name == "rewards" else np.broadcast_to(numbers, (7, *shape))
        del group["obs/agentview_image"]
        group["obs/agentview_image"] = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    report = convert(path, tmp_path / "ours", Choices(reward="success", success="1", end="each-success"))
    assert "cut: 1 of 7 (14.3%) steps, after the last success" in report and "3 episodes, 6 steps" in report
    returns = []
    for episode, first, length in zip(read_episodes([tmp_path / "ours"]), (0, 3, 4), (3, 1, 2), strict=True):
        ends = np.arange(length) == length - 1
        assert np.array_equal(episode.terminated, ends) and np.array_equal(episode.success, ends)
        numbers = np.arange(first, first + length + 1)
        assert episode.actions[:, 0] == pytest.approx(numbers[:-1] / 10)
        assert episode.observations["robot0_eef_pos"][:, 0] == pytest.approx(numbers / 10)
        assert episode.observations["agentview_image"][:, 0, 0, 0].tolist() == numbers.tolist()
        returns += rewards_and_returns(episode, RewardConfig(scale=10.0, bias=-5.0), 0.99)[1].tolist()
    assert returns == pytest.approx(authors_returns(rewards[:6].tolist()))


def test_actions_beyond_one_need_a_decision(foreign, tmp_path):
    path = foreign(scale=2.0)
    with pytest.raises(UserError, match=r"demo_9: actions reach 1\.8; --actions clip or --actions scale"):
        convert(path, tmp_path / "x", Choices(success="end"))
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob(".x*"))
    report = convert(path, tmp_path / "clipped", Choices(success="end", actions="clip"))
    assert "8 of 16 (50.0%) values lay outside [-1, 1] and were clipped" in report
    assert {e.actions[0, 0] for e in read_episodes([tmp_path / "clipped"])} == {1.0}
    convert(path, tmp_path / "scaled", Choices(success="end", actions="scale"))
    nine, ten = read_episodes([tmp_path / "scaled"])
    assert nine.actions[0].tolist() == [-1, 1] and ten.actions[0].tolist() == [1, -1]
    assert nine.meta["action_range"] == [[1.8, -1.0], [2.0, -0.9]]


def test_scaled_each_dimension_has_the_range_of_the_whole_source_and_one_that_never_moves_is_0(foreign, tmp_path):
    path = foreign()
    with h5py.File(path, "a") as file:
        for name, first in (("demo_9", [[-1, 0.3], [1, 0.3], [0, 0.3], [2, 0.3]]), ("demo_10", [[3, 0.3]] * 4)):
            del file[f"data/{name}/actions"]
            file[f"data/{name}/actions"] = np.array(first, np.float64)
    with np.errstate(all="raise"):
        convert(path, tmp_path / "x", Choices(success="end", actions="scale"))
    nine, ten = read_episodes([tmp_path / "x"])
    assert nine.actions.tolist() == [[-1, 0], [0, 0], [-0.5, 0], [0.5, 0]] and ten.actions.tolist() == [[1, 0]] * 4
    assert nine.meta["action_range"] == ten.meta["action_range"] == [[-1, 0.3], [3, 0.3]]


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("truncated", [False, True])
def test_an_episode_that_just_stops_is_truncated_and_what_its_end_says_stays(foreign, tmp_path, terminated, truncated):
    path = foreign()
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            demo["terminated"], demo["truncated"] = [False] * 3 + [terminated], [False] * 3 + [truncated]
    convert(path, tmp_path / "x", Choices(success="never"))
    for episode in read_episodes([tmp_path / "x"]):
        assert episode.terminated.tolist() == [False] * 3 + [terminated]
        assert episode.truncated.tolist() == [False] * 3 + [truncated or not terminated]


def test_the_last_action_can_be_dropped_instead(foreign, tmp_path):
    convert(foreign(), tmp_path / "x", Choices(success="never", final="drop"))
    episode = next(read_episodes([tmp_path / "x"]))
    assert len(episode) == 3 and episode.observations["robot0_eef_pos"][-1].tolist() == [9, 10, 11]


def test_dones_inside_an_episode_are_reported(foreign, tmp_path):
    report = convert(foreign(dones=(0, 1, 0, 1)), tmp_path / "x", Choices(success="end"))
    assert "2 of 8 (25.0%) steps say 'done' before the last" in report


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rename", "nobody=x"], "no observation 'nobody'; it has agentview_image, depth, robot0_eef_pos"),
        (["--rename", "robot0_eef_pos"], "expected SOURCE=NAME"),
        (["--rename", "robot0_eef_pos=agentview_image"], "two observations would be called 'agentview_image'"),
        (["--drop", "nobody"], "no observation 'nobody'"),
        (["--to", "lerobo"], "did you mean 'lerobot'"),
        (["--from", "robosuit"], "did you mean 'robosuite'"),
        (["--reward", "sparse"], "sparse-at-end or success or zero"),
        (["--success", "sometimes"], "end, never, or a number"),
        (["--to", "lerobot"], "--fps says how many"),
        (["--from", "minari"], "metadata.json is missing"),
        (["--no-ops", "drop"], "--no-ops: steps that do nothing are told apart in robosuite's"),
        (["--fps", 10], "--fps: only a LeRobotDataset has a rate"),
        (["--instruction", "lift"], "--instruction: only a LeRobotDataset has the task"),
    ],
)
def test_bad_input_is_one_line(foreign, tmp_path, refused, options, words):
    success = [] if "--success" in options else ["--success", "never"]
    assert words in refused("convert", foreign(), "--out", tmp_path / "x", *success, *options)
    assert not (tmp_path / "x").exists()


def test_nothing_that_is_there_is_overwritten(foreign, tmp_path, refused):
    (tmp_path / "x").mkdir()
    assert "already exists" in refused("convert", foreign(), "--out", tmp_path / "x", "--success", "end")
    assert "no such file or folder" in refused("convert", tmp_path / "none", "--out", tmp_path / "y")
    (tmp_path / "empty.hdf5").write_text("no")
    assert "none of episodes, lerobot" in refused("convert", tmp_path / "empty.hdf5", "--out", tmp_path / "y")


def test_another_conversion_to_the_same_place_is_left_alone(foreign, tmp_path):
    theirs, left = (tmp_path / f".x.{process}.part" for process in (os.getppid(), 2**22 + 1))  # no pid is that large
    theirs.mkdir(), left.mkdir()
    convert(foreign(), tmp_path / "x", Choices(success="end"))
    assert theirs.exists() and not left.exists() and len(list(read_episodes([tmp_path / "x"]))) == 2


def test_episodes_of_one_lerobot_dataset_have_one_rate(tmp_path):
    for number, hz in enumerate((10, 20)):
        write_episode(tmp_path / f"ours/episode_{number:06d}.hdf5", made(5, meta={"fps": hz, "env": {"name": "arm"}}))
    with pytest.raises(UserError, match="episode 1 was recorded at 20 Hz, episode 0 at 10"):
        convert(tmp_path / "ours", tmp_path / "x", Choices(), writes="lerobot")
    convert(tmp_path / "ours", tmp_path / "x", Choices(fps=15), writes="lerobot")
    assert json.loads((tmp_path / "x/meta/info.json").read_text())["fps"] == 15


def test_a_damaged_source_leaves_nothing_behind(tmp_path, refused):
    convert_from = tmp_path / "lerobot"
    for number in range(2):
        write_episode(tmp_path / "a" / f"episode_{number:06d}.hdf5", made(5, (("front", (16, 16)),), seed=number))
    convert(tmp_path / "a", convert_from, Choices(), writes="lerobot")
    assert format_of(convert_from) == "lerobot"
    video = next(convert_from.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    assert "not a video, or damaged" in refused("convert", convert_from, "--out", tmp_path / "b")
    table = next(convert_from.glob("data/*/*.parquet"))
    table.write_bytes(table.read_bytes()[:100])
    assert "not a parquet file, or damaged" in refused("convert", convert_from, "--out", tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "lerobot"]


@pytest.mark.parametrize("missing", ["actions", "obs"])
def test_an_incomplete_source_is_named(foreign, tmp_path, refused, missing):
    path = foreign()
    with h5py.File(path, "a") as file:
        del file[f"data/demo_9/{missing}"]
    for more in ([], ["--actions", "scale"]):
        line = refused("convert", path, "--from", "robomimic", "--out", tmp_path / "x", "--success", "never", *more)
        assert f"{path}: demo_9: '{missing}' is missing" in line and not (tmp_path / "x").exists()


def test_a_truncated_source_is_named_and_not_the_target(foreign, tmp_path, refused):
    path = foreign()
    path.write_bytes(path.read_bytes()[:1500])
    for flags in (["--from", "robomimic"], []):
        line = refused("convert", path, *flags, "--out", tmp_path / "x", "--success", "never")
        assert f"{path}" in line and f"{tmp_path / 'x'}" not in line


def test_our_own_episodes_say_themselves_what_others_are_asked_for(tmp_path, refused):
    write_episode(tmp_path / "a" / "episode_000000.hdf5", made(5))
    for flags in (["--reward", "zero"], ["--success", "never"], ["--end", "success"], ["--actions", "clip"]):
        line = refused("convert", tmp_path / "a", "--to", "robomimic", "--out", tmp_path / "x", *flags)
        assert flags[0] in line and "our own episodes" in line


@pytest.mark.parametrize("text", ["[rename]", "drop: 3", "rename: [a]", "rename: {a: 1}"])
def test_a_map_of_another_kind_is_named(foreign, tmp_path, refused, text):
    (tmp_path / "map.yaml").write_text(text)
    line = refused("convert", foreign(), "--out", tmp_path / "x", "--success", "never", "--map", tmp_path / "map.yaml")
    assert f"--map {tmp_path / 'map.yaml'}" in line


def test_success_is_a_number_or_a_word(foreign, tmp_path, refused):
    assert "end, never, or a number" in refused("convert", foreign(), "--out", tmp_path / "x", "--success", "nan")
