"""The example robots in configs/hardware: everything in them is an option that there is, and makes sense."""

from pathlib import Path

import numpy as np
import pytest

import envs
from agent import cli
from agent.spec import UserError
from envs.real.camera_options import parse
from envs.real.hand import CLEAREST, read_hand
from envs.real.options import check, limits_of, read_axis
from tools.common.rollout import env_options

HARDWARE = Path(__file__).parents[3] / "configs" / "hardware"
HAND = HARDWARE / "so101_hand.yaml"  # after another
ROBOTS = [(path,) for path in sorted(HARDWARE.glob("*.yaml")) if "\n  name:" in path.read_text()]
ROBOTS += [(HARDWARE / name, HAND) for name in ("so101.yaml", "so101_mock.yaml")]


def read(*paths):
    sections = ["robot", "link", "network", "calql", "offline", "online", "learner", "collect"]
    words = [word for path in paths for word in ("--config", str(path))]
    return cli.parse(words, "", sections, lambda parser: None, env_options, prog="test").env()


@pytest.mark.parametrize("paths", ROBOTS, ids=lambda paths: paths[-1].stem)
def test_an_example_makes_sense(paths):
    name, given = read(*paths)
    options = envs.options(name)(**given)
    check(options)
    axes = {axis: read_axis(axis, given) for axis, given in options.axes.items()}
    limits_of(list(axes.values()), 1 / options.control_hz).check(list(axes))
    hand = read_hand(options, axes)
    assert (hand is None) == (HAND not in paths)
    if hand:  # where a reset takes it is within its workspace, and can be left
        home = hand.rad(np.array([axes[axis].home for axis in hand.axes]))
        place, (low, high) = hand.kinematics.pose(home).position, hand.workspace
        assert (low < place).all() and (place < high).all() and hand.kinematics.clearance(home) > 2 * CLEAREST
    assert any(axis.start for axis in axes.values())
    for name, axis in axes.items():  # one whose lag is more than its range could never count as stuck, nor be relaxed
        assert (name == "gripper" and options.arm == "mock") or axis.lag < axis.high - axis.low, name
    for camera, about in options.cameras.items():
        if about.get("source") != "mock":
            parse(camera, about)


def test_there_are_examples_and_the_check_sees_mistakes(tmp_path):
    assert {paths[0].stem for paths in ROBOTS} >= {"mock", "so101", "ur5e", "xarm6"}
    broken = tmp_path / "broken.yaml"
    broken.write_text("env: {name: mock, controlhz: 10}\n")
    with pytest.raises(UserError, match="controlhz"):
        read(broken)
    broken.write_text("env: {name: mock, axes: {x: {low: 0, high: 1, home: 2}}}\n")
    with pytest.raises(ValueError, match="home 2"):
        read_axis("x", read(broken)[1]["axes"]["x"])
