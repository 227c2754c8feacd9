"""The simulator: physics and pictures are robosuite's, observations hold no more than a real robot would know."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import envs
import envs.scripted
from envs.sim import TASKS


def lift(**options):
    return envs.make("sim", **{"task": "Lift", "image_size": 64, "horizon": 20, **options})


def red(image):
    """Where the cube is: (rows, columns) of clearly red pixels."""
    pixels = image.astype(int)
    return np.nonzero((pixels[..., 0] > 90) & (pixels[..., 0] > pixels[..., 1] + 50))


def move_cube(env, dx, dy):
    joint = env.robosuite.cube.joints[0]
    pose = env.robosuite.sim.data.get_joint_qpos(joint).copy()
    pose[:2] += dx, dy
    env.robosuite.sim.data.set_joint_qpos(joint, pose)
    env.robosuite.sim.forward()


def test_proprioception_holds_no_object_state():
    env = lift(privileged=True)
    env.reset(seed=0)
    before = env._observation()
    move_cube(env, 0.03, 0.03)
    after = env._observation()
    env.close()
    np.testing.assert_array_equal(before["proprio"], after["proprio"])
    assert not np.array_equal(before["object"], after["object"])
    assert not np.array_equal(before["agentview"], after["agentview"])


def test_images_are_upright():
    """agentview looks at the robot from the front: what comes nearer to the camera (+x) goes down in the image."""
    env = lift(cameras=["agentview"])
    env.reset(seed=0)
    rows, _ = red(env._observation()["agentview"])
    move_cube(env, 0.1, 0.0)
    nearer, _ = red(env._observation()["agentview"])
    env.close()
    assert len(rows) > 8 and nearer.mean() > rows.mean() + 2


def test_images_show_where_the_cube_is_moved():
    """agentview faces the robot: the world's +y is to the right. And the arm hangs in from above."""
    env = lift(cameras=["agentview"])
    image = env.reset(seed=0)[0]["agentview"]
    _, columns = red(image)
    move_cube(env, 0.0, 0.08)
    _, moved = red(env._observation()["agentview"])
    env.close()
    assert moved.mean() > columns.mean() + 2
    dark = image.max(axis=2) < 60
    assert dark[:32].sum() > 3 * dark[32:].sum()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_action_moves_the_hand_along_its_axis_and_1_closes_the_gripper(axis):
    env = lift(cameras=[])
    start = env.reset(seed=0)[0]["proprio"]
    action = np.zeros(4)
    action[axis], action[3] = 0.6 if axis < 2 else -0.6, 1.0
    for _ in range(4):
        seen = env.step(action)[0]["proprio"]
    env.close()
    moved = seen[:3] - start[:3]
    assert np.abs(moved).argmax() == axis and np.sign(moved[axis]) == np.sign(action[axis])
    assert 0.02 < abs(moved[axis]) < 4 * 0.6 * 0.05
    assert np.abs(seen[9:]).max() < np.abs(start[9:]).max()


@pytest.mark.parametrize("half_width_m", [0.0, 0.1])
def test_objects_start_as_far_from_the_centre_as_asked(half_width_m):
    """robosuite's own Lift: within 3 cm."""
    env = lift(cameras=[], placement_m=half_width_m)
    places = []
    for seed in range(8):
        env.reset(seed=seed)
        places.append(env.data.xpos[env.robosuite.cube_body_id][:2].copy())
    env.close()
    furthest = np.abs(places).max()
    assert 0.6 * half_width_m <= furthest <= half_width_m + 1e-6


def test_pose_control_turns_the_hand():
    env = lift(cameras=[], action="pose")
    start = env.reset(seed=0)[0]["proprio"]
    for _ in range(4):
        seen = env.step(np.array([0, 0, 0, 0, 0, 0.5, -1]))[0]["proprio"]
    env.close()
    assert np.abs(seen[3:9] - start[3:9]).max() > 0.2
    assert np.abs(seen[:3] - start[:3]).max() < 0.03


def test_the_fast_picture_shows_what_the_stock_one_shows_and_physics_are_the_same():
    fast, stock = lift(), lift(render="stock")
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 4)).astype(np.float32)
    for env in (fast, stock):
        env.reset(seed=1)
    for action in actions:
        quick, slow = fast.step(action)[0], stock.step(action)[0]
        np.testing.assert_array_equal(quick["proprio"], slow["proprio"])
    np.testing.assert_array_equal(fast.data.qpos, stock.data.qpos)
    for camera in fast.options.cameras:
        (r1, c1), (r2, c2) = red(quick[camera]), red(slow[camera])
        assert len(r1) > 8 and abs(r1.mean() - r2.mean()) < 2 and abs(c1.mean() - c2.mean()) < 2
        assert quick[camera].std() > 20 and not np.array_equal(quick[camera], slow[camera])
    fast.close()
    stock.close()


def test_two_environments_are_the_same_world():
    """robosuite draws sizes and masses when a model is built; every process must build the same one."""
    first, second = lift(), lift()
    one, two = first.reset(seed=7)[0], second.reset(seed=7)[0]
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])
    first.close()
    third = lift()
    np.testing.assert_array_equal(third.reset(seed=7)[0]["agentview"], two["agentview"])
    second.close()
    third.close()


def test_images_stay_clean_over_resets_and_collections():
    env = lift()
    reference = env.reset(seed=2)[0]
    for seed in range(8):
        env.reset(seed=seed)
        gc.collect()
        env.step(np.zeros(4, np.float32))
    again = env.reset(seed=2)[0]
    env.close()
    for key in reference:
        np.testing.assert_array_equal(reference[key], again[key])


def test_position_control_holds_the_rotation():
    """While the hand is thrown about it tilts a little; at rest it has come back to the rotation of the reset."""
    env = lift(cameras=[], horizon=100)
    start = env.reset(seed=0)[0]["proprio"][3:9]
    rng = np.random.default_rng(0)
    moves = [[1, -1, 0.3]] * 10 + [[-1, 1, -0.3]] * 15 + [*rng.uniform(-1, 1, (25, 3))]
    for move in moves:
        seen = env.step(np.array([*move, -1]))[0]["proprio"][3:9]
        assert np.abs(seen - start).max() < 0.15
    for _ in range(8):
        seen = env.step(np.array([0, 0, 0, -1]))[0]["proprio"][3:9]
    env.close()
    assert np.abs(seen - start).max() < 0.02


def test_success_on_the_last_allowed_step_is_terminated():
    free = lift(cameras=[], horizon=100)
    expert = envs.scripted.make(free)
    free.reset(seed=0)
    expert.reset()
    actions, terminated = [], False
    while not terminated:
        actions.append(expert.act({}))
        *_, terminated, truncated, info = free.step(actions[-1])
    assert info["success"] and not truncated
    tight = lift(cameras=[], horizon=len(actions))
    tight.reset(seed=0)
    for action in actions:
        *_, terminated, truncated, info = tight.step(action)
    assert terminated and not truncated and info["success"]
    free.close()
    tight.close()


@pytest.mark.parametrize("task", [task for task in TASKS if task != "Lift"])
def test_every_task_runs(task):
    env = envs.make("sim", task=task, image_size=32, horizon=3)
    first = env.reset(seed=0)[0]
    env.step(env.action_space.sample())
    again = env.reset(seed=0)[0]
    env.close()
    assert first["agentview"].std() > 10
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        assert env.observation_space[key].contains(first[key])


def test_nothing_heavy_is_loaded_before_an_environment_is_made():
    code = (
        "import envs, envs.sim, envs.scripted, envs.fake, sys; envs.options('sim');"
        "print([m for m in ('robosuite', 'mujoco', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
