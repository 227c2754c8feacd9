"""A desk with an SO-101, a cube to lift and two cameras, in MuJoCo: what the simulated servos move."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.real.so101_model import JOINTS, Units, arm_spec
from envs.rendering import MESHES_GROUP

TIMESTEP_S = 0.002
CUBE_M = 0.03  # its edge
PLACE_M, SPREAD_M, TURN = (0.23, 0.0), (0.025, 0.04), 0.4  # where it lies: centre, how far from it, rad
LIFTED_M = 0.05  # a success
CAMERAS = ("front", "wrist")
HOME = (0.0, -60.0, 60.0, 60.0, 0.0, 60.0)  # where the arm stands at first


def looking(position: tuple[float, ...], at: tuple[float, ...], up: tuple[float, ...] = (0, 0, 1)) -> np.ndarray:
    """The quaternion (4,) of a camera that looks from `position` at `at`."""
    import mujoco

    back = np.subtract(position, at) / np.linalg.norm(np.subtract(position, at))
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.column_stack([right, np.cross(back, right), back]).ravel())
    return quaternion


def desk() -> Any:
    """The mujoco.MjModel."""
    import mujoco

    spec = arm_spec()
    spec.option.timestep, spec.option.integrator = TIMESTEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10.0
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = (0.35,) * 3, (0.4,) * 3
    spec.visual.map.znear = 0.01
    world = spec.worldbody
    world.add_light(pos=(0.2, 0.4, 1.2), dir=(0, -0.3, -1), diffuse=(0.6, 0.6, 0.6), specular=(0.1, 0.1, 0.1))
    shape = {"group": MESHES_GROUP, "contype": 2, "conaffinity": 3, "condim": 4}
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world.add_geom(name="table", type=plane, size=(2, 2, 0.1), rgba=(0.72, 0.66, 0.58, 1), **shape)
    cube = world.add_body(name="cube", pos=(*PLACE_M, CUBE_M / 2))
    cube.add_freejoint(name="cube")
    cube.add_geom(
        name="cube",
        type=box,
        size=(CUBE_M / 2,) * 3,
        mass=0.03,
        rgba=(0.8, 0.12, 0.1, 1),
        friction=(1.0, 0.02, 0.0001),
        **shape,
    )
    front = (0.60, -0.20, 0.36)
    world.add_camera(name="front", pos=front, quat=looking(front, (0.19, 0.0, 0.06)), fovy=32)
    wrist = (0.0, -0.062, -0.005)  # on the gripper, in its frame, where the usual mount holds it
    spec.body("gripper").add_camera(name="wrist", pos=wrist, quat=looking(wrist, (0.005, 0, -0.1), (1, 0, 0)), fovy=75)
    return spec.compile()


class Desk:
    """model, data: MuJoCo's."""

    def __init__(self) -> None:
        import mujoco

        self._mujoco, self.model = mujoco, desk()
        self.data = mujoco.MjData(self.model)
        self.units = Units(self.model)
        self._joints = [int(self.model.joint(name).qposadr[0]) for name in JOINTS]
        self._motors = [self.model.actuator(name).id for name in JOINTS]
        self._force = self.model.actuator_forcerange[self._motors].copy()
        self._cube = int(self.model.joint("cube").qposadr[0])
        self.data.qpos[self._joints] = self.data.ctrl[self._motors] = self.units.radians(np.array(HOME))
        self.place(0)

    def place(self, seed: int) -> None:
        """The cube somewhere on its part of the desk; the arm stays."""
        rng = np.random.default_rng(seed)
        x, y = np.add(PLACE_M, rng.uniform(-1, 1, 2) * SPREAD_M)
        turn = rng.uniform(-TURN, TURN) / 2
        self.data.qpos[self._cube : self._cube + 7] = x, y, CUBE_M / 2, np.cos(turn), 0, 0, np.sin(turn)
        dof = int(self.model.joint("cube").dofadr[0])
        self.data.qvel[dof : dof + 6] = 0
        self._mujoco.mj_forward(self.model, self.data)

    def advance(self, goals: np.ndarray, most: np.ndarray, elapsed_s: float) -> None:
        """goals: rad (6,) of the servos. most: (6,), the share of a servo's torque that each may give."""
        self.data.ctrl[self._motors] = goals
        allowed = self._force.max() * most[:, None]
        self.model.actuator_forcerange[self._motors] = np.clip(self._force, -allowed, allowed)
        self._mujoco.mj_step(self.model, self.data, nstep=max(1, round(elapsed_s / TIMESTEP_S)))

    @property
    def radians(self) -> np.ndarray:
        """(6,) where the joints are."""
        return np.array(self.data.qpos[self._joints])

    @property
    def load(self) -> np.ndarray:
        """(6,): the servos' torques, as shares of what a servo can give; below 0 it pulls back."""
        load: np.ndarray = self.data.actuator_force[self._motors] / self._force.max()
        return load

    @property
    def cube(self) -> np.ndarray:
        """(3,): where it is, m."""
        return np.array(self.data.qpos[self._cube : self._cube + 3])

    @property
    def lifted(self) -> bool:
        return bool(self.cube[2] > CUBE_M / 2 + LIFTED_M)
