"""Our control between two actions moves the arm exactly as robosuite's own does.

OSC_STEPS=1000 makes each trajectory that long.
"""

import os

import numpy as np
import pytest

import envs
import envs.osc

STEPS = int(os.environ.get("OSC_STEPS", "60"))


def trajectory(options):
    """(STEPS, qpos and qvel) of random actions, each for three steps; a new episode every 40."""
    env = envs.make("sim", cameras=[], control_hz=20, **options)
    env.action_space.seed(0)
    rows = []
    for step in range(STEPS):
        if step % 40 == 0:
            env.reset(seed=step)
        if step % 3 == 0:
            action = env.action_space.sample()
        env.step(action)
        rows.append(np.concatenate([env.data.qpos, env.data.qvel]))
    ours = isinstance(env.robosuite._pre_action, envs.osc.OperationalSpace)
    env.close()
    return np.array(rows), ours


@pytest.mark.parametrize(
    "options",
    [
        *({"task": task} for task in ("Lift", "Can", "Square", "Door", "Stack", "Wipe")),
        {"action": "pose"},
        *({"robot": robot, "action": "pose"} for robot in ("UR5e", "Sawyer", "Kinova3", "Jaco")),
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_the_arm_moves_as_with_robosuites_control(monkeypatch, options):
    ours, used = trajectory(options)
    monkeypatch.setattr(envs.osc, "fits", lambda suite: False)
    stock, unused = trajectory(options)
    assert used and not unused
    np.testing.assert_array_equal(ours, stock)


@pytest.mark.parametrize("robot", ["IIWA", "SpotWithArm"])
def test_an_arm_that_is_controlled_otherwise_keeps_robosuites_control(robot):
    """The site that robosuite takes for the base of an IIWA moves with the arm; Spot has legs."""
    env = envs.make("sim", cameras=[], robot=robot)
    ours = isinstance(env.robosuite._pre_action, envs.osc.OperationalSpace)
    env.close()
    assert not ours
