"""Episodes and the live robot as .rrd files, read back by Rerun itself where it is installed."""

import sys
import threading

import cv2
import numpy as np
import pytest

from agent.data.episode_file import episode_paths, read_episode, write_episode
from agent.env_record import meaning_of_episode
from agent.spec import UserError
from robot_server.control import Control
from robot_server.control_client import Operator
from tools import rerun as tool


@pytest.fixture
def rrd():
    """rrd(path): entity -> its columns of the one recording, name -> list of rows."""
    reader = pytest.importorskip("rerun.chunk", reason="needs rerun-sdk").RrdReader

    def read(path):
        [_], columns = reader(path).recordings(), {}
        for chunk in reader(path).stream().to_chunks():
            batch = chunk.to_record_batch()
            known = columns.setdefault(chunk.entity_path.lstrip("/"), {})
            for name, rows in zip(batch.schema.names, batch.columns, strict=True):
                rows = rows.cast("int64") if "timestamp" in str(rows.type) else rows  # nanoseconds
                known.setdefault(name, []).extend(rows.to_pylist())
        return columns

    return read


@pytest.fixture(scope="module")
def checkpoint(demos, tmp_path_factory):
    from agent.config import NetworkConfig, OfflineConfig, RunConfig
    from agent.pretrain import pretrain

    network = NetworkConfig(channels=[4], strides=[2], features=4, critics=2, actor_hidden=[4], critic_hidden=[4])
    path = tmp_path_factory.mktemp("policy") / "offline.pt"
    pretrain(RunConfig(network=network, offline=OfflineConfig(updates=2, batch=8)), [str(demos)], str(path))
    return path


def numbers(columns):
    return np.array(columns["Scalars:scalars"]).squeeze(-1) if columns else None


def test_an_episode_is_in_its_file(demos, tmp_path, rrd, capsys):
    source = episode_paths([demos])[0]
    tool.main([str(source), "--out", str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'episode_000000.rrd'}\n"
    found, episode = rrd(tmp_path / "episode_000000.rrd"), read_episode(source)
    steps = len(episode)
    assert found["actions"]["step"] == list(range(steps))
    np.testing.assert_allclose(np.array(found["actions"]["time"]) / 1e9, episode.times_s, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.array([row for row in found["actions"]["Scalars:scalars"] if row]), episode.actions)
    [names] = [row for row in found["actions"].get("SeriesLines:names", []) if row] or [[]]
    assert names == list(meaning_of_episode(episode.meta).names)
    for name, rows in {
        "reward": episode.rewards,
        "success": episode.success,
        "intervention": episode.interventions,
        "policy_version": episode.policy_versions,
    }.items():
        np.testing.assert_allclose(numbers(found[f"outcome/{name}"]), rows)
    assert episode.spec.states and episode.spec.cameras
    for name in episode.spec.states:
        np.testing.assert_allclose(found[f"states/{name}"]["Scalars:scalars"], episode.observations[name])
    for name in episode.spec.cameras:
        blobs = found[f"cameras/{name}"]["EncodedImage:blob"]
        assert len(blobs) == steps + 1
        image = cv2.imdecode(np.array(blobs[-1], np.uint8).ravel(), cv2.IMREAD_COLOR_RGB)
        assert np.abs(image.astype(int) - episode.observations[name][-1]).mean() < 12  # JPEG
    assert not [name for name in found if name.startswith("q/")]


def test_the_names_of_actions_are_those_of_the_recording(demos, tmp_path, rrd):
    episode = read_episode(episode_paths([demos])[0])
    names = [f"joint {number}" for number in range(episode.spec.action_dim)]
    episode.meta["env"] = {**episode.meta["env"], "actions": {"names": names}}
    write_episode(tmp_path / "named.hdf5", episode)
    tool.main([str(tmp_path / "named.hdf5"), "--out", str(tmp_path)])
    assert names in rrd(tmp_path / "named.rrd")["actions"]["SeriesLines:names"]


def test_a_checkpoint_adds_its_q_to_the_newest_episodes_of_a_run(demos, checkpoint, tmp_path, rrd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "episodes").symlink_to(demos)
    tool.main([str(tmp_path / "run"), "--newest", "2", "--ckpt", str(checkpoint), "--out", str(tmp_path / "rrd")])
    assert sorted(path.name for path in (tmp_path / "rrd").iterdir()) == ["episode_000004.rrd", "episode_000005.rrd"]
    found, episode = rrd(tmp_path / "rrd" / "episode_000005.rrd"), read_episode(demos / "episode_000005.hdf5")
    expected = tool.values_of(checkpoint)(episode)
    assert len(expected) == 3 and not np.array_equal(expected["recorded_action"], expected["policy_action"])
    for name, values in expected.items():
        np.testing.assert_allclose(numbers(found[f"q/{name}"]), values)


def test_q_is_that_of_the_critics(demos, checkpoint):
    import torch

    from agent.calql.algorithm import CalQL
    from agent.run.checkpoint import load

    start, episode = load(checkpoint), read_episode(demos / "episode_000000.hdf5")
    agent = CalQL(start.spec, start.section("network"), start.section("calql"), torch.device("cpu"), 1)
    start.restore(agent)
    batch = {key: torch.from_numpy(rows[:1]) for key, rows in episode.observations.items()}
    action = torch.from_numpy(episode.actions[:1, None])
    expected = agent.critics(agent.policy.encoder(batch), action).mean().item()
    assert tool.values_of(checkpoint)(episode)["recorded_action"][0] == pytest.approx(expected, abs=1e-4)


def test_an_episode_that_the_checkpoint_does_not_fit_is_refused(demos, checkpoint):
    episode = read_episode(demos / "episode_000000.hdf5")
    episode.actions = episode.actions[:, :1]
    with pytest.raises(UserError, match="action_dim"):
        tool.values_of(checkpoint)(episode)


def test_the_live_robot_is_in_a_file(tmp_path, rrd):
    control = Control("tcp://127.0.0.1:0")
    operator = Operator(control.address)
    shown, done = [0], threading.Event()

    def act():
        while not done.wait(0.02):
            number = shown[0] = shown[0] + 1
            image = np.full((8, 8, 3), 100, np.uint8)
            state = {"action": [0.5, -0.5], "return": float(number), "success": False, "policy_version": 3}
            control.show({"front": image, "pos": np.full(3, number, np.float32)}, state)
            control.serve()

    robot = threading.Thread(target=act)
    robot.start()
    try:
        count = tool.watch(tmp_path / "live.rrd", operator, lambda: shown[0] > 60, hz=20)
    finally:
        done.set()
        robot.join()
        operator.close()
        control.close()
    found = rrd(tmp_path / "live.rrd")
    assert 3 <= count == len(found["states/pos"]["time"]) == len(found["cameras/front"]["time"])
    seen = [row[0] for row in found["states/pos"]["Scalars:scalars"]]
    assert seen == sorted(set(seen)) and seen == numbers(found["outcome/return"]).tolist()
    assert found["actions"]["Scalars:scalars"][0] == [0.5, -0.5]
    assert set(numbers(found["outcome/policy_version"])) == {3} and set(numbers(found["outcome/intervention"])) == {0}


def test_two_episodes_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="another episode has this name"):
        tool.targets([tmp_path / "a" / "episode_000000.hdf5", tmp_path / "b" / "episode_000000.hdf5"], tmp_path)


def test_mistakes_are_one_line(refused, demos):
    assert "--live alone" in refused("rerun")
    assert "--live alone" in refused("rerun", demos, "--live")
    assert "--newest -1" in refused("rerun", demos, "--newest", "-1")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match="uv pip install rerun-sdk"):
        tool.installed()
