"""robosuite's raw recordings: which of them mean the same by an action as envs.sim does."""

import json
import math

import h5py
import numpy as np
import pytest

from agent.data.episode_file import read_episodes
from agent.spec import UserError
from tools.convert import convert
from tools.formats.common.foreign import Choices
from tools.formats.robomimic import demos
from tools.formats.robosuite import info_of, sim_options, with_rate

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


ARGS = {"robots": ["Sawyer"], "control_freq": 10, "controller_configs": OLD}


def recording(path, states_hz=None, **attributes):
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_1")
        demo["states"], demo["actions"] = np.zeros((4, 32)), np.zeros((4, 7))
        if states_hz:
            demo["states"][:, 0] = np.arange(4) / states_hz
        for name, value in attributes.items():
            file["data"].attrs[name] = value if isinstance(value, str) else json.dumps(value)
    return path


def found(path, asked=None):
    with h5py.File(path) as file:
        info = with_rate(path, info_of(file["data"].attrs, path), demos(file, path))
        return sim_options(path, info, 4, asked or {})


def test_item_14_robot_and_rate_are_those_that_env_args_say(tmp_path):
    path = recording(tmp_path / "demo.hdf5", env_args={"env_name": "Lift", "type": 1, "env_kwargs": ARGS})
    expected = {"task": "Lift", "robot": "Sawyer", "action": "pose", "control_hz": 10.0, "horizon": 4}
    assert found(path) == expected


def test_item_14_joint_velocities_in_env_args_are_refused_in_one_line(tmp_path, refused):
    args = {**ARGS, "controller_configs": {"type": "JOINT_VELOCITY", "output_max": 1}}
    path = recording(tmp_path / "demo.hdf5", env_args={"env_name": "Lift", "env_kwargs": args})
    line = refused("convert", path, "--out", tmp_path / "x")
    assert "its controller is JOINT_VELOCITY, not OSC_POSE with relative steps" in line


@pytest.mark.parametrize(
    ("missing", "words", "asked"),
    [
        ("robots", "does not say its robot; --robot NAME", {"robot": "Sawyer"}),
        ("control_freq", "does not say its control_hz; --control-hz N", {"control_hz": 10.0}),
        ("controller_configs", "does not say which controller its actions were for; --action pose", {"action": "pose"}),
    ],
)
def test_item_14_what_the_file_does_not_say_is_asked_for(tmp_path, missing, words, asked):
    args = {key: value for key, value in ARGS.items() if key != missing}
    path = recording(tmp_path / "demo.hdf5", env_args={"env_name": "Lift", "env_kwargs": args})
    with pytest.raises(UserError, match=words):
        found(path)
    assert {key: found(path, asked)[key] for key in ("robot", "control_hz")} == {"robot": "Sawyer", "control_hz": 10}


def test_item_14_the_states_times_say_the_rate_or_contradict_it(tmp_path):
    info = {"env_name": "Lift", "robots": "Panda", "controller_configs": OLD}
    assert found(recording(tmp_path / "a.hdf5", 20, env="Lift", env_info=info))["control_hz"] == 20
    path = recording(tmp_path / "b.hdf5", 20, env="Lift", env_info={**info, "control_freq": 10})
    with pytest.raises(UserError, match=r"control_freq is 10, but its states are 1 / 20 s apart"):
        found(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("control_freq", math.nan), ("control_freq", 0), ("control_freq", "fast"), ("control_freq", [20]), ("robots", 7),
     ("robots", [None])],
)  # fmt: skip
@pytest.mark.parametrize("times_hz", [None, 20])
def test_a_rate_or_robot_that_is_none_is_named(tmp_path, key, value, times_hz):
    info = {"env_name": "Lift", "env_kwargs": ARGS | {key: value}}
    with pytest.raises(UserError, match=rf"a\.hdf5: {key} is .*; expected"):
        found(recording(tmp_path / "a.hdf5", times_hz, env_args=info))


@pytest.mark.parametrize("asked", [{"control_hz": 20.0}, {"robot": "Panda"}, {"action": "position"}])
def test_item_14_an_option_does_not_override_what_was_recorded(tmp_path, asked):
    path = recording(tmp_path / "a.hdf5", env_args={"env_name": "Lift", "env_kwargs": ARGS})
    with pytest.raises(UserError, match="but it was recorded with"):
        found(path, asked)


def test_item_14_two_attributes_that_disagree_are_refused(tmp_path):
    args = {"env_name": "Lift", "env_kwargs": ARGS}
    path = recording(tmp_path / "a.hdf5", env_info={"env_name": "Lift", "robots": "Panda"}, env_args=args)
    with pytest.raises(UserError, match=r"robots is 'Panda' in env_info and .*Sawyer"):
        found(path)


@pytest.mark.parametrize("text", ["[]", "3", "no json", '{"env_name": "Lift", "env_kwargs": []}', "{" * 5000])
def test_item_14_malformed_attributes_are_one_line(tmp_path, refused, text):
    path = recording(tmp_path / "a.hdf5", env_args=text)
    assert "error: " in refused("convert", path, "--from", "robosuite", "--out", tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "kwargs", "task"),
    [
        ("NutAssembly", {}, "NutAssembly"),
        ("NutAssemblySquare", {}, "Square"),
        ("NutAssemblyRound", {}, "Round"),
        ("NutAssembly", {"single_object_mode": 2, "nut_type": "square"}, "Square"),
        ("PickPlace", {}, "PickPlace"),
        ("PickPlaceCan", {}, "Can"),
        ("PickPlaceMilk", {}, "Milk"),
        ("PickPlaceBread", {}, "Bread"),
        ("PickPlaceCereal", {}, "Cereal"),
        ("PickPlace", {"single_object_mode": 2, "object_type": "milk"}, "Milk"),
        ("NutAssemblySingle", {}, "NutAssemblySingle"),
        ("PickPlaceSingle", {}, "PickPlaceSingle"),
    ],
)
def test_item_14_old_names_are_today_s_tasks(tmp_path, name, kwargs, task):
    from envs.robosuite_import import import_robosuite
    from envs.sim import TASKS

    path = recording(tmp_path / "a.hdf5", env_args={"env_name": name, "env_kwargs": {**ARGS, **kwargs}})
    assert found(path)["task"] == task
    assert TASKS[task][0] in import_robosuite().ALL_ENVIRONMENTS


def test_item_14_a_person_s_recording_is_rendered_at_the_rate_of_its_states(real, tmp_path):
    report = convert(real("robosuite_lift_1"), tmp_path / "out", Choices(sim={"image_size": 32}))
    assert "robosuite 1.0.0: Lift, Panda, 20 Hz" in report
    episode = next(read_episodes([tmp_path / "out"]))
    assert len(episode) == 401 and episode.succeeded and episode.meta["env"]["options"]["control_hz"] == 20
    assert all(episode.observations[camera].std() > 10 for camera in episode.spec.cameras)
