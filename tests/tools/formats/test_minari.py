"""What a dataset of Minari's looks like, and what becomes of it."""

import json

import h5py
import numpy as np
import pytest

from agent.data.episode_file import read_episodes
from tools.convert import convert
from tools.formats.common.foreign import Choices

PARTS = {"bottom burner": 2, "kettle": 7, "light switch": 2, "microwave": 1}


@pytest.fixture
def kitchen(tmp_path):
    """A folder as Minari's D4RL kitchen is: goals by names with spaces, a reward of 1 for each thing done."""
    rng = np.random.default_rng(0)
    data = tmp_path / "complete-v2" / "data"
    data.mkdir(parents=True)
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for number in range(2):
            episode = file.create_group(f"episode_{number}")
            episode["observations/observation"] = rng.normal(size=(9, 59))
            for goal in ("achieved_goal", "desired_goal"):
                for part, size in PARTS.items():
                    episode[f"observations/{goal}/{part}"] = rng.normal(size=(9, size))
            episode["actions"] = rng.uniform(-1, 1, (8, 9)).astype(np.float32)
            episode["rewards"] = np.arange(8) % 2.0
            episode["terminations"], episode["truncations"] = np.arange(8) == 7, np.zeros(8, bool)
    (data / "metadata.json").write_text(json.dumps({"dataset_id": "D4RL/kitchen/complete-v2"}))
    return data.parent


def test_names_with_spaces_become_those_that_the_environment_has_with_us(kitchen, tmp_path):
    convert(kitchen, tmp_path / "ours", Choices(actions="clip", success="end"))
    first, second = read_episodes([tmp_path / "ours"])
    names = {"bottom_burner": 2, "kettle": 7, "light_switch": 2, "microwave": 1}
    goals = {f"{goal}.{name}": size for goal in ("achieved_goal", "desired_goal") for name, size in names.items()}
    assert first.spec.states == {**goals, "observation": 59} == second.spec.states
    assert first.succeeded and first.rewards.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    with h5py.File(kitchen / "data" / "main_data.hdf5") as file:
        rows = file["episode_0/observations/desired_goal/light switch"][()]
    np.testing.assert_allclose(first.observations["desired_goal.light_switch"], rows, rtol=1e-6)


def test_kitchens_episodes_end_when_four_tasks_are_done(kitchen, tmp_path):
    with h5py.File(kitchen / "data" / "main_data.hdf5", "a") as file:
        for number, rewards in enumerate(([0, 1, 2, 3, 3, 4, 4, 4], [0, 0, 1, 1, 1, 2, 2, 3])):
            episode = file[f"episode_{number}"]
            episode["rewards"][...] = rewards
            episode["terminations"][...], episode["truncations"][...] = False, np.arange(8) == 7
    convert(kitchen, tmp_path / "ours", Choices(actions="clip", success="4", end="success"))
    whole, part = read_episodes([tmp_path / "ours"])
    assert whole.rewards.tolist() == [0, 1, 2, 3, 3, 4] and whole.terminated[-1] and whole.succeeded
    assert len(part) == 8 and part.truncated[-1] and not part.succeeded


def test_a_name_without_its_spaces_can_be_left_out(kitchen, tmp_path):
    convert(kitchen, tmp_path / "ours", Choices(success="end", drop=["desired_goal.light_switch"]))
    assert "desired_goal.light_switch" not in next(read_episodes([tmp_path / "ours"])).spec.states
