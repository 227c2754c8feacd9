"""The objects' state of a robosuite task, in the frame of the robot's base."""

from __future__ import annotations

from typing import Any

import numpy as np

END_EFFECTOR = ("robot0_eef_pos", "robot0_eef_quat")  # which the relative vectors start from
RELATIVE = "_to_"  # in the names of those


class ObjectState:
    """Reads the "object" sensors of `env`, a robosuite environment with one one-armed robot whose base is body `base`.

    The numbers and their order are those of robosuite's "object-state", the frame is the one of our proprioception:
    - positions (cube_pos): metres, in the base's frame
    - quaternions (cube_quat): x, y, z, w, of the rotation relative to the base
    - vectors between positions (gripper_to_cube_pos, cubeA_to_cubeB): metres, along the base's axes
    - poses relative to the end effector (Can_to_robot0_eef_pos and _quat): in the end effector's frame, as in robosuite
    - joint angles, radii, shares, and which object was drawn: as in robosuite

    All are of the same moment. robosuite's own relative poses use the object's pose of the update before.
    """

    def __init__(self, env: Any, base: int) -> None:
        self._data, self._base = env.sim.data._data, base  # mujoco.MjData
        self._observed = [sensor for sensor in env._observables.values() if sensor.modality == "object"]
        # A relative sensor reads what it relates from the cache, and gives zeros where that is missing.
        first = [env._observables[name] for name in END_EFFECTOR]
        self._in_order = first + sorted(self._observed, key=lambda sensor: RELATIVE in sensor.name)

    def read(self) -> np.ndarray:
        """float64 (N,), as the simulation is now."""
        cache: dict[str, Any] = {}
        for sensor in self._in_order:
            if sensor.is_enabled():  # others are of objects that the task has not drawn in this episode
                sensor.update(timestep=0.0, obs_cache=cache, force=True)
                if RELATIVE not in sensor.name:
                    cache[sensor.name] = self._in_base(cache[sensor.name])
        observed = [sensor for sensor in self._observed if sensor.is_enabled() and sensor.is_active()]
        return np.concatenate([np.ravel(cache[sensor.name]) for sensor in observed])

    def _in_base(self, value: np.ndarray) -> np.ndarray:
        """A position or a quaternion, from the world's frame; any other shape as it is."""
        if value.shape == (3,):
            rotation = self._data.xmat[self._base].reshape(3, 3)
            return np.asarray(rotation.T @ (value - self._data.xpos[self._base]))
        if value.shape == (4,):
            w, x, y, z = self._data.xquat[self._base]
            inverse = np.array([[w, z, -y, -x], [-z, w, x, -y], [y, -x, w, -z], [x, y, z, w]])
            return np.asarray(inverse @ value)
        return value
