import json

import imageio.v3 as iio
import pytest

from agent.data.episode_file import episode_paths, read_episode, write_episode
from agent.spec import UserError
from tools.common.rollout import make_env
from tools.edit import part
from tools.replay import execute


@pytest.fixture
def episode(demos):
    """A recording that succeeded, and took more than two steps to."""
    return next(e for e in map(read_episode, episode_paths([demos])) if e.succeeded and len(e) > 2)


@pytest.fixture
def env():
    return make_env("fake", {})


def test_recordings_repeat_exactly(demos, command):
    found = json.loads(command("replay", demos, "--execute", "--json").stdout)
    episodes = [read_episode(path) for path in episode_paths([demos])]
    assert [c["exact"] for c in found["episodes"]] == [True] * 6 and found["videos"] == []
    for comparison, episode in zip(found["episodes"], episodes, strict=True):
        assert comparison["state_deviation"] == comparison["image_difference"] == [0.0] * (len(episode) + 1)
        assert comparison["success"] == episode.succeeded and comparison["length"] == len(episode)
    assert not (demos / "videos").exists()


def test_an_altered_action_shows_one_observation_later(episode, env):
    episode.actions[1] = -episode.actions[1]
    found = execute(env, episode, "altered")
    assert not found.exact and found.first_deviation == 2
    assert found.state_deviation[:2] == [0, 0] and found.state_deviation[2] > 0
    assert "deviates from observation 2 on" in str(found)


def test_a_recording_that_was_cut_at_its_start_cannot_be_repeated(episode, env):
    assert execute(env, part(episode, 0, 2), "cut").exact
    with pytest.raises(UserError, match="cut: was cut and begins at step 1"):
        execute(env, part(episode, 1, 3), "cut")


def test_an_altered_image_is_found(episode, env):
    camera = next(iter(episode.spec.cameras))
    pixels = episode.observations[camera][1]
    pixels[0, 0, 0] ^= 128
    found = execute(env, episode, "altered")
    assert found.image_difference[1] == pytest.approx(128 / pixels.size) and not any(found.state_deviation)


def test_another_outcome_is_reported(episode, env):
    episode.success[:] = False
    found = execute(env, episode, "altered")
    assert found.success and not found.recorded_success and not found.exact
    assert "success (recorded: no success)" in str(found)


def test_an_episode_that_ends_early_is_reported(episode, env):
    episode.actions = episode.actions[[*range(len(episode)), -1]]  # one more than the environment takes
    episode.observations = {key: rows[[*range(len(rows)), -1]] for key, rows in episode.observations.items()}
    found = execute(env, episode, "altered")
    assert found.length == len(episode) - 1 and f"ended after {found.length} of {len(episode)} steps" in str(found)


def test_recorded_frames_become_a_video(demos, tmp_path, command):
    done = command("replay", demos, "--out", tmp_path, "--episodes", "0,2", "--fps", 12)
    assert done.stdout == f"2 videos in {tmp_path}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode_000000.mp4", "episode_000002.mp4"]
    episode = read_episode(demos / "episode_000002.hdf5")
    frames = iio.imread(tmp_path / "episode_000002.mp4", plugin="pyav")
    assert len(frames) == len(episode) + 1 and min(frames.shape[1:3]) >= 256
    assert iio.immeta(tmp_path / "episode_000002.mp4", plugin="pyav")["fps"] == 12


def test_recorded_and_executed_side_by_side(demos, tmp_path, command):
    command("replay", demos, "--out", tmp_path / "one", "--episodes", 0)
    done = command("replay", demos, "--execute", "--video", "--out", tmp_path / "two", "--episodes", 0)
    assert "1 of 1 exact, 1 with the recorded outcome" in done.stdout
    one, two = (iio.imread(tmp_path / name / "episode_000000.mp4", plugin="pyav") for name in ("one", "two"))
    assert len(one) == len(two) and two.shape[2] == 2 * one.shape[2] + 8
    left, right = two[:, 40:, : one.shape[2]].astype(int), two[:, 40:, -one.shape[2] :].astype(int)
    assert abs(left - right).mean() < 2 and left.std() > 1  # the same, but for the compression


@pytest.mark.parametrize(
    ("key", "says"), [("seed", "no seed and no state recorded"), ("env", "no environment recorded")]
)
def test_what_cannot_be_repeated_is_refused(demos, tmp_path, refused, key, says):
    episode = read_episode(demos / "episode_000000.hdf5")
    del episode.meta[key]
    write_episode(tmp_path / "a.hdf5", episode)
    assert f"a.hdf5: {says}" in refused("replay", tmp_path / "a.hdf5", "--execute")


def test_an_environment_that_changed_is_named(episode):
    with pytest.raises(UserError, match="camera"):
        execute(make_env("fake", {"image_size": 32}), episode, "a.hdf5")


def test_bad_places_are_named(demos, tmp_path, refused):
    assert f"{tmp_path}/none" in refused("replay", tmp_path / "none")
    (tmp_path / "cut.hdf5").write_bytes((demos / "episode_000000.hdf5").read_bytes()[:-3000])
    assert f"{tmp_path}/cut.hdf5" in refused("replay", tmp_path / "cut.hdf5")
    assert "--episodes 9" in refused("replay", demos, "--episodes", 9)


def test_the_simulator_repeats_a_recording_exactly(tmp_path, command):
    done = command(
        "collect", "--env", "sim", "--task", "Lift", "--device", "scripted", "--episodes", 1, "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(command("replay", tmp_path, "--execute", "--json").stdout)["episodes"]
    assert comparison["exact"] and len(comparison["state_deviation"]) == comparison["recorded_length"] + 1


def test_actions_that_mean_something_else_are_not_executed(demos, tmp_path, refused):
    """A data set's absolute targets, sent to an arm that takes steps, would make it jump."""
    episode = read_episode(episode_paths([demos])[0])
    episode.meta["env"]["actions"] = {"kind": "absolute", "quantity": "joint position"}
    write_episode(tmp_path / "episode_000000.hdf5", episode)
    says = refused("replay", tmp_path, "--execute")
    assert "their actions mean different things: kind: absolute against delta" in says and "environment 'fake'" in says


STRANGER = """
import gymnasium, pathlib
pathlib.Path(__file__).with_suffix(".ran").touch()
gymnasium.register("Strange-v0", lambda: None)
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "stranger.ran"


@pytest.mark.parametrize(
    "env", [{"name": "gym:stranger:Strange-v0"}, {"name": "real", "options": {"arm": "stranger:A"}}]
)
def test_a_recording_does_not_choose_code_to_run(demos, tmp_path, refused, stranger, env):
    episode = read_episode(next(demos.glob("*.hdf5")))
    episode.meta["env"] = env
    write_episode(tmp_path / "a.hdf5", episode)
    says = refused("replay", "--execute", tmp_path / "a.hdf5")
    assert "a.hdf5: the file names the environment" in says and f"--env {env['name']}" in says and not stranger.exists()
    refused("replay", "--execute", tmp_path / "a.hdf5", "--env", env["name"])
    assert stranger.exists() == (env["name"] != "real")  # typed: the module is run, but not that of an arm


def test_a_recording_is_not_repeated_in_another_environment(demos, refused):
    assert "recorded in 'fake', not in 'sim'" in refused("replay", "--execute", demos, "--env", "sim")
