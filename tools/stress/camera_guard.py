"""Does the camera guard find what happened to a camera, and leave normal starts alone?

  python -m tools.stress.camera_guard [--sizes 480 128] [--trials 20] [--starts 100] [--photos FILE ...] [--json FILE]
  python -m tools.stress.camera_guard --live panda so101 [--starts 20]

The mock arm's two cameras, drawn at each size: references as tools.doctor makes them, then pictures of new starts. In
each, lights, exposure (0.85 to 1.15), sensor noise, the cube's place and the arm's joints (0.3 degrees) differ. A fault
turns the camera itself in the simulator: by as much as moves the picture 5 px in a random direction, or by 1 degree
about its axis; dims by half, covers, or exchanges the two. It counts as found when the guard names it (moved: or says
that the view is another). --photos: real pictures, or films of which the first frame is taken, moved and turned as
pictures; a patch is put elsewhere. --live: instead, with the mock arms as they move: references as tools.doctor makes
them, then resets with the check of a first start, each after steps that leave arm and gripper moving. Exits with 1 if a
fault was missed or a normal start was reported.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

import envs
from agent.options import build
from agent.spec import UserError
from envs.real import start_check, view_change
from envs.real.camera_reference import Reference, References, judge
from envs.real.mock_camera_faults import moved
from envs.sim import SimEnv, SimOptions
from tools.common.report import Report, parser
from tools.doctor import arm, cameras
from tools.stress.driven import ROOT

LIVE = {
    robot: ROOT / "configs" / "hardware" / f"{name}.yaml"
    for robot, name in (("panda", "mock"), ("so101", "so101_mock"))
}
MOVED = 12  # steps before a reset
CAMERAS = ("agentview", "robot0_eye_in_hand")
JOG_RAD, HOME_RAD = 0.05, 0.005
SHIFT_PX, TURN_DEG = 5.0, 1.0
EXPOSURE = 0.15
NOISE = 3.0  # of 255, of a frame; three are averaged
PATCH = 0.12  # of the shorter side
NAMED = {
    "moved by 5 px": ("has moved", "another view"),  # in a coarse picture too few corners may be left to say how far
    "rotated by 1 degree": ("turned by",),
    "dimmed by half": ("brightness",),
    "covered": ("covered",),
    "swapped": ("swapped",),
}


class Desk:
    """robosuite's Lift with cameras and lights that can be changed."""

    def __init__(self, size: int, seed: int) -> None:
        options = {"task": "Lift", "cameras": list(CAMERAS), "image_size": size}
        self.env, self.size, self.rng = SimEnv(build(SimOptions, options)), size, np.random.default_rng(seed)
        self.env.reset(seed=0)
        self._home = self.env.data.qpos.copy()
        self._arm = list(self.env._robot._ref_joint_pos_indexes)
        model = self.env.model
        self._quat, self._diffuse, self._light = (
            np.array(each) for each in (model.cam_quat, model.light_diffuse, model.light_pos)
        )

    def draw(
        self, joints_rad: float, lights: bool = True, pan_px: float = 0.0, tilt_px: float = 0.0, turn_deg: float = 0.0
    ) -> dict[str, np.ndarray]:
        """Camera -> uint8 (size, size, 3): the cube and the arm where chance has put them, the cameras turned."""
        import mujoco

        model, data, rng = self.env.model, self.env.data, self.rng
        data.qpos[:] = self._home
        if lights:
            model.light_diffuse[:] = self._diffuse * rng.uniform(0.85, 1.15)
            model.light_pos[:] = self._light + rng.normal(0, 0.1, self._light.shape)
            suite = self.env.robosuite
            for position, rotation, thing in suite.placement_initializer.sample().values():
                suite.sim.data.set_joint_qpos(thing.joints[0], np.concatenate([position, rotation]))
        data.qpos[self._arm] += rng.normal(0, 1, len(self._arm)) * joints_rad
        focal = 0.5 * self.size / np.tan(np.radians(model.cam_fovy) / 2)
        for camera, focal_px in enumerate(focal):
            turns = ((0, 1, 0), pan_px / focal_px), ((1, 0, 0), tilt_px / focal_px), ((0, 0, 1), np.radians(turn_deg))
            model.cam_quat[camera] = self._quat[camera]
            for axis, angle in turns:
                turn, result = np.zeros(4), np.zeros(4)
                mujoco.mju_axisAngle2Quat(turn, np.array(axis, np.float64), angle)
                mujoco.mju_mulQuat(result, model.cam_quat[camera], turn)
                model.cam_quat[camera] = result
        mujoco.mj_forward(model, data)
        return self.env.pictures()

    def references(self) -> dict[str, Reference]:
        at_home = {name: sensed(image, self.rng) for name, image in self.draw(0.0, lights=False).items()}
        away = [self.draw(JOG_RAD, lights=False) for _ in range(4)]
        made = {}
        for name, image in at_home.items():
            others = [sensed(images[name], self.rng) for images in away]
            made[name] = Reference(image, view_change.still(image, view_change.corners(image), others))
        return made


def sensed(image: np.ndarray, rng: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    """As the mean of three frames of a sensor."""
    noise = rng.normal(0, NOISE / np.sqrt(3), image.shape)
    return np.clip(gain * image + noise, 0, 255).astype(np.uint8)


def exposure(rng: np.random.Generator) -> float:
    return float(rng.uniform(1 - EXPOSURE, 1 + EXPOSURE))


def desk_faults(desk: Desk) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """Fault -> camera -> what it shows then."""
    rng = desk.rng

    def start(gain: float = 1.0, **turned: Any) -> dict[str, np.ndarray]:
        pictures = desk.draw(HOME_RAD, **turned)
        return {name: sensed(image, rng, gain * exposure(rng)) for name, image in pictures.items()}

    def knocked() -> dict[str, np.ndarray]:
        angle = rng.uniform(0, 2 * np.pi)
        return start(pan_px=SHIFT_PX * np.cos(angle), tilt_px=SHIFT_PX * np.sin(angle))

    def cover() -> dict[str, np.ndarray]:
        level = rng.integers(0, 120)
        return {name: sensed(np.full((desk.size, desk.size, 3), level, np.uint8), rng) for name in CAMERAS}

    return {
        "": start,
        "moved by 5 px": knocked,
        "rotated by 1 degree": lambda: start(turn_deg=TURN_DEG * rng.choice([-1, 1])),
        "dimmed by half": lambda: start(0.5),
        "covered": cover,
        "swapped": lambda: dict(zip(CAMERAS, reversed(start().values()), strict=True)),
    }


def photo_faults(image: np.ndarray, rng: np.random.Generator) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    def start(gain: float = 1.0, **change: float) -> dict[str, np.ndarray]:
        side = int(PATCH * min(image.shape[:2]))
        (top, left), (row, column) = (
            rng.integers(0, np.array(image.shape[:2]) - side) for _ in range(2)
        )  # of a thing that was put elsewhere
        shown = image.copy()
        shown[top : top + side, left : left + side] = image[row : row + side, column : column + side]
        return {"photo": sensed(moved(shown, **change), rng, gain * exposure(rng))}

    def knocked() -> dict[str, np.ndarray]:
        angle = rng.uniform(0, 2 * np.pi)
        return start(right=SHIFT_PX * np.cos(angle), down=SHIFT_PX * np.sin(angle))

    return {
        "": start,
        "moved by 5 px": knocked,
        "rotated by 1 degree": lambda: start(turned_deg=TURN_DEG * rng.choice([-1, 1])),
        "dimmed by half": lambda: start(0.5),
        "covered": lambda: {"photo": sensed(np.full_like(image, rng.integers(0, 120)), rng)},
    }


def measure(
    references: dict[str, Reference], faults: dict[str, Callable[[], dict[str, np.ndarray]]], trials: int, starts: int
) -> dict[str, dict[str, int]]:
    """Fault ("" for normal starts) -> camera -> how often it was found."""
    found: dict[str, dict[str, int]] = {}
    for fault, show in faults.items():
        count = found[fault] = dict.fromkeys(references, 0)
        for _ in range(trials if fault else starts):
            for name, image in show().items():
                finding = judge(references, name, image)
                hit = not finding.good and any(word in finding.says for word in NAMED.get(fault, ("",)))
                count[name] += hit
                if hit != bool(fault):
                    print(f"{fault or 'normal start'}, camera {name}: {finding.says}", file=sys.stderr, flush=True)
    return found


def add(report: Report, what: str, found: dict[str, dict[str, int]], trials: int) -> bool:
    """Whether all is as it shall be."""
    for fault, counts in found.items():
        for name, count in counts.items():
            title = f"{what}, {name}: {fault or 'false alarms'}"
            report.add(title, count, "", trials if fault else 0, "higher" if fault else "lower")
    return all(count == (trials if fault else 0) for fault, counts in found.items() for count in counts.values())


class Lines(logging.Handler):
    """What the check at a start logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        print(self.lines[-1], file=sys.stderr, flush=True)


def live(robot: str, starts: int, seed: int) -> int:
    """False alarms of so many resets of a mock arm that moved, gripper too, until each began."""
    with tempfile.TemporaryDirectory() as folder:
        given = yaml.safe_load(LIVE[robot].read_text())["env"]
        name, socket = given.pop("name"), {"socket": str(Path(folder, "mock.sock"))}
        given["arm_options"] = {**given.get("arm_options", {}), **socket}
        env: Any = envs.make(name, **given, camera_check="ignore").unwrapped
        seen, rng = Lines(), np.random.default_rng(seed)
        logging.getLogger(start_check.__name__).addHandler(seen)
        try:
            env.reset(seed=0)
            arm.go(env, {name: axis.home for name, axis in arm.axes_of(env).items()})
            env._start_check._references = References(cameras.make_references(env, env._cameras))
            for number in range(starts):
                way = 0.6 * rng.uniform(-1, 1, env.action_space.shape)
                for step in range(MOVED):
                    way[-1] = 1.0 if (number + step // 5) % 2 else -1.0  # the gripper: closes and opens
                    env.step(way)
                env._start_check.due = True
                env.reset(seed=number)
        finally:
            env.close()
        return len(seen.lines)


def first_frame(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB. Raises UserError."""
    image = cv2.imread(str(path))
    if image is not None:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    import av

    try:
        with av.open(str(path)) as film:
            frame: Any = next(film.decode(video=0))
            return np.asarray(frame.to_ndarray(format="rgb24"))
    except (OSError, ValueError, StopIteration) as error:
        raise UserError(f"{path}: neither a picture nor a film: {error}") from None


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--sizes", type=int, nargs="*", default=[480, 128], help="pixels a side")
    made.add_argument("--trials", type=int, default=20, help="of each fault, for each camera")
    made.add_argument("--starts", type=int, default=100, help="without a fault")
    made.add_argument("--photos", type=Path, nargs="*", default=[])
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--live", nargs="+", choices=sorted(LIVE), default=[], metavar="ROBOT", help=" or ".join(LIVE))
    flags = made.parse_args()
    report, good = Report("camera guard"), True
    for robot in flags.live:
        report.add(
            f"{robot}, {flags.starts} resets: false alarms", alarms := live(robot, flags.starts, flags.seed), "", 0
        )
        good &= not alarms
    if flags.live:
        report.finish(flags.json)
        return 0 if good else 1
    for size in flags.sizes:
        desk = Desk(size, flags.seed)
        found = measure(desk.references(), desk_faults(desk), flags.trials, flags.starts)
        good &= add(report, f"{size} px", found, flags.trials)
        desk.env.close()
    for path in flags.photos:
        image, rng = first_frame(path), np.random.default_rng(flags.seed)
        reference = Reference(sensed(image, rng), view_change.corners(image))
        found = measure({"photo": reference}, photo_faults(image, rng), flags.trials, flags.starts)
        good &= add(report, path.stem, found, flags.trials)
    report.finish(flags.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
