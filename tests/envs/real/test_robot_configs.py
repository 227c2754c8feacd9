"""The example robots in configs/hardware: everything in them is an option that there is, and makes sense."""

from pathlib import Path

import pytest

import envs
from agent import cli
from agent.spec import UserError
from envs.real.camera_options import parse
from envs.real.options import check, limits_of, read_axis
from tools.common.rollout import env_options

HARDWARE = Path(__file__).parents[3] / "configs" / "hardware"
ROBOTS = [path for path in sorted(HARDWARE.glob("*.yaml")) if "\nenv:" in path.read_text()]


def read(path):
    sections = ["robot", "link", "network", "calql", "offline", "online", "learner", "collect"]
    return cli.parse(["--config", str(path)], "", sections, lambda parser: None, env_options, prog="test").env()


@pytest.mark.parametrize("path", ROBOTS, ids=lambda path: path.stem)
def test_an_example_makes_sense(path):
    name, given = read(path)
    options = envs.options(name)(**given)
    check(options)
    axes = {axis: read_axis(axis, given) for axis, given in options.axes.items()}
    limits_of(list(axes.values()), 1 / options.control_hz).check(list(axes))
    assert any(axis.start for axis in axes.values())
    for camera, about in options.cameras.items():
        if about.get("source") != "mock":
            parse(camera, about)


def test_there_are_examples_and_the_check_sees_mistakes(tmp_path):
    assert {path.stem for path in ROBOTS} >= {"mock", "so101", "ur5e", "xarm6"}
    broken = tmp_path / "broken.yaml"
    broken.write_text("env: {name: mock, controlhz: 10}\n")
    with pytest.raises(UserError, match="controlhz"):
        read(broken)
    broken.write_text("env: {name: mock, axes: {x: {low: 0, high: 1, home: 2}}}\n")
    with pytest.raises(ValueError, match="home 2"):
        read_axis("x", read(broken)[1]["axes"]["x"])
