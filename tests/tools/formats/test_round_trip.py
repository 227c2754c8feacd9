"""There and back: what goes out in a format comes back bit-equal, images of a video up to its codec."""

import importlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.data.episode_file import read_episodes, write_episode
from tools.convert import convert
from tools.formats.common.foreign import Choices, Report
from tools.formats.format import read_all
from tools.formats.lerobot_film import psnr

from .conftest import made

CAMERAS = (("front", (32, 48)), ("wrist", (17, 23)))


def module(name):
    return importlib.import_module(f"tools.formats.{name}")


def there_and_back(tmp_path, name, episodes, choices=None):
    path = tmp_path / name
    module(name).write(path, episodes, choices or Choices(), Report())
    return list(read_all(module(name), path, Choices(), Report()))


@pytest.mark.parametrize("name", ["robomimic", "minari", "episodes"])
def test_lossless(tmp_path, name):
    episodes = [made(steps, CAMERAS, seed=steps, success=steps != 4) for steps in (7, 1, 4)]
    found = there_and_back(tmp_path, name, episodes)
    assert len(found) == 3 and all(a.equals(b) for a, b in zip(episodes, found, strict=True))


def test_lossless_but_for_the_video(tmp_path):
    episodes = [made(steps, CAMERAS, seed=steps, success=steps != 4) for steps in (7, 1, 4)]
    for episode, back in zip(episodes, there_and_back(tmp_path, "lerobot", episodes), strict=True):
        back.check(episode.spec)
        for camera, _ in CAMERAS:
            rows = back.observations[camera]
            assert all(psnr(a, b) > 35 for a, b in zip(episode.observations[camera], rows, strict=True))
            assert np.array_equal(rows[-1], episode.observations[camera][-1])  # in a table, not in the video
            back.observations[camera] = episode.observations[camera]
        assert episode.equals(back)


@pytest.mark.parametrize("name", ["robomimic", "minari", "lerobot"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    states=st.dictionaries(st.sampled_from(["state", "proprio", "x.y", "object"]), st.integers(1, 4), min_size=1),
    action_dim=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_lossless_whatever_its_shape(tmp_path_factory, name, lengths, states, action_dim, seed):
    episodes = [
        made(steps, states=tuple(states.items()), action_dim=action_dim, seed=seed + number)
        for number, steps in enumerate(lengths)
    ]
    found = there_and_back(tmp_path_factory.mktemp(name), name, episodes)
    assert all(a.equals(b) for a, b in zip(episodes, found, strict=True))


def test_many_demos_come_back_in_their_order(tmp_path):
    episodes = [made(1, seed=number) for number in range(12)]
    found = there_and_back(tmp_path, "robomimic", episodes)
    assert [e.meta["seed"] for e in found] == list(range(12))


def test_a_new_video_and_a_new_table_begin_when_the_old_ones_are_full(tmp_path, monkeypatch):
    from tools.formats import lerobot_write

    monkeypatch.setattr(lerobot_write, "VIDEO_MB", 0)
    monkeypatch.setattr(lerobot_write, "DATA_MB", 0)
    monkeypatch.setattr(lerobot_write, "CHUNK_FILES", 2)
    episodes = [made(3, CAMERAS[:1], seed=number) for number in range(3)]
    found = there_and_back(tmp_path, "lerobot", episodes)
    names = sorted(str(path.relative_to(tmp_path / "lerobot")) for path in tmp_path.rglob("file-*.*"))
    assert "data/chunk-001/file-000.parquet" in names
    assert len([name for name in names if name.endswith(".mp4")]) >= 2
    for episode, back in zip(episodes, found, strict=True):
        assert psnr(episode.observations["front"], back.observations["front"]) > 35
        assert np.array_equal(episode.actions, back.actions)


def test_through_every_format_and_back(tmp_path):
    for number in range(2):
        write_episode(tmp_path / "a" / f"episode_{number:06d}.hdf5", made(5, CAMERAS[:1], seed=number))
    choices = Choices()
    convert(tmp_path / "a", tmp_path / "b.hdf5", choices, writes="robomimic")
    convert(tmp_path / "b.hdf5", tmp_path / "c", choices, writes="minari")
    convert(tmp_path / "c", tmp_path / "d", choices)
    pairs = zip(read_episodes([tmp_path / "a"]), read_episodes([tmp_path / "d"]), strict=True)
    assert all(a.equals(b) for a, b in pairs)


def test_what_robomimic_looks_for_is_there(tmp_path):
    episode = made(4, CAMERAS[:1])
    module("robomimic").write(tmp_path / "x.hdf5", [episode], Choices(), Report())
    with h5py.File(tmp_path / "x.hdf5") as file:
        demo = file["data/demo_0"]
        assert file["data"].attrs["total"] == demo.attrs["num_samples"] == 4 and "env_args" in file["data"].attrs
        assert demo["dones"][()].tolist() == [0, 0, 0, 1]
        assert np.array_equal(demo["next_obs/front"][()], episode.observations["front"][1:])
