"""What actions mean, from a source of any format to the folder, the checkpoint and the robot."""

import json

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from agent.action_meaning import ActionMeaning
from agent.config import OfflineConfig, RewardConfig
from agent.data.episode_file import episode_paths, read_episode, read_head, write_episode
from agent.env_record import EnvRecord, agreed
from agent.mailbox.robots import Robots
from agent.run.demonstrations import environment, load_demonstrations
from agent.spec import UserError
from tools.convert import convert, main
from tools.formats.common.actions import of_names
from tools.formats.common.foreign import Choices

from . import lerobot_sets
from .conftest import made

CHOICES = {"reward": "zero", "success": "end"}


@pytest.fixture
def dataset(tmp_path):
    """dataset("a", reach=89): a LeRobotDataset whose actions go from -reach to reach."""

    def make(name, reach=1.0, names=None, robot="so101_follower", fps=None):
        folder = lerobot_sets.v21(tmp_path / name, [4, 5])
        for episode, steps in enumerate([4, 5]):
            path = lerobot_sets.table_path(folder, episode)
            rows = parquet.read_table(path)
            ramp = np.linspace(-reach, reach, 2 * steps).astype(np.float32)
            column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(ramp), 2)
            parquet.write_table(rows.set_column(rows.column_names.index("action"), "action", column), path)
        path = folder / "meta" / "info.json"
        info = json.loads(path.read_text())
        info["features"]["action"]["names"] = names
        info["robot_type"] = robot
        path.write_text(json.dumps(info))
        return folder

    return make


def meaning(folder):
    (found,) = {json.dumps(read_head(path)[1]["env"]["actions"]) for path in episode_paths([folder])}
    return ActionMeaning.from_dict(json.loads(found))


def test_a_lerobot_sets_actions_are_absolute_joint_targets_and_it_says_so(dataset, tmp_path):
    source = dataset("set", 89, ["shoulder_pan.pos", "gripper.pos"])
    report = convert(source, tmp_path / "out", Choices(**CHOICES, actions="scale"))
    found = meaning(tmp_path / "out")
    assert (found.kind, found.quantity, found.names) == ("absolute", "joint position", ("shoulder_pan", "gripper"))
    assert (found.control_hz, found.robot) == (10.0, "so101") and found.low[0] == -89 and found.high[1] == 89
    (line,) = [line for line in report.splitlines() if line.startswith("actions: ")]
    assert line.startswith("actions: absolute joint position, shoulder_pan -89 to") and "10 Hz, so101" in line


@pytest.mark.parametrize(
    ("names", "kind", "quantity"),
    [
        (None, "absolute", "joint position"),
        (["a", "b"], "absolute", "joint position"),
        ({"motors": ["a", "b"]}, "absolute", "joint position"),
        (["a.vel", "b.vel"], "velocity", "joint velocity"),
        (["delta_x", "gripper"], "delta", "end-effector pose"),
        (["x", "gripper"], "absolute", "end-effector pose"),
        (["a"], "absolute", "joint position"),
        ([5, {}], "absolute", "joint position"),
        ("ab", "absolute", "joint position"),
    ],
)
def test_names_of_a_set_may_say_otherwise(names, kind, quantity):
    found = of_names(names, 2, None, 30.0)
    assert (found.kind, found.quantity) == (kind, quantity)


def train_on(*folders):
    config = OfflineConfig(data=[str(folder) for folder in folders])
    return load_demonstrations(config, RewardConfig(), 0.97, 0)[1]


def test_two_sets_that_were_scaled_by_other_ranges_are_not_trained_on_together(dataset, tmp_path):
    for name, reach in (("wide", 89), ("narrow", 8.9)):
        convert(dataset(f"set-{name}", reach), tmp_path / name, Choices(**CHOICES, actions="scale"))
    with pytest.raises(UserError, match=r"range: number 0 -8\.9 to .* against -89 to .*--action-range FOLDER"):
        train_on(tmp_path / "wide", tmp_path / "narrow")
    words = ["--reward", "zero", "--success", "end", "--actions", "scale", "--action-range", str(tmp_path / "wide")]
    main([str(tmp_path / "set-narrow"), "--out", str(tmp_path / "alike"), *words])
    assert meaning(tmp_path / "alike") == meaning(tmp_path / "wide")
    assert len(train_on(tmp_path / "wide", tmp_path / "alike")) == 4


def test_a_checkpoint_of_it_is_not_for_an_arm_that_takes_steps(dataset, tmp_path):
    convert(dataset("set", 89), tmp_path / "out", Choices(**CHOICES, actions="scale"))
    episodes = train_on(tmp_path / "out")
    env, spec = environment(episodes), train_spec(tmp_path / "out")
    assert not env.name
    arm = {"kind": "delta", "low": [-2.0] * 2, "high": [2.0] * 2, "control_hz": 10.0, "robot": "so101"}
    found, _ = Robots(spec, env, False).differences(spec.to_dict(), {"name": "real", "options": {}, "actions": arm})
    assert found == ["actions, kind: delta against absolute"]


def train_spec(folder):
    return read_episode(episode_paths([folder])[0]).spec


def test_the_range_can_be_chosen(dataset, tmp_path):
    source = dataset("set", 89)
    words = ["--reward", "zero", "--success", "end", "--actions", "scale"]
    main([str(source), "--out", str(tmp_path / "one"), *words, "--action-range=-90:90"])
    assert meaning(tmp_path / "one").low == (-90, -90) and meaning(tmp_path / "one").high == (90, 90)
    main([str(source), "--out", str(tmp_path / "each"), *words, "--action-range=-90,0:90,50"])
    assert meaning(tmp_path / "each").low == (-90, 0) and meaning(tmp_path / "each").high == (90, 50)
    for text in ("5", "9:1", "a:b", "1,2:3", "0,0,0:1,1,1", "nan:1"):
        with pytest.raises(UserError):
            main([str(source), "--out", str(tmp_path / "x"), *words, f"--action-range={text}"])
    with pytest.raises(UserError, match="for --actions scale only"):
        main([str(source), "--out", str(tmp_path / "x"), "--action-range=-90:90"])


def test_the_kind_can_be_stated_and_a_gym_environments_numbers_are_its_own(dataset, tmp_path):
    source = dataset("set", 1.0)
    convert(source, tmp_path / "stated", Choices(**CHOICES, action_kind="delta"))
    assert meaning(tmp_path / "stated").kind == "delta"
    convert(source, tmp_path / "gym", Choices(**CHOICES, env=EnvRecord("gym:PushT-v0")))
    found = meaning(tmp_path / "gym")
    assert (found.kind, found.low, found.high) == ("normalized", (-1, -1), (1, 1))
    assert read_head(episode_paths([tmp_path / "gym"])[0])[1]["env"]["name"] == "gym:PushT-v0"
    with pytest.raises(UserError, match="--action-kind sideways: absolute, delta"):
        main([str(source), "--out", str(tmp_path / "x"), "--action-kind", "sideways"])


@pytest.fixture
def robomimic(tmp_path):
    def write(args, reach=1.0):
        path = tmp_path / "theirs.hdf5"
        with h5py.File(path, "w") as file:
            demo = file.create_group("data/demo_0")
            demo["actions"] = np.linspace(-reach, reach, 28).reshape(4, 7)
            demo["obs/pose"] = np.zeros((4, 3))
            demo["rewards"] = np.zeros(4)
            if args is not None:
                file["data"].attrs["env_args"] = args if isinstance(args, str) else json.dumps(args)
        return path

    return write


OSC = {"type": "OSC_POSE", "control_delta": True, "output_max": [0.05] * 3 + [0.5] * 3}
ARGS = {"env_name": "Lift", "env_kwargs": {"robots": ["Panda"], "control_freq": 20, "controller_configs": OSC}}


def test_robomimics_env_args_say_what_an_action_is(robomimic, tmp_path):
    convert(robomimic(ARGS), tmp_path / "out", Choices(success="never"))
    found = meaning(tmp_path / "out")
    assert (found.kind, found.control_hz, found.robot) == ("delta", 20.0, "Panda")
    assert found.high == (0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0)
    convert(robomimic(ARGS, 2.0), tmp_path / "scaled", Choices(success="never", actions="scale", action_range=None))
    assert meaning(tmp_path / "scaled").low[0] == pytest.approx(-0.1)  # -2 of the source's, of 5 cm each


@pytest.mark.parametrize("args", [None, "{", "5", "[]", {"env_kwargs": 5}, {"env_kwargs": {"controller_configs": []}}])
def test_a_file_that_does_not_say_it_is_not_given_a_meaning(robomimic, tmp_path, args):
    report = convert(robomimic(args), tmp_path / "out", Choices(success="never"))
    assert "actions: taken as the robot's own; the source does not say what they mean" in report
    assert "env" not in read_head(episode_paths([tmp_path / "out"])[0])[1]
    assert agreed([("x", read_head(episode_paths([tmp_path / "out"])[0])[1])])[1]


@pytest.mark.parametrize("there", ["robomimic", "lerobot", "minari"])
def test_ours_keep_their_meaning_there_and_back(tmp_path, there):
    stated = {"kind": "delta", "quantity": "end-effector position", "low": [-0.05] * 3, "high": [0.05] * 3}
    env = {"name": "sim", "options": {"control_hz": 10.0}, "actions": stated}
    for number in range(2):
        episode = made(6, seed=number, meta={"seed": number, "env": env})
        write_episode(tmp_path / "ours" / f"episode_{number:06d}.hdf5", episode)
    convert(
        tmp_path / "ours", tmp_path / "theirs", Choices(instruction="x" if there == "lerobot" else None), None, there
    )
    convert(tmp_path / "theirs", tmp_path / "back", Choices())
    assert meaning(tmp_path / "back").to_dict() == stated
    convert(tmp_path / "theirs", tmp_path / "scaled", Choices(actions="scale"))
    assert all(abs(end) < 0.05 for end in meaning(tmp_path / "scaled").low)


def test_a_success_that_is_a_text_is_a_fault(robomimic, tmp_path):
    path = robomimic(None)
    for value, fine in ((True, True), (np.int64(0), True), ("False", False), (0.5, False)):
        with h5py.File(path, "a") as file:
            file["data/demo_0"].attrs["success"] = value
        if fine:
            convert(path, tmp_path / str(value), Choices())
            (file,) = episode_paths([tmp_path / str(value)])
            assert read_episode(file).succeeded == bool(value)
        else:
            with pytest.raises(UserError, match=r"its attribute 'success' is a .*, not true or false"):
                convert(path, tmp_path / str(value), Choices())
