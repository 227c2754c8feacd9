"""robosuite's raw recordings: which of them mean the same by an action as envs.sim does."""

import json

import h5py
import numpy as np
import pytest

from agent.spec import UserError
from tools.convert import convert
from tools.formats.foreign import Choices
from tools.formats.robosuite import sim_options

REACH = [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]
OLD = {"type": "OSC_POSE", "control_delta": True, "output_max": REACH}  # robosuite 1.0 to 1.4
NEW = {"type": "OSC_POSE", "input_type": "delta", "output_max": REACH}  # 1.5, in a controller of the whole body


def whole_body(arm):
    return {"type": "BASIC", "body_parts": {"right": arm}}


def both_arms(arm):
    return {"type": "BASIC", "body_parts": {"arms": {"right": arm}}}


def plain(arm):
    return arm


def options(path, controller):
    info = {"env_name": "Lift", "robots": ["Panda"], "control_freq": 20, "controller_configs": controller}
    return sim_options(path, info, 7, {})


@pytest.mark.parametrize(
    "controller",
    [{"type": "OSC_POSE"}, OLD, whole_body(NEW), both_arms(NEW), whole_body({"type": "OSC_POSE"})],
)
def test_a_controller_that_means_the_same_is_taken(tmp_path, controller):
    expected = {"task": "Lift", "robot": "Panda", "action": "pose", "control_hz": 20.0, "horizon": 7}
    assert options(tmp_path, controller) == expected


@pytest.mark.parametrize("place", [plain, whole_body, both_arms])
@pytest.mark.parametrize(
    "other",
    [
        {"type": "OSC_POSITION"},
        {"type": "JOINT_VELOCITY"},
        {"control_delta": False},
        {"input_type": "absolute"},
        {"output_max": [0.02, 0.02, 0.02, 0.5, 0.5, 0.5]},
        {"output_max": [0.05, 0.05, 0.05, 0.1, 0.1, 0.1]},
        {"output_max": [0.05, 0.05, 0.5, 0.5, 0.5, 0.5]},
    ],
)
def test_one_that_means_something_else_is_refused(tmp_path, place, other):
    arm = {"type": "OSC_POSE", "output_max": REACH, **other}
    with pytest.raises(UserError) as refused:
        options(tmp_path / "demo.hdf5", place(arm))
    line = str(refused.value)
    assert line.startswith(f"{tmp_path / 'demo.hdf5'}: its controller is {arm['type']}, not") and "\n" not in line


def test_a_recording_with_another_controller_is_refused_before_anything_is_rendered(tmp_path):
    path = tmp_path / "demo.hdf5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_1")
        demo["states"], demo["actions"] = np.zeros((4, 32)), np.zeros((4, 7))
        info = {"robots": "Panda", "controller_configs": {**OLD, "control_delta": False}}
        file["data"].attrs.update(env="Lift", env_info=json.dumps(info))
    with pytest.raises(UserError, match=r"demo\.hdf5: its controller is OSC_POSE, not OSC_POSE with relative"):
        convert(path, tmp_path / "out", Choices())
    assert sorted(tmp_path.iterdir()) == [path]
