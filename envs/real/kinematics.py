"""A joint arm's kinematics from its URDF or MJCF: where its hand is, and the joints that take it somewhere else.

MuJoCo reads the description and does the geometry. The inverse is Levenberg and Marquardt's iteration, each step of it
within the joints' bounds. It starts at the joints that the arm is at and stays on their side of every singularity: it
finds the nearest solution, and never another one that the arm would have to flip to.

An arm of six joints turns its hand freely. One with fewer is a base joint about the vertical, two or three parallel
ones that pitch the hand, and perhaps one that rolls it. Its turn is then those two angles, whatever the base joint
does: `pitch` tips the hand forward and down, `roll` is about the hand's own axis, clockwise for who looks along it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.options import nearest
from envs.real.least_squares import bounded

DESCRIPTIONS = Path(__file__).parent / "descriptions"
HAND = "hand"  # the frame in our own descriptions
FREE, TURNS = ("rx", "ry", "rz"), ("roll", "pitch")
REACH_M = 0.15  # an error of a radian weighs as much as one of so many metres
ITERATIONS, LONGEST_SEARCH, TRIES = 8, 100, 100
CONVERGED, SOLVED = 1e-9, 1e-6  # of the weighted error: m
DAMPING = 1e-5  # at first and at least, of the weighted motion: m a rad
STALLED = 1e-3  # of the squared error: an iteration that makes less of it is the last one
STUCK = 100.0  # a damping with which nothing moves: there is nothing nearer
PARALLEL = 1 - 1e-4  # of two axes: their cosine

_SHAPES = "geoms meshes textures materials hfields skins cameras lights keys actuators sensors equalities tendons pairs"


class Pose(NamedTuple):
    """position: float64 (3,), m, in the base's frame. turn, of an arm that turns freely: float64 (3, 3), whose columns
    are the hand's axes in that frame; of another (k,), rad, as Kinematics.turns names them.
    """

    position: np.ndarray
    turn: np.ndarray


def description(name: str) -> Path:
    """The file `name`, or that of one of our own. Raises ValueError, one line."""
    own = sorted(path.stem for path in DESCRIPTIONS.glob("*.xml"))
    path = DESCRIPTIONS / f"{name}.xml" if name in own else Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"hand: description: no file '{name}'{nearest(name, own)}: {', '.join(own)} or a URDF or MJCF")
    return path


class Kinematics:
    """joints: those between base and hand, in order, n of them. low, high: float64 (n,), rad, their ranges there (0 and
    0 where the description has none). turns: what the numbers of a turn are: rx ry rz (about the base's axes), or some
    of roll and pitch. weights: (3 + k,), what m and rad of a motion weigh.

    Raises ValueError, one line, for a description that cannot be read, without a `frame` (a site, or a body), or of an
    arm of another kind.
    """

    def __init__(self, name: str, frame: str = "") -> None:
        try:
            import mujoco
        except ImportError:
            raise ValueError("hand: needs MuJoCo: pip install mujoco (the extra [hand])") from None
        path, self._mujoco = description(name), mujoco
        try:
            self._model = _compiled(mujoco, path)
        except Exception as error:  # of many kinds
            raise ValueError(f"hand: description: {path}: {' '.join(str(error).split())}") from None
        self._data = mujoco.MjData(self._model)
        self._site, self._body = self._frame(path, frame)
        self._chain = self._joints(path)
        self.joints = tuple(self._model.joint(number).name for number in self._chain)
        self.low, self.high = self._model.jnt_range[self._chain].T.copy()
        self._dofs = self._model.jnt_dofadr[self._chain]
        self._places = self._model.jnt_qposadr[self._chain]
        self.free = len(self.joints) == 6
        self.turns: tuple[str, ...] = FREE
        self._angles = np.zeros((0, 6))
        if not self.free:
            self.turns, self._angles = self._turns(path)
        self.weights = np.array([1.0] * 3 + [REACH_M] * len(self.turns))

    def pose(self, joints: np.ndarray) -> Pose:
        """Of the hand, with `joints` (n,) in rad."""
        self._set(joints)
        return Pose(self._position(), self._axes() if self.free else self._angles @ joints)

    def axes(self, joints: np.ndarray) -> np.ndarray:
        """float64 (3, 3): the hand's axes as columns in the base's frame."""
        self._set(joints)
        return self._axes()

    def moved(self, pose: Pose, motion: np.ndarray) -> Pose:
        """`pose` after `motion` (3 + k,): m, then rad, in the base's axes or as `turns` names them."""
        turn = rotation(motion[3:]) @ pose.turn if self.free else pose.turn + motion[3:]
        return Pose(pose.position + motion[:3], turn)

    def motion(self, goal: Pose, pose: Pose) -> np.ndarray:
        """float64 (3 + k,): what takes `pose` to `goal`, as in `moved`."""
        turn = rotation_vector(goal.turn @ pose.turn.T) if self.free else goal.turn - pose.turn
        return np.concatenate([goal.position - pose.position, turn])

    def jacobian(self, joints: np.ndarray) -> np.ndarray:
        """float64 (3 + k, n): m and rad of a motion by rad of each joint."""
        self._set(joints)
        return self._jacobian()

    def clearance(self, joints: np.ndarray) -> float:
        """How far a singularity is: the least motion of the hand, m, by a rad of all the joints together."""
        return float(np.linalg.svd(self.weights[:, None] * self.jacobian(joints), compute_uv=False)[-1])

    def nearest(
        self,
        goal: Pose,
        joints: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        weights: np.ndarray | None = None,
        iterations: int = ITERATIONS,
    ) -> np.ndarray:
        """float64 (n,): joints within `low` and `high` (n,) that bring the hand nearest to `goal`, from `joints` (n,).

        weights: (3 + k,), of the motion's numbers, where not all can be reached.
        """
        scale = self.weights * (1.0 if weights is None else weights)
        at: np.ndarray = np.clip(joints, low, high)
        off = scale * self.motion(goal, self.pose(at))
        damping = DAMPING
        for _ in range(iterations):
            if off @ off < CONVERGED**2:
                break
            motion = scale[:, None] * self.jacobian(at)
            normal, pull = motion.T @ motion, motion.T @ off
            normal.flat[:: len(at) + 1] += damping**2
            change = bounded(normal, pull, low - at, high - at)
            moved = np.minimum(np.maximum(at + change, low), high)
            left = scale * self.motion(goal, self.pose(moved))
            if left @ left < off @ off:
                done = left @ left > (1 - STALLED) * (off @ off)
                at, off, damping = moved, left, max(DAMPING, damping / 10)
                if done:
                    break
            elif (damping := damping * 10) > STUCK:
                break
        return at

    def solve(
        self, goal: Pose, joints: np.ndarray, low: np.ndarray, high: np.ndarray, seed: int = 0
    ) -> tuple[np.ndarray, float]:
        """(joints (n,) within `low` and `high` that bring the hand to `goal`, the weighted error left, m).

        From `joints`, and where that ends short of `goal`, from others at random: an arm that is to move there may have
        to flip.
        """
        rng, start = np.random.default_rng(seed), joints
        found, left = joints, np.inf
        for _ in range(TRIES):
            at = self.nearest(goal, start, low, high, iterations=LONGEST_SEARCH)
            error = float(np.linalg.norm(self.weights * self.motion(goal, self.pose(at))))
            if error < left:
                found, left = at, error
            if left < SOLVED:
                break
            start = rng.uniform(low, high)
        return found, left

    def _set(self, joints: np.ndarray) -> None:
        self._data.qpos[self._places] = joints
        self._mujoco.mj_kinematics(self._model, self._data)

    def _position(self) -> np.ndarray:
        data = self._data
        return np.array(data.site_xpos[self._site] if self._site >= 0 else data.xpos[self._body])

    def _axes(self) -> np.ndarray:
        data = self._data
        return np.array(data.site_xmat[self._site] if self._site >= 0 else data.xmat[self._body]).reshape(3, 3)

    def _jacobian(self) -> np.ndarray:
        shift, turn = np.zeros((2, 3, self._model.nv))
        self._mujoco.mj_comPos(self._model, self._data)
        self._mujoco.mj_jac(self._model, self._data, shift, turn, self._position(), self._body)
        return np.concatenate([shift[:, self._dofs], turn[:, self._dofs] if self.free else self._angles])

    def _frame(self, path: Path, frame: str) -> tuple[int, int]:
        """(site or -1, body)"""
        model, frame = self._model, frame or HAND
        sites = [model.site(number).name for number in range(model.nsite)]
        bodies = [model.body(number).name for number in range(1, model.nbody)]
        if frame in sites:
            site = sites.index(frame)
            return site, int(model.site_bodyid[site])
        if frame in bodies:
            return -1, 1 + bodies.index(frame)
        there = ", ".join(filter(None, sites + bodies))
        raise ValueError(f"hand: {path} has no frame '{frame}'{nearest(frame, sites + bodies)}; it has {there}")

    def _joints(self, path: Path) -> list[int]:
        model, body, found = self._model, self._body, list[int]()
        while body:
            first = int(model.body_jntadr[body])
            found[:0] = range(first, first + int(model.body_jntnum[body]))
            body = int(model.body_parentid[body])
        names = ", ".join(model.joint(number).name for number in found) or "none"
        hinges = all(model.jnt_type[number] == self._mujoco.mjtJoint.mjJNT_HINGE for number in found)
        if not hinges or not 3 <= len(found) <= 6:
            raise ValueError(f"hand: {path}: expected 3 to 6 hinges between base and hand, not {names}")
        return found

    def _turns(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """(names, float64 (k, n) rad of them by rad of each joint)"""
        count = len(self._chain)
        self._set(np.zeros(count))
        axes, anchors = self._data.xaxis[self._chain], self._data.xanchor[self._chain]
        cosines = axes @ axes[1]
        rolls = bool(abs(cosines[-1]) < PARALLEL)
        pitching = range(1, count - rolls)
        kinds = ["roll"] * rolls + ["pitch"] * (len(pitching) == 3)
        if abs(axes[0, 2]) < PARALLEL or (np.abs(cosines[pitching]) < PARALLEL).any() or len(kinds) != count - 3:
            raise ValueError(
                f"hand: {path}: an arm of {count} joints has to be one about the vertical, then two or three parallel "
                "ones, then perhaps one that rolls the hand; others need six"
            )
        outward = self._position() - anchors[0]
        forward = np.sign(axes[1] @ np.cross([0, 0, 1], outward)) or 1.0
        along = np.sign(axes[-1] @ (self._position() - anchors[-1])) or 1.0
        rows = {"roll": np.eye(count)[-1] * along, "pitch": np.zeros(count)}
        rows["pitch"][pitching] = np.round(cosines[pitching]) * forward
        return tuple(kinds), np.array([rows[kind] for kind in kinds]).reshape(-1, count)


def _compiled(mujoco: Any, path: Path) -> Any:
    """An MjModel of the bodies, joints and sites alone: meshes need not be there."""
    spec = mujoco.MjSpec.from_file(str(path))
    for kind in _SHAPES.split():
        for part in list(getattr(spec, kind, ())):
            spec.delete(part)
    spec.compiler.fusestatic = False  # frames of a URDF are such bodies
    spec.compiler.boundmass, spec.compiler.boundinertia = 1e-3, 1e-6
    return spec.compile()


def rotation(vector: np.ndarray) -> np.ndarray:
    """float64 (3, 3) of a rotation vector (3,), rad."""
    import mujoco

    quaternion, matrix, angle = np.zeros(4), np.zeros(9), float(np.linalg.norm(vector))
    mujoco.mju_axisAngle2Quat(quaternion, np.asarray(vector, np.float64) / (angle or 1.0), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """The inverse of `rotation`, of at most half a turn."""
    import mujoco

    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
