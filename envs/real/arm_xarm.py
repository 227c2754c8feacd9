"""A UFACTORY xArm 5, 6 or 7 through xarm-python-sdk: `arm: xarm`, extra [xarm].

Axes: the joints, in degrees. Targets go to the controller in servo mode (mode 1), which follows each at once: the
safety filter and `setpoint_hz` make the path. Positions are measured ones with firmware 1.9.110 or later, otherwise
commanded ones.

An error of the controller (C24, C31, C60, ...), a stop, and a lost connection are faults; an answer that does not come
within REPLY_S is a lost reply. The person's Release after an error that happened while the arm was driven from here
clears it; one that was there before has to be cleared in UFACTORY Studio.
"""

from __future__ import annotations

import contextlib
import importlib
import struct
import time
from typing import Any

import numpy as np

from envs.real.arm import ArmError, State, described
from envs.real.controller_probe import probe

CONTROL_PORT, GET_VERSION = 502, struct.pack(">HHHB", 1, 2, 1, 1)
SERVO_MODE, MOVE, STOP = 1, 0, 4
STOPPED = (4, 5)  # states
REPLY_S = 0.03  # a wired controller answers in a few milliseconds
READY_S = 2.0
NO_ERROR, HAS_ERROR, HAS_WARNING, TIMED_OUT, NOT_READY, OUT_OF_RANGE = 0, 1, 2, 3, 9, -8  # the SDK's codes
GONE = (-1, 8)
REMEDIES = {  # by the controller's error
    1: "release the emergency stop button",
    2: "close the emergency stop input of the control box",
    3: "release the emergency stop of the three-state switch",
    22: "move the arm away from itself by hand, in manual mode",
    23: "move the joint back into its range in UFACTORY Studio",
    24: "lower `velocity` and `step` of the axes",
    31: "look what it touched, then check payload and collision sensitivity",
    35: "move the arm back into the safety boundary in manual mode",
    60: "the hand is too fast: lower `speed` of the axes, or stretch the arm less",
}


class XArm:
    """host: the controller's address. joints: 5, 6 or 7. Raises ValueError."""

    def __init__(self, host: str = "", joints: int = 6) -> None:
        if not host:
            raise ValueError("xarm: arm_options: host is missing: the controller's address, such as 192.168.1.200")
        if joints not in (5, 6, 7):
            raise ValueError(f"xarm: arm_options: joints {joints!r} is not 5, 6 or 7")
        self._host, self._joints = host, joints
        self.axes = tuple(f"joint{n}" for n in range(1, joints + 1))
        self._api: Any = None
        self._driven = False  # from here, so that what stops it now is known to the person who releases it
        self._unanswered = False  # the last target

    def connect(self) -> None:
        sdk = load()
        probe("xarm", self._host, CONTROL_PORT, GET_VERSION)
        try:
            # forbid_uds: by default the SDK talks to whoever made a certain file in /tmp
            self._api = sdk.XArmAPI(
                self._host, do_not_open=True, report_type="normal", forbid_uds=True, check_is_pause=False
            )
            self._api.connect()
        except Exception as error:  # it has no kinds of errors
            why = f"its SDK cannot connect ({described(error)})"
            raise ArmError(f"xarm: {self._host}: {why}; is it on, and is no emergency stop pressed?") from None
        if self._api.axis != self._joints:
            raise ArmError(
                f"xarm: {self._host} has {self._api.axis} joints: write arm_options: joints: {self._api.axis}"
            )
        if self._error():
            if not self._driven:
                raise ArmError(f"{self._about(self._error())}, and clear it in UFACTORY Studio")
            self._api.clean_error()
        self._api.motion_enable(True)
        self._api.set_mode(SERVO_MODE)
        self._api.set_state(MOVE)
        self._wait_until_ready()
        self._api.set_timeout(REPLY_S)
        self._driven, self._unanswered = True, False

    def state(self) -> State:
        angles = self._angles()
        if self._api.has_err_warn and (error := self._error()):
            raise ArmError(self._about(error))
        return State(angles, time.monotonic())

    def command(self, target: np.ndarray) -> np.ndarray:
        if self._unanswered:  # otherwise targets pile up on a dead link, and all arrive when it is alive again
            self._angles()
        self._answered(self._servo(target))
        return target

    def hold(self) -> None:
        code = self._servo(self._angles())
        if code not in (HAS_ERROR, NOT_READY):  # then the controller has stopped it
            self._answered(code)

    def disconnect(self) -> None:
        api, self._api = self._api, None
        if api:
            for call in (lambda: api.set_state(STOP), api.disconnect):
                with contextlib.suppress(Exception):
                    call()

    def _angles(self) -> np.ndarray:
        """float64 (n,), degrees. Raises TimeoutError, ArmError."""
        if self._api is None:
            raise ArmError(f"xarm: no connection to {self._host}")
        code, angles = self._api.get_servo_angle(is_radian=False, is_real=True)
        self._answered(code)
        return np.array(angles[: self._joints], np.float64)

    def _servo(self, target: np.ndarray) -> int:
        code = int(self._api.set_servo_angle_j([float(angle) for angle in target], is_radian=False))
        self._unanswered = code == TIMED_OUT
        return code

    def _answered(self, code: int) -> None:
        """Raises what the SDK's `code` means, when that is no success."""
        if code in (NO_ERROR, HAS_WARNING):
            return
        if code in GONE or not self._api.connected:
            raise ArmError(f"xarm: no connection to {self._host}: is the controller on, and its cable in?")
        if code == TIMED_OUT:
            raise TimeoutError(f"xarm: no answer from {self._host} for {1000 * REPLY_S:g} ms")
        if code == OUT_OF_RANGE:
            raise ArmError(
                "xarm: a joint's target is outside its range in the SDK: narrow `low` and `high` of the axes"
            )
        if error := self._error():
            raise ArmError(self._about(error))
        if code == NOT_READY:
            raise ArmError("xarm: it was stopped, in UFACTORY Studio or by another program")
        raise ArmError(f"xarm: the controller refused the target (the SDK's code {code})")

    def _error(self) -> int:
        """The controller's error, 0 for none. Raises TimeoutError."""
        code, (error, _) = self._api.get_err_warn_code()
        if code == TIMED_OUT:
            raise TimeoutError(f"xarm: no answer from {self._host}")
        return int(error)

    def _about(self, error: int) -> str:
        title = importlib.import_module("xarm.core.config.x_code").ControllerError(error).title["en"].rstrip(".")
        return f"xarm: C{error}, {title}: {REMEDIES.get(error, 'see its manual')}"

    def _wait_until_ready(self) -> None:
        """Raises ArmError when the controller does not get ready to move."""
        end_s = time.monotonic() + READY_S
        while self._api.mode != SERVO_MODE or self._api.get_state()[1] in STOPPED:
            if error := self._error():
                raise ArmError(self._about(error))
            if time.monotonic() > end_s:
                raise ArmError("xarm: it does not get ready to move: enable it in UFACTORY Studio")
            time.sleep(0.02)


def load() -> Any:
    """The SDK. Raises ArmError without it."""
    try:
        return importlib.import_module("xarm.wrapper")
    except ImportError as error:
        raise ArmError(f"xarm: its SDK cannot be loaded ({error}): pip install xarm-python-sdk") from None
