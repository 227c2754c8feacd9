"""--privileged true: what robosuite itself observes of the objects, in the frame of the robot's base."""

import dataclasses
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import envs
from agent.env_record import EnvRecord, agreed
from envs.sim import TASKS

SIZES = {
    "Lift": 10, "Can": 14, "Square": 14, "Door": 14, "Stack": 23, "Wipe": 8, "Milk": 14, "Bread": 14, "Cereal": 14,
    "PickPlace": 56, "Round": 14, "NutAssembly": 28, "NutAssemblySingle": 15, "PickPlaceSingle": 15,
}  # fmt: skip
STEPS = 25


def make(task, **options):
    return envs.make("sim", task=task, cameras=[], privileged=True, **options)


def base_pose(env):
    """Position and rotation of the robot's base in the world."""
    body = env.model.body("robot0_base").id
    return env.data.xpos[body], Rotation.from_quat(np.roll(env.data.xquat[body], -1))


def in_base(env, name, value):
    """A robosuite observation, which is in the world's frame, in the one that it should have here."""
    origin, rotation = base_pose(env)
    if re.fullmatch(r"\w+_to_robot0_eef_(pos|quat)|\w*_qpos|\w+_id|wipe_radius|proportion_wiped", name):
        return value
    if re.fullmatch(r"gripper_to_\w+|(door|handle)_to_eef_pos|cubeA_to_cubeB", name):
        return rotation.inv().apply(value)
    if name.endswith("_quat"):
        return (rotation.inv() * Rotation.from_quat(value)).as_quat()
    assert re.fullmatch(
        r"(cube|cubeA|cubeB|door|handle|Milk|Bread|Cereal|Can|(Square|Round)Nut)_pos|wipe_centroid", name
    )
    return rotation.inv().apply(value - origin)


def own(env):
    """robosuite's observation of the objects after a full update, in the base's frame: name -> value, in its order."""
    suite = env.robosuite
    for _ in range(2):  # its relative poses take the object's pose from the update before
        type(suite)._update_observables(suite, force=True)
    active = [name for name, sensor in suite._observables.items() if sensor.modality == "object"]
    seen = type(suite)._get_observations(suite)
    return {name: np.atleast_1d(in_base(env, name, seen[name])) for name in active if name in seen}


def assert_same(env, seen):
    expected, place = own(env), 0
    for name, value in expected.items():
        found = seen[place : place + len(value)]
        same = np.allclose(found, value, atol=2e-6)
        assert same or (name.endswith("_quat") and np.allclose(found, -value, atol=2e-6)), (name, found, value)
        place += len(value)
    assert place == len(seen)


@pytest.mark.parametrize("task", TASKS)
def test_every_number_is_robosuites_own_over_a_random_episode(task):
    env = make(task)
    assert env.observation_space["object"].shape == (SIZES[task],)
    rng = np.random.default_rng(0)
    seen, theirs = [env.reset(seed=0)[0]["object"]], [np.concatenate(list(own(env).values()))]
    for _ in range(STEPS):
        seen.append(env.step(rng.uniform(-1, 1, env.action_space.shape))[0]["object"])
        assert_same(env, seen[-1])
        theirs.append(np.concatenate(list(own(env).values())))
    env.close()
    assert np.isfinite(seen).all()
    assert np.ptp(theirs, axis=0)[np.ptp(seen, axis=0) == 0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("task", ["Lift", "Can", "Door", "Stack", "Wipe"])
def test_the_frame_is_the_bases_also_where_it_is_turned(task):
    env = make(task)
    env.reset(seed=0)
    before = env._observation()
    env.model.body("robot0_base").quat = np.roll(Rotation.from_euler("zyx", [0.9, 0.2, -0.3]).as_quat(), 1)
    env.robosuite.sim.forward()
    after = env._observation()
    assert_same(env, after["object"])
    env.close()
    assert after["proprio"] == pytest.approx(before["proprio"], abs=1e-6)  # the arm turns with its base
    assert not np.allclose(after["object"], before["object"], atol=1e-3)


def test_the_vector_to_the_cube_leads_from_the_end_effector_to_the_cube():
    env = make("Lift")
    seen = env.reset(seed=0)[0]
    for _ in range(5):
        cube, vector = seen["object"][:3], seen["object"][7:]
        assert seen["proprio"][:3] + vector == pytest.approx(cube, abs=1e-6) and np.linalg.norm(vector) > 0.05
        seen = env.step(env.action_space.sample())[0]
    env.close()


@pytest.mark.parametrize("task", ["NutAssemblySingle", "PickPlaceSingle"])
def test_the_object_that_a_reset_draws_is_the_one_observed(task):
    env = make(task)
    drawn = set()
    for seed in range(6):
        seen = env.reset(seed=seed)[0]["object"]
        assert_same(env, seen)
        drawn.add(int(seen[-1]))
    env.close()
    assert len(drawn) > 1


def test_another_robots_end_effector_is_found():
    env = make("Stack", robot="UR5e")
    assert_same(env, env.reset(seed=0)[0]["object"])
    env.close()


def record(**options):
    return EnvRecord("sim", dataclasses.asdict(envs.options("sim")(**options)))


def of_before(env):
    """As releases wrote it that observed objects in the world's frame, with zeros for the vectors between them."""
    return EnvRecord(env.name, {key: value for key, value in env.options.items() if key != "object_in_base_frame"})


def test_recordings_of_other_numbers_differ_and_those_without_objects_do_not():
    now = record(privileged=True)
    assert of_before(now).differences(now) == {"object_in_base_frame": "None against True"}
    assert record(**of_before(now).options) == now  # the old options still make today's environment
    assert not of_before(record()).differences(record())
    old = ("old", {"env": of_before(now).to_dict()})
    (warning,) = [text for text in agreed([old, ("new", {"env": now.to_dict()})])[1] if "environments" in text]
    assert warning == "new and old are of different environments: object_in_base_frame: True against None"


def test_the_option_follows_privileged():
    assert not record(object_in_base_frame=True).options["object_in_base_frame"]
    assert record(object_in_base_frame=False, privileged=True).options["object_in_base_frame"]
