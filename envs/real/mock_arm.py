"""The mock arms' options, the Panda's driver, and the source of their cameras: what real ones have instead of sockets.

`mock` is robosuite's Panda. `mock:so101` is an SO-101 behind an emulated servo bus; its driver is envs.real.so101_arm.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.options import build, nearest, option
from envs.base import MAX_IMAGE_SIZE
from envs.real.arm import Arm, ArmError, State
from envs.runtime import runtime_folder
from envs.start import module_command

START_S = 60.0
ANSWER_S = 2.0
AXES = ("x", "y", "z", "gripper")


PANDA, SO101 = ROBOTS = ("panda", "so101")


@dataclass
class WorldOptions:
    cameras: list[str] = option([], "names")
    size: int = option(128, "pixels a side of a camera's frame", low=8, high=MAX_IMAGE_SIZE)
    fps: float = option(20.0, "frames a second of each camera", above=0)
    camera_delay_s: float = option(0.03, "from a picture to its frame", low=0)
    late_s: float = option(0.4, "of the fault 'late'", low=0)
    socket: str = option("", "Unix socket; empty: mock-arm.sock, mock-so101.sock, in the runtime folder")


@dataclass
class MockArmOptions(WorldOptions):
    task: str = option("Lift", "of envs.sim")
    cameras: list[str] = option(["agentview", "robot0_eye_in_hand"], "of envs.sim")
    latency_s: float = option(0.02, "from a command to the motors", low=0)
    noise: float = option(0.0005, "standard deviation of a measured position, m", low=0)
    drop_rate: float = option(0.0, "share of commands that get lost", low=0, high=1)

    def __post_init__(self) -> None:
        self.socket = self.socket or default_socket()


@dataclass
class SO101Options(WorldOptions):
    cameras: list[str] = option(["front", "wrist"], "names")
    driver: Literal["bus", "lerobot"] = option("bus", "bus: ours; lerobot: LeRobot's so101_follower, where that is")
    lost: float = option(0.0, "packets of its bus that get lost, of 1000", low=0, high=1000)
    disable_torque_on_disconnect: bool = option(False, "the arm then falls")

    def __post_init__(self) -> None:
        self.socket = self.socket or default_socket(SO101)


def default_socket(robot: str = PANDA) -> str:
    """Messages on it are pickled, so that it is where nobody else can put one. Raises OSError."""
    return str(runtime_folder() / f"mock-{'arm' if robot == PANDA else robot}.sock")


def port_of(socket: str) -> Path:
    """The serial port of the simulated SO-101 whose world is at `socket`."""
    return Path(socket).with_suffix(".port")


def calibration_of(socket: str) -> Path:
    """Its calibration."""
    return Path(socket).with_suffix(".json")


def mock_options(given: Mapping[str, Any], robot: str = PANDA) -> Any:
    """MockArmOptions or SO101Options. Raises ValueError, one line, for an unknown option or robot, or a bad value."""
    if robot not in ROBOTS:
        raise ValueError(f"arm 'mock:{robot}'{nearest(robot, ROBOTS)}: the robot is one of {', '.join(ROBOTS)}")
    kind, where = (MockArmOptions, "arm 'mock': ") if robot == PANDA else (SO101Options, f"arm 'mock:{robot}': ")
    try:
        return build(kind, given, where)
    except OSError as error:
        raise ValueError(f"{where}no place for its socket: {error}") from None


def mock_arm(robot: str = PANDA, **options: Any) -> Arm:
    """The driver of a mock arm. Raises ValueError, one line."""
    if robot == SO101:
        from envs.real.so101_arm import SO101Arm

        return SO101Arm(**options)
    mock_options(options, robot)
    return MockArm(**options)


class MockArm:
    """Options are those of mock_world; starts that if it does not run. Raises ValueError for one there is not."""

    axes: tuple[str, ...] = AXES

    def __init__(self, **options: Any) -> None:
        self._options = dataclasses.asdict(mock_options(options))
        self._line: Connection | None = None

    def connect(self) -> None:
        path, end_s = self._options["socket"], time.monotonic() + ANSWER_S
        try:
            line = Client(path, "AF_UNIX")
        except OSError:
            start_world(self._options)
            line = Client(path, "AF_UNIX")
        while (said := _asked(line, ("arm",))) != "ready":  # it may not have noticed yet that another has gone
            line.close()
            if time.monotonic() > end_s:
                raise ArmError(f"the mock arm: {said}")
            time.sleep(0.1)
            line = Client(path, "AF_UNIX")
        self._line = line

    def state(self) -> State:
        return self._ask("state")

    def command(self, target: np.ndarray) -> np.ndarray:
        self._ask("command", target)
        return target

    def hold(self) -> None:
        if self._line:
            self._ask("hold")

    def reset_scene(self, seed: int) -> None:
        """Puts the objects somewhere else, as a person would between two episodes."""
        self._ask("scene", seed)

    def disconnect(self) -> None:
        if self._line:
            self._line.close()
            self._line = None

    def _ask(self, *words: object) -> State:
        if not self._line:
            raise ArmError("the mock arm is not connected")
        try:
            self._line.send(words)
            if not self._line.poll(ANSWER_S):
                raise ArmError(f"the mock arm has not answered for {ANSWER_S:g} s")
            error, position, success, thing = self._line.recv()
        except (EOFError, OSError):
            raise ArmError("the mock arm's line is dead: is its cable in?") from None
        if error:
            raise ArmError(f"the mock arm reports {error}")
        return State(position, time.monotonic(), success=success, thing=thing)


def _asked(line: Connection, words: tuple[str, ...]) -> str:
    line.send(words)
    return str(line.recv())


def start_world(options: dict[str, Any], robot: str = PANDA) -> None:
    """Raises ArmError when it does not start."""
    words = module_command("envs.real.mock_world", "--robot", robot, "--options", json.dumps(options))
    world = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert world.stdout
    if world.stdout.readline() != "ready\n":
        raise ArmError("the mock arm does not start; its output is above")
    world.stdout.close()


class MockCamera:
    """A Source of envs.real.camera_sources: the frames of the camera `device` of the mock world at `socket`."""

    def __init__(self, device: str, socket: str, size: int) -> None:
        self._device, self._socket, self._size = device, socket, size
        self._line: Connection | None = None
        self._newest: np.ndarray | None = None

    def open(self) -> None:
        line = Client(self._socket, "AF_UNIX")
        line.send(("camera", self._device))
        if (said := line.recv()) != "ready":
            line.close()
            raise ValueError(said)
        self._line = line

    def read(self) -> np.ndarray:
        assert self._line
        if not self._line.poll(ANSWER_S):
            raise TimeoutError(f"no frame for {ANSWER_S:g} s")
        rows = np.frombuffer(self._line.recv_bytes(), np.uint8).reshape(self._size, self._size, 3)
        return rows[:, :, ::-1]  # BGR, as OpenCV's

    def newest(self) -> np.ndarray:
        """The newest of those that have come, after waiting for one at the first call."""
        if self._newest is None:
            self._newest = self.read()
        while self._line and self._line.poll(0):
            self._newest = self.read()
        return self._newest

    def close(self) -> None:
        if self._line:
            self._line.close()
            self._line = None
