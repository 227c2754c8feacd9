"""robosuite tasks as Gymnasium environments: cameras and proprioception in, end-effector motion out, sparse success.

robosuite simulates and judges; drawing is ours (envs.rendering), because it is what costs most. Nothing of robosuite is
loaded before an environment is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np

from agent.options import nearest, option
from envs.base import EE_POS, EE_ROT, MAX_IMAGE_SIZE, Info, Observation, clipped
from envs.object_state import ObjectState
from envs.rendering import Cameras, choose_backend
from envs.robosuite_import import import_robosuite

# task -> robosuite's environment, its arguments
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Lift": ("Lift", {}),
    "Can": ("PickPlaceCan", {}),
    "Square": ("NutAssemblySquare", {}),
    "Door": ("Door", {}),
    "Stack": ("Stack", {}),
    "Wipe": ("Wipe", {}),
    "Milk": ("PickPlaceMilk", {}),
    "Bread": ("PickPlaceBread", {}),
    "Cereal": ("PickPlaceCereal", {}),
    "PickPlace": ("PickPlace", {}),
    "Round": ("NutAssemblyRound", {}),
    "NutAssembly": ("NutAssembly", {}),
    "NutAssemblySingle": ("NutAssemblySingle", {}),  # one of the nuts, drawn at each reset
    "PickPlaceSingle": ("PickPlaceSingle", {}),
}
PLACED = ("Lift", "Stack")  # whose objects placement_m can place
PHYSICS_HZ = 500  # robosuite's
STEP_M, STEP_RAD = 0.05, 0.5  # what an action of 1 asks of the end effector in one step


@dataclass
class SimOptions:
    task: str = option("Lift", f"one of {', '.join(TASKS)}", choices=TASKS)
    robot: str = option("Panda", "any one-armed robosuite robot")
    cameras: list[str] = option(["agentview", "robot0_eye_in_hand"], "robosuite cameras, in this order")
    image_size: int = option(84, "pixels a side", low=1, high=MAX_IMAGE_SIZE)
    control_hz: float = option(10.0, "actions per simulated second", above=0, high=PHYSICS_HZ)
    horizon: int = option(100, "steps after which an episode is truncated", low=1)
    action: Literal["position", "pose"] = option("position", "x, y, z (and gripper), or with rotation x, y, z as well")
    render: Literal["fast", "stock"] = option("fast", "fast: coarse meshes, no shadows, no multisampling")
    placement_m: float | None = option(
        None, "Lift, Stack: how far from the centre objects start; empty: robosuite's", low=0, high=1
    )
    privileged: bool = option(False, "also observe the objects' state, as 'object'; for baselines")
    object_in_base_frame: bool = option(
        False, "always as `privileged`; recordings with `privileged` but without this hold other numbers in 'object'"
    )

    def __post_init__(self) -> None:
        self.object_in_base_frame = self.privileged


class SimEnv(gymnasium.Env):
    """One robosuite task.

    Observation: each camera uint8 (size, size, 3); "proprio" float32: end-effector position in the base's frame (3, m),
    two columns of its rotation matrix (6), gripper joints; with `privileged` "object" float32, see ObjectState.
    Action float32 in [-1, 1]: end-effector motion per step (1 is 5 cm; with "pose" also 0.5 rad), then the gripper (1
    closes). Reward 1 on success, else 0.
    Raises ValueError naming the option that robosuite can't serve.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, options: SimOptions) -> None:
        choose_backend()
        suite = import_robosuite()
        from envs.osc import OperationalSpace, fits

        self.options, self.task_name = options, options.task
        _check(options, suite.robots.ROBOT_CLASS_MAPPING)
        name, arguments = TASKS[options.task]
        self._env = suite.make(
            name,
            robots=options.robot,
            controller_configs=_controller(suite, options),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=options.control_hz,
            hard_reset=False,
            seed=0,  # robosuite draws sizes and masses once, here: every process must get the same objects
            ignore_done=True,
            **arguments,
        )
        self._robot = self._env.robots[0]
        if len(self._robot.arms) != 1:
            raise ValueError(f"robot '{options.robot}' has {len(self._robot.arms)} arms; robots with one are supported")
        self._place(options.placement_m)
        self._env.reset()
        # Sensors are read after the step, where they are needed, not after each of its 2 ms.
        self._objects = ObjectState(self._env, self._base) if options.privileged else None
        self._env._update_observables = lambda force=False: None
        self._env._get_observations = lambda force_update=False: {}
        if fits(self._env):
            OperationalSpace(self._env)
        self._steps = 0
        size = options.image_size
        boxes: dict[str, gymnasium.Space[Any]] = {
            camera: gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8) for camera in options.cameras
        }
        for key, value in self._states().items():
            boxes[key] = gymnasium.spaces.Box(-np.inf, np.inf, value.shape, np.float32)
        self.observation_space = gymnasium.spaces.Dict(boxes)
        held = 3 if options.action == "position" else 0
        self._action_size = int(self._env.action_dim) - held
        self.action_space = gymnasium.spaces.Box(-1, 1, (self._action_size,), np.float32)
        self._cameras = self._open_cameras()  # last: nothing can fail after it and leave its OpenGL context behind

    @property
    def action_meaning(self) -> dict[str, Any]:
        """See envs.base.action_meaning."""
        pose = self.options.action == "pose"
        reach = [STEP_M] * 3 + [STEP_RAD] * 3 * pose
        grips = self._action_size - len(reach)
        reach += [1.0] * grips
        return {
            "kind": "delta",
            "quantity": "end-effector pose" if pose else "end-effector position",
            "frame": "the robot's base",
            "units": "m and rad" if pose else "m",
            "names": ["x", "y", "z", *["rx", "ry", "rz"] * pose, *["gripper", "gripper2", "gripper3"][:grips]],
            "low": [-value for value in reach],
            "high": reach,
            "control_hz": float(self.options.control_hz),
            "robot": self.options.robot,
        }

    @property
    def state_names(self) -> dict[str, list[str]]:
        """See envs.base.state_names."""
        fingers = [f"finger{number}" for number in range(1, 1 + len(self.fingers))]
        return {"proprio": [*EE_POS, *EE_ROT, *fingers]}

    def _place(self, half_width_m: float | None) -> None:
        if half_width_m is None:
            return
        sampler = self._env.placement_initializer
        sampler.x_range = sampler.y_range = [-half_width_m, half_width_m]

    def _open_cameras(self) -> Cameras | None:
        if not self.options.cameras:
            return None
        return Cameras(self.model, self.options.cameras, self.options.image_size, self.options.render)

    @property
    def robosuite(self) -> Any:
        """The robosuite environment inside: its objects are what scripted experts look at."""
        return self._env

    @property
    def model(self) -> Any:
        """mujoco.MjModel"""
        return self._env.sim.model._model

    @property
    def data(self) -> Any:
        """mujoco.MjData"""
        return self._env.sim.data._data

    @property
    def eef_position(self) -> np.ndarray:
        """(3,) metres, in the world's frame."""
        return np.array(self.data.site_xpos[self._eef_site])

    @property
    def eef_rotation(self) -> np.ndarray:
        """(3, 3) in the base's frame."""
        base = self.data.xmat[self._base].reshape(3, 3)
        return np.asarray(base.T @ self.data.site_xmat[self._eef_site].reshape(3, 3))

    @property
    def fingers(self) -> np.ndarray:
        """Positions of the gripper's joints (empty without a gripper); metres for parallel grippers."""
        joints = self._robot._ref_gripper_joint_pos_indexes.get(self._robot.arms[0]) or []
        return np.array(self.data.qpos[joints])

    @property
    def _base(self) -> int:
        return int(self._env.sim.model.body_name2id(self._robot.robot_model.root_body))

    @property
    def _eef_site(self) -> int:
        return int(self._robot.eef_site_id[self._robot.arms[0]])

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        """A new episode. The same seed gives the same episode, to the last pixel and joule, whatever came before.

        options: {"state": time, qpos and qvel in one row, as robosuite's recordings have it} starts from there.
        """
        super().reset(seed=seed)
        fresh = np.random.default_rng(self.np_random.integers(2**63))
        self._env.rng.bit_generator.state = fresh.bit_generator.state  # its samplers hold this very generator
        self._env.reset()
        if options and "state" in options:
            self._set_state(options["state"])
            arm = self._robot.part_controllers[self._robot.arms[0]]
            arm.update_initial_joints(self.data.qpos[self._robot._ref_joint_pos_indexes])  # where it rests
        self._held = self.eef_rotation
        self._steps = 0
        return self._observation(), {"success": False}

    def show(self, state: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
        """What is seen in `state` (see reset), and whether it is a success. Raises ValueError for another length."""
        self._set_state(state)
        return self._observation(), bool(self._env._check_success())

    def _set_state(self, state: Any) -> None:
        model, state = self.model, np.asarray(state, np.float64)
        if state.shape != (1 + model.nq + model.nv,):
            raise ValueError(f"the state has {state.size} numbers; {self.task_name} has {1 + model.nq + model.nv}")
        self._env.sim.set_state_from_flattened(state)
        self._env.sim.forward()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, Info]:
        self._env.step(self._with_rotation(clipped(action, self._action_size)))
        self._steps += 1
        success = bool(self._env._check_success())
        truncated = not success and self._steps >= self.options.horizon
        return self._observation(), float(success), success, truncated, {"success": success}

    def _with_rotation(self, action: np.ndarray) -> np.ndarray:
        """OSC_POSE's action. It turns relative to the measured rotation, so a zero would let the hand tilt:
        with "position" each step asks for the way back to the rotation of the reset.
        """
        if self.options.action == "pose":
            return action
        turn = np.clip(rotation_vector(self._held @ self.eef_rotation.T) / STEP_RAD, -1, 1)
        return np.concatenate([action[:3], turn, action[3:]])

    def _observation(self) -> dict[str, np.ndarray]:
        return {**self.pictures(), **self._states()}

    def pictures(self) -> dict[str, np.ndarray]:
        """Camera -> uint8 (size, size, 3), as it is now."""
        return self._cameras.images(self.data) if self._cameras else {}

    def _states(self) -> dict[str, np.ndarray]:
        data, base, rotation = self.data, self._base, self.eef_rotation
        position = data.xmat[base].reshape(3, 3).T @ (data.site_xpos[self._eef_site] - data.xpos[base])
        states = {"proprio": np.concatenate([position, rotation[:, 0], rotation[:, 1], self.fingers])}
        if self._objects:
            states["object"] = self._objects.read()
        return {key: value.astype(np.float32) for key, value in states.items()}

    def close(self) -> None:
        if self._cameras:
            self._cameras.close()
            self._cameras = None


def _check(options: SimOptions, robots: Any) -> None:
    if options.robot not in robots:
        raise ValueError(f"unknown robot '{options.robot}'{nearest(options.robot, robots)}")
    if options.placement_m is not None and options.task not in PLACED:
        raise ValueError(f"placement_m is for {' and '.join(PLACED)}; task '{options.task}' has its own placement")


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) -> axis times angle (3,), radians."""
    axis = rotation[[2, 0, 1], [1, 2, 0]] - rotation[[1, 2, 0], [2, 0, 1]]
    sine = np.linalg.norm(axis) / 2
    return axis / (2 * sine) * np.arctan2(sine, (np.trace(rotation) - 1) / 2) if sine > 1e-9 else np.zeros(3)


def _controller(suite: Any, options: SimOptions) -> dict[str, Any]:
    """robosuite's own configuration for the robot, its arm under end-effector control in the base's frame."""
    config: dict[str, Any] = suite.load_composite_controller_config(robot=options.robot)
    arms = config["body_parts"].get("arms", config["body_parts"])
    arm = arms.get("right")
    if arm is None:
        raise ValueError(f"robot '{options.robot}' has no single arm that robosuite can control by its end effector")
    arm["type"] = "OSC_POSE"
    reach = [STEP_M] * 3 + [STEP_RAD] * 3
    arm.update(input_max=1, input_min=-1, input_type="delta", input_ref_frame="base")
    arm.update(output_max=reach, output_min=[-value for value in reach])
    arm.update(kp=150, damping_ratio=1, impedance_mode="fixed", kp_limits=[0, 300], damping_ratio_limits=[0, 10])
    arm.update(uncouple_pos_ori=True, interpolation=None, ramp_ratio=0.2)
    arm.setdefault("gripper", {"type": "GRIP"})
    return config
