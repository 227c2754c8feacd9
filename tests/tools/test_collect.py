import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import envs.scripted
from agent import cli
from agent.data.episode_file import episode_paths, read_episode
from envs.fake import FakeEnv
from tools.collect import Scripted, collect, record, recording_folder
from tools.common.rollout import make_env
from tools.recording.config import CollectConfig

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start_endless(folder):
    """A collection in its own process, once it has recorded three episodes."""
    words = [
        "-m",
        "tools.collect",
        "--env",
        "fake",
        "--device",
        "scripted",
        "--episodes",
        "100000",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (folder / "episode_000002.hdf5").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    return process


def test_an_episode_says_where_it_comes_from(demos):
    assert names(demos) == [f"episode_{k:06d}.hdf5" for k in range(6)]
    episodes = [read_episode(path) for path in episode_paths([demos])]
    assert [e.meta["seed"] for e in episodes] == [7, 8, 9, 10, 11, 12]
    assert {e.meta["policy"] for e in episodes} == {"scripted"} and {e.meta["robot"] for e in episodes} == {"collect"}
    assert episodes[0].meta["env"]["name"] == "fake" and episodes[0].meta["env"]["options"]
    for episode in episodes:
        assert np.abs(episode.actions).max() <= 1 and (np.diff(episode.times_s) >= 0).all()
        assert abs(episode.times_s[0] - time.time()) < 600
    assert 0 < sum(e.succeeded for e in episodes) < 6  # half of them are spoilt on purpose


def test_what_is_recorded_is_the_action_after_clipping():
    class Wild(Scripted):
        def act(self, observation):
            return 5 * np.ones(env.action_space.shape)

    env = make_env("fake", {})
    episode = record(env, Wild(env, CollectConfig()), 0, cli.Stop())
    assert (episode.actions == 1).all() and episode.actions.dtype == np.float32


def test_two_goes_equal_one(demos, tmp_path):
    for episodes in (2, 4):
        collect("fake", {}, "scripted", CollectConfig(episodes=episodes, noise=0.3, failure_rate=0.5, seed=7), tmp_path)
    assert names(tmp_path) == names(demos)
    for path in episode_paths([tmp_path]):
        again, once = read_episode(path), read_episode(demos / path.name)
        again.times_s = once.times_s
        assert again.equals(once)


def test_numbers_go_on_after_the_highest(tmp_path):
    config = CollectConfig(episodes=2)
    collect("fake", {}, "scripted", config, tmp_path)
    (tmp_path / "episode_000000.hdf5").unlink()  # a person threw it away
    collect("fake", {}, "scripted", config, tmp_path)
    assert names(tmp_path) == [f"episode_{k:06d}.hdf5" for k in (1, 2, 3)]
    assert read_episode(tmp_path / "episode_000003.hdf5").meta["seed"] == 3


def test_kill_9_keeps_every_finished_episode_and_the_next_go_continues(tmp_path):
    process = start_endless(tmp_path)
    process.kill()
    process.communicate()
    (tmp_path / ".episode_000999.hdf5.1.part").write_bytes(b"killed while writing")
    before = {path.name: read_episode(path) for path in episode_paths([tmp_path])}
    assert len(before) >= 3
    collect("fake", {}, "scripted", CollectConfig(episodes=1), tmp_path)
    assert names(tmp_path) == [f"episode_{k:06d}.hdf5" for k in range(len(before) + 1)]
    assert all(read_episode(tmp_path / name).equals(episode) for name, episode in before.items())


def test_what_a_killed_process_left_half_written_goes_and_nothing_else(tmp_path):
    half = [".episode_000000.hdf5.123.part", ".episode_000007.hdf5.9.part"]
    others = [".notes.part", "episode_000001.hdf5.part", ".episode_000002.hdf5", "readme.txt", ".lift.part.mp4"]
    for name in [*half, *others]:
        (tmp_path / name).write_bytes(b"x")
    with recording_folder(tmp_path) as first:
        assert first == 0 and names(tmp_path) == sorted(others)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_cleanly(tmp_path, number):
    process = start_endless(tmp_path)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    paths = episode_paths([tmp_path])
    assert out.startswith(f"stopped: recorded {len(paths)} of 100000 episodes in {tmp_path}: success rate ")
    assert names(tmp_path) == [path.name for path in paths]  # nothing half written
    assert all(read_episode(path).rewards.size for path in paths)


def test_the_summary_is_right(demos, tmp_path, command):
    flags = ["--env", "fake", "--noise", 0.3, "--failure-rate", 0.5, "--seed", 7]
    done = command("collect", "--device", "scripted", "--episodes", 6, "--out", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    episodes = [read_episode(path) for path in episode_paths([demos])]
    success, length = np.mean([e.succeeded for e in episodes]), np.mean([len(e) for e in episodes])
    says = f"recorded 6 of 6 episodes in {tmp_path}: success rate {success:.2f}, mean length {length:.1f} steps, "
    assert done.stdout.startswith(says)


def test_states_that_hold_still_are_reported_at_the_end(tmp_path, monkeypatch, capsys):
    seen = FakeEnv._observation

    def broken(env):
        observation = seen(env)
        observation["proprio"][2] = -0.5
        return observation

    collect("fake", {}, "scripted", CollectConfig(episodes=5), tmp_path / "good")
    assert "hardly vary" not in capsys.readouterr().err
    monkeypatch.setattr(FakeEnv, "_observation", broken)
    collect("fake", {}, "scripted", CollectConfig(episodes=5), tmp_path / "broken")
    assert ": proprio[2] = -0.5; check" in capsys.readouterr().err
    collect("fake", {}, "scripted", CollectConfig(episodes=4), tmp_path / "few")
    assert "hardly vary" not in capsys.readouterr().err


def test_another_environment_cannot_continue_a_folder(demos, refused):
    before = {name: os.stat(demos / name).st_mtime_ns for name in names(demos)}
    says = refused("collect", "--env", "fake", "--image-size", 20, "--device", "scripted", "--out", demos)
    assert f"{demos}/episode_000000.hdf5" in says and "against 20" in says
    assert before == {name: os.stat(demos / name).st_mtime_ns for name in names(demos)}


def test_the_missing_flag_is_named(refused):
    assert refused("collect", "--env", "fake", "--device", "scripted") == "error: missing: --out FOLDER"
    assert refused("collect", "--env", "fake") == "error: missing: --device NAME, --out FOLDER"


def test_two_collectors_do_not_share_a_folder(tmp_path, refused):
    process = start_endless(tmp_path)
    try:
        says = refused("collect", "--env", "fake", "--device", "scripted", "--out", tmp_path)
        assert f"{tmp_path}: another tools.collect" in says
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--env", "fak", "--device", "scripted"], "fak"),
        (["--env", "fake", "--device", "scriptd"], "(did you mean 'scripted'?)"),
        (["--env", "fake", "--device", "scripted", "--nois", "0.1"], "--nois (did you mean '--noise'?)"),
        (["--env", "fake", "--device", "scripted", "--episodes", "0"], "--episodes 0: at least one"),
        (["--env", "fake", "--device", "scripted", "--episodes", "many"], "episodes is 'many'"),
        (["--env", "fake"], "missing: --device NAME"),
        (["--env", "fake", "--device", "scripted", "--horizon", "0"], "horizon is 0"),
        (["--env", "fake", "--device", "scripted", "--retry-rate", "0.5"], "'reach' makes no second attempt"),
        (["--env", "gym:Pendulum-v1", "--device", "scripted"], "no scripted expert"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path, refused, arguments, says):
    assert says in refused("collect", *arguments, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_is_needed_but_not_for_the_list_of_fields(refused, command):
    assert "--out" in refused("collect", "--env", "fake", "--device", "scripted")
    done = command("collect", "--env", "fake", "--help-config")
    assert done.returncode == 0 and "retry_rate" in done.stdout


def test_the_expert_gets_every_rate_of_the_config(monkeypatch):
    monkeypatch.setattr(envs.scripted.ReachExpert, "misses", ("beside",))
    env = make_env("fake", {})
    env.reset(seed=4)
    device = Scripted(env, CollectConfig(noise=0.1, failure_rate=0.2, retry_rate=0.3))
    device.reset(4)
    expert = device._expert
    assert (expert.noise, expert.failure_rate, expert.retry_rate) == (0.1, 0.2, 0.3)


def test_a_file_in_the_folders_place_is_named(tmp_path, refused):
    (tmp_path / "file").touch()
    says = refused("collect", "--env", "fake", "--device", "scripted", "--out", tmp_path / "file")
    assert str(tmp_path / "file") in says


def test_an_episode_says_what_its_actions_mean(demos):
    stated = {str(read_episode(path).meta["env"]["actions"]) for path in episode_paths([demos])}
    assert len(stated) == 1 and "'kind': 'delta'" in stated.pop()


def test_item_22_a_start_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), recording_folder(tmp_path / "demos" / "lift"):
        raise RuntimeError("the camera is not there")
    assert not list(tmp_path.iterdir())
    with recording_folder(tmp_path / "demos" / "lift") as first:
        assert first == 0
        (tmp_path / "demos" / "lift" / "episode_000000.hdf5").touch()
    assert (tmp_path / "demos" / "lift" / "episode_000000.hdf5").exists()
