"""An SO-101 on a desk as hardware: MuJoCo moves it, six emulated servos on a bus are all that a driver meets.

The bus is a pseudo-terminal beside the socket (mock-so101.port), which LeRobot's driver or ours opens as its serial
port. Beside it is a calibration as `lerobot-calibrate` writes it (mock-so101.json): zero degrees are the middle of each
joint, the gripper goes from 0, closed, to 100.
"""

from __future__ import annotations

import json
import time

import numpy as np

from envs.real.bus.bus import Bus
from envs.real.bus.protocol import FEETECH
from envs.real.bus.servo import DEGREES, TICKS, Servo
from envs.real.mock_arm import SO101Options, calibration_of, port_of
from envs.real.mock_hardware import Hardware
from envs.real.so101_model import JOINTS
from envs.real.so101_scene import Desk
from envs.rendering import Cameras, choose_backend

WORLD_HZ = 100.0
LONGEST_S = 0.1  # of one tick: after a longer stall of the machine the world has stood still
MIDDLE = 180.0  # a servo's degrees where its joint has none
RANGE = ("range_min", "range_max")
OVERLOADED = 3  # the servo that the fault `fault` overloads


class JointServo(Servo):
    """A servo whose joint MuJoCo moves. share: of its torque, that it gives, -1 to 1."""

    share = 0.0

    def advance(self, elapsed_s: float) -> None:
        self._protect(self.share, elapsed_s)
        self.report(self.share, elapsed_s)

    @property
    def most(self) -> float:
        """Share of its torque that it may give."""
        if not self.torque or self.overheated:
            return 0.0
        return self.get("overload_share") / 100 if self.overloaded else 1.0


class SO101(Hardware):
    """Axes and units of envs.real.so101_model."""

    tick_hz = WORLD_HZ
    options: SO101Options

    def __init__(self, options: SO101Options) -> None:
        super().__init__(options)
        choose_backend()
        self._desk = Desk()
        self._cameras = Cameras(self._desk.model, options.cameras, options.size)
        self.bus = Bus(FEETECH, len(JOINTS), in_time=True, servo=JointServo, port=port_of(options.socket))
        self._servos = [servo for servo in self.bus.servos.values() if isinstance(servo, JointServo)]
        self.bus.faults.lost, self.bus.faults.late_s = options.lost, options.late_s
        self._report()
        for servo in self._servos:  # a session before has left it with torque, where it is
            servo.power_lost()
            servo.set("torque", 1)
        self._calibrate()
        self._advanced_s, self._unplugged, self._overloads = time.monotonic(), False, False

    def _calibrate(self) -> None:
        """The servos' limits, and the file of them, as lerobot-calibrate leaves them."""
        units, found = self._desk.units, {}
        for servo, joint, low, high in zip(self._servos, JOINTS, units.low, units.high):
            ends = [round((MIDDLE + np.rad2deg(end)) / DEGREES) for end in (low, high)]
            if joint == "wrist_roll":  # LeRobot lets it turn all the way
                ends = [0, TICKS - 1]
            servo.set("low", ends[0])
            servo.set("high", ends[1])
            found[joint] = {"id": servo.number, "drive_mode": 0, "homing_offset": 0} | dict(zip(RANGE, ends))
        calibration_of(self.options.socket).write_text(json.dumps(found))

    def advance(self) -> np.ndarray:
        now_s = time.monotonic()
        elapsed_s, self._advanced_s = min(now_s - self._advanced_s, LONGEST_S), now_s
        self._break()
        goals = np.deg2rad([servo.get("goal") * DEGREES - MIDDLE for servo in self._servos])
        powered = self.bus.faults.power and not self.broken("stall")
        most = np.array([servo.most if powered else 0.0 for servo in self._servos])
        self._desk.advance(goals, most, elapsed_s)
        self._report()
        return self._desk.units.of(goals)

    def _report(self) -> None:
        """What the servos and a person see of the desk."""
        desk = self._desk
        for servo, degrees, load in zip(self._servos, np.rad2deg(desk.radians), desk.load, strict=True):
            servo.position, servo.share = float(degrees + MIDDLE), float(load)
        self.measured, self.thing, self.success = desk.units.of(desk.radians), desk.cube, desk.lifted

    def _break(self) -> None:
        self.bus.faults.late = 1000.0 if self.broken("late") else 0.0
        if self.broken("fault") or self._overloads:  # and when that is over
            self._overloads = self.bus.servos[OVERLOADED].overloaded = self.broken("fault")
        if self.broken("disconnect") != self._unplugged:
            self._unplugged = not self._unplugged
            (self.bus.unplug if self._unplugged else self.bus.plug)()

    def rearrange(self, seed: int) -> None:
        self._desk.place(seed)

    def pictures(self) -> dict[str, np.ndarray]:
        return self._cameras.images(self._desk.data)

    def close(self) -> None:
        self.bus.__exit__()
        calibration_of(self.options.socket).unlink(missing_ok=True)
        self._cameras.close()
        super().close()
