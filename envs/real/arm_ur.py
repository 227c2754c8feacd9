"""A Universal Robots arm (e-Series, PolyScope 5) through ur_rtde: `arm: ur`, extra [ur].

Axes: the six joints, in degrees; with `gripper: robotiq` also the gripper, 0 (open) to 255 (closed). Targets go to the
controller by servoJ: its control script keeps going to the newest one, and stands there when no other comes. The
controller must be in remote control, its arm powered, its brakes released: that is done at the pendant, never from
here.

Protective, emergency and safeguard stops, a stopped program and a lost connection are faults. The person's Release
after a protective stop that happened while the arm was driven from here unlocks it; one that was there before is the
pendant's to unlock.
"""

from __future__ import annotations

import contextlib
import socket
import time

import numpy as np

from envs.real.arm import ArmError, State
from envs.real.controller_probe import ANSWER_S, probe
from envs.real.robotiq import Robotiq
from envs.real.ur_sdk import LOOK_S, Measured, UrSdk

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
RTDE_PORT, VERSION_2 = 30004, b"\x00\x05V\x00\x02"  # a request for version 2 of RTDE's protocol
DASHBOARD_PORT = 29999
PROTECTIVE = 1 << 2  # of safety_status_bits
STOPS = {  # the graver first
    1 << 9: "safety fault: restart the controller",
    1 << 8: "safety violation: restart its safety system at the pendant",
    1 << 7 | 1 << 6 | 1 << 5: "emergency stop: release the button, then power the arm on at the pendant",
    PROTECTIVE: "protective stop: find its cause, then unlock it",
    1 << 4: "safeguard stop: reset the safeguard input",
    1 << 3: "recovery mode: move the joints back into the safety limits at the pendant",
}
RUNNING, PLAYING = 7, 2  # robot_mode, runtime_state
UNLOCK_S = 3.0


class URArm:
    """host: the controller's address. hz: states a second, 125 or 500. gripper: "" or robotiq. Raises ValueError."""

    def __init__(self, host: str = "", hz: float = 125.0, gripper: str = "") -> None:
        if not host:
            raise ValueError("ur: arm_options: host is missing: the controller's address, such as 192.168.1.10")
        if not 100 <= hz <= 500:
            raise ValueError(f"ur: arm_options: hz {hz:g} is not within 100 to 500")
        if gripper not in ("", "robotiq"):
            raise ValueError(f"ur: arm_options: gripper {gripper!r} is not robotiq")
        self.axes = JOINTS + ("gripper",) * bool(gripper)
        self._host, self._hz = host, float(hz)
        self._gripper: Robotiq | None = None
        self._sdk: UrSdk | None = None
        self._driven = False  # from here, so that what stops it now is known to the person who releases it

    def connect(self) -> None:
        self._close()
        probe("ur", self._host, RTDE_PORT, VERSION_2)
        self._sdk = UrSdk(self._host, self._hz)
        measured = self._sdk.news()
        if self._driven and measured.safety_status_bits & PROTECTIVE:
            measured = self._unlock(self._sdk)
        if stop := stopped(measured):
            raise ArmError(f"ur: {stop}")
        self._gripper = Robotiq(self._host) if len(self.axes) > len(JOINTS) else None
        self._sdk.control()
        self._driven = True

    def state(self) -> State:
        measured = self._connected().news()
        if stop := stopped(measured, of_program=True):
            raise ArmError(f"ur: {stop}")
        joints = np.degrees(measured.q)
        return State(np.append(joints, self._gripper.position()) if self._gripper else joints, time.monotonic())

    def command(self, target: np.ndarray) -> np.ndarray:
        if not self._connected().servo([float(angle) for angle in np.radians(target[: len(JOINTS)])]):
            self.state()  # raises why
            raise ArmError("ur: the controller's program refused the target")
        if self._gripper:
            self._gripper.move(target[-1])
        return target

    def hold(self) -> None:
        if self._gripper:
            self._gripper.stop()
        sdk = self._connected()
        if not sdk.stop() and not stopped(sdk.news(), of_program=True):  # then it stands by itself
            raise TimeoutError("ur: servoStop was not answered")

    def disconnect(self) -> None:
        if self._sdk:
            with contextlib.suppress(ArmError, TimeoutError):
                self._sdk.stop()
            with contextlib.suppress(OSError):
                dashboard(self._host, "stop")  # the control script
        self._close()

    def _close(self) -> None:
        for part in (self._gripper, self._sdk):
            if part:
                part.close()
        self._gripper = self._sdk = None

    def _connected(self) -> UrSdk:
        if self._sdk is None:
            raise ArmError(f"ur: no connection to {self._host}")
        return self._sdk

    def _unlock(self, sdk: UrSdk) -> Measured:
        """A person has looked. Raises ArmError in the first 5 s after the stop, and when it stays."""
        try:
            answer = dashboard(self._host, "unlock protective stop")
        except OSError as error:
            answer = f"its dashboard does not answer ({error})"
        if answer != "Protective stop releasing":
            raise ArmError(f"ur: protective stop: {answer}")
        end_s = time.monotonic() + UNLOCK_S
        while (measured := sdk.news()).safety_status_bits & PROTECTIVE and time.monotonic() < end_s:
            time.sleep(LOOK_S)
        return measured


def stopped(measured: Measured, of_program: bool = False) -> str:
    """Why the arm cannot move; empty when it can."""
    for mask, text in STOPS.items():
        if measured.safety_status_bits & mask:
            return text
    if measured.robot_mode != RUNNING:
        mode = measured.robot_mode
        return f"its motors are off (robot mode {mode}): power the arm on and release its brakes at the pendant"
    if of_program and measured.runtime_state != PLAYING:
        return "its program was stopped, at the pendant or by an error in its log: look there"
    return ""


def dashboard(host: str, command: str) -> str:
    """The dashboard server's answer. Raises OSError."""
    with socket.create_connection((host, DASHBOARD_PORT), ANSWER_S) as line, line.makefile("rw", newline="\n") as text:
        text.readline()  # its greeting
        text.write(command + "\n")
        text.flush()
        return text.readline().strip()
