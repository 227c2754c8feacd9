"""robosuite's end-effector control between two actions: its own numbers, without what it computes and throws away.

robosuite's OSC_POSE computes torques at each 2 ms of physics, from six Jacobians of which one is enough, and the mass
matrix again for the gripper. Here each is computed once, into the same arrays, through robosuite's own compiled
functions in its own order: torques are equal to the last bit, and so are trajectories.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np


class OperationalSpace:
    """Takes the place of `_pre_action`, which robosuite's `step` calls at each 2 ms of physics.

    suite: a robosuite environment with one robot, see `fits`.
    """

    def __init__(self, suite: Any) -> None:
        from robosuite.utils import control_utils

        self._functions = control_utils
        self._robot, self._pre_action = suite.robots[0], suite._pre_action
        self._model, self._data = suite.sim.model._model, suite.sim.data._data
        self._arm: Any = None
        self._jacobian = np.zeros((2, 3, self._model.nv))
        self._all_masses = np.zeros((self._model.nv, self._model.nv))
        suite._pre_action = self

    def __call__(self, action: np.ndarray, policy_step: bool = False) -> None:
        if policy_step:
            self._pre_action(action, policy_step=True)  # and with it the gripper's command, which stands until the next
            self._take_goal()
        else:
            self._data.ctrl[self._actuators] = np.minimum(np.maximum(self._torques(), self._low), self._high)

    def _take_goal(self) -> None:
        robot, name = self._robot, self._robot.arms[0]
        arm = robot.part_controllers[name]
        if arm is not self._arm:  # robosuite makes it anew at each reset
            self._arm = arm
            self._positions, self._velocities = _span(arm.qpos_index), _span(arm.qvel_index)
            self._actuators = _span(robot._ref_actuators_indexes_dict[name])
            self._low, self._high = self._model.actuator_ctrlrange[self._actuators].T
            self._site = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, arm.ref_name)
            self._mass = np.zeros_like(arm.mass_matrix)  # in its order in memory: sums are rounded alike
        self._goal_position = arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos)
        self._goal_rotation = np.dot(arm.origin_ori, arm.goal_ori)

    def _torques(self) -> np.ndarray:
        """(joints,) N m, from the state that the physics is in."""
        model, data, arm, columns = self._model, self._data, self._arm, self._velocities
        velocity = data.qvel
        mujoco.mj_jacSite(model, data, self._jacobian[0], self._jacobian[1], self._site)
        linear, angular = np.dot(self._jacobian[0], velocity), np.dot(self._jacobian[1], velocity)
        arm.J_full[:3] = arm.J_pos[:] = self._jacobian[0][:, columns]
        arm.J_full[3:] = arm.J_ori[:] = self._jacobian[1][:, columns]
        mujoco.mj_fullM(model, self._all_masses, data.qM)
        self._mass[:] = self._all_masses[columns][:, columns]
        position, rotation = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)

        turn = self._functions.orientation_error(self._goal_rotation, rotation)
        force = (self._goal_position - position) * arm.kp[:3] + -linear * arm.kd[:3]
        torque = turn * arm.kp[3:] + -angular * arm.kd[3:]
        _, of_position, of_rotation, nullspace = self._functions.opspace_matrices(
            self._mass, arm.J_full, arm.J_pos, arm.J_ori
        )
        wrench = np.concatenate([np.dot(of_position, force), np.dot(of_rotation, torque)])
        torques = np.dot(arm.J_full.T, wrench) + data.qfrc_bias[columns]
        torques += self._functions.nullspace_torques(
            self._mass, nullspace, arm.initial_joint, data.qpos[self._positions], velocity[columns]
        )
        return np.asarray(torques)


def _span(indices: Any) -> Any:
    """The indices as a slice where they follow each other: numpy reads that several times as fast."""
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if list(indices) == list(range(first, last + 1)) else np.asarray(indices)


def fits(suite: Any) -> bool:
    """Whether `suite` is controlled as OperationalSpace does it: else robosuite's own control stays.

    One arm by OSC_POSE in the frame of a base that is fixed to the world, and beside it grippers only.
    """
    from robosuite.controllers.composite.composite_controller import CompositeController
    from robosuite.controllers.parts.arm.osc import OperationalSpaceController
    from robosuite.controllers.parts.gripper.simple_grip import SimpleGripController

    robot, model = suite.robots[0], suite.sim.model._model
    parts = dict(robot.part_controllers)
    arm = parts.pop(robot.arms[0])
    if type(robot.composite_controller) is not CompositeController or type(arm) is not OperationalSpaceController:
        return False
    center = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, f"{arm.naming_prefix}{arm.part_name}_center")
    fixed = model.body_weldid[model.site_bodyid[center]] == 0
    plain = arm.lite_physics and arm.uncoupling and arm.interpolator_pos is None and arm.interpolator_ori is None
    others = all(type(part) is SimpleGripController and part.interpolator is None for part in parts.values())
    return bool(fixed and plain and others and arm.input_ref_frame == "base")
