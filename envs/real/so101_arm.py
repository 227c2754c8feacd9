"""The driver of the simulated SO-101: a serial port with servos, as of a real one; ours, or LeRobot's so101_follower.

Beside the port is a line to the desk, for what a person does and sees: the next scene, and whether the cube is lifted.
"""

from __future__ import annotations

import dataclasses
import json
import time
from multiprocessing.connection import Client as connect_to
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.arm import Arm, ArmError, State
from envs.real.bus.client import TICKS_PER_DEGREE, BusArm
from envs.real.mock_arm import ANSWER_S, SO101, calibration_of, mock_options, port_of, start_world
from envs.real.so101_model import JOINTS, description


class SO101Bus(BusArm):
    """Our own client of the bus, in LeRobot's units: degrees, and the gripper from 0 to 100. calibration: its file."""

    axes: tuple[str, ...] = JOINTS

    def __init__(self, port: str, calibration: Path, torque_off: bool) -> None:
        super().__init__(port, torque_off=torque_off)
        self._calibration = calibration
        self._zero, self._scale = np.zeros(len(JOINTS)), np.ones(len(JOINTS))

    def connect(self) -> None:
        try:
            found = json.loads(self._calibration.read_text())
            ends = np.array([[found[joint]["range_min"], found[joint]["range_max"]] for joint in JOINTS], np.float64)
        except (OSError, ValueError, KeyError) as error:
            raise ArmError(f"{self._calibration}: no calibration of an SO-101: {error!r}") from None
        self._zero = np.append(ends[:5].mean(axis=1), ends[5, 0]) / TICKS_PER_DEGREE
        self._scale = np.append(np.ones(5), 100 * TICKS_PER_DEGREE / (ends[5, 1] - ends[5, 0]))
        super().connect()

    def state(self) -> State:
        seen = super().state()
        return dataclasses.replace(seen, position=(seen.position - self._zero) * self._scale)

    def command(self, target: np.ndarray) -> np.ndarray:
        super().command(np.asarray(target) / self._scale + self._zero)
        return target


class SO101Arm:
    """Options are SO101Options. Raises ValueError for one there is not."""

    axes: tuple[str, ...] = JOINTS
    sags = True

    def __init__(self, **options: Any) -> None:
        self._options = mock_options(options, SO101)
        socket, torque_off = self._options.socket, self._options.disable_torque_on_disconnect
        self._port, self._calibration = port_of(socket), calibration_of(socket)
        self._line: Connection | None = None
        self._success, self._thing = False, np.zeros(3)
        self._arm: Arm = SO101Bus(str(self._port), self._calibration, torque_off)
        if self._options.driver == "lerobot":
            self._arm = self._lerobot()
        else:
            description()  # the world will need it

    def _lerobot(self) -> Arm:
        from envs.real.arm_lerobot import LeRobotArm

        return LeRobotArm(
            "so101_follower",
            port=str(self._port),
            id=self._calibration.stem,
            calibration_dir=str(self._calibration.parent),
            use_degrees=True,
            disable_torque_on_disconnect=self._options.disable_torque_on_disconnect,
        )

    def connect(self) -> None:
        if self._line is None:
            try:
                self._line = connect_to(self._options.socket, "AF_UNIX")
            except OSError:
                start_world(dataclasses.asdict(self._options), SO101)
                self._line = connect_to(self._options.socket, "AF_UNIX")
            self._line.send(("scene",))
        self._arm.connect()

    def state(self) -> State:
        self._ask("look")
        return dataclasses.replace(self._arm.state(), success=self._success, thing=self._thing)

    def command(self, target: np.ndarray) -> np.ndarray:
        return self._arm.command(target)

    def hold(self) -> None:
        self._arm.hold()

    @property
    def lost(self) -> int:
        """Replies that its driver has gone on without."""
        return int(getattr(self._arm, "lost", 0))

    def reset_scene(self, seed: int) -> None:
        """Puts the cube somewhere else, as a person would between two episodes."""
        self._ask("scene", seed)
        end_s = time.monotonic() + ANSWER_S
        while self._success and time.monotonic() < end_s:  # that of the scene before
            time.sleep(0.01)
            self._ask("look")

    def disconnect(self) -> None:
        if self._line:
            self._line.close()
            self._line = None
        self._arm.disconnect()

    def _ask(self, *words: object) -> None:
        if self._line is None:
            raise ArmError("the mock SO-101 is not connected")
        try:
            self._line.send(words)
            if not self._line.poll(ANSWER_S):
                raise ArmError(f"the mock SO-101's world has not answered for {ANSWER_S:g} s")
            self._success, self._thing = self._line.recv()
        except (EOFError, OSError):
            raise ArmError("the mock SO-101's world has ended") from None
