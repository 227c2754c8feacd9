"""ur_rtde in a process of its own, which ends as soon as the connection to the controller is lost.

ur_rtde 1.6 may wait for minutes for an answer; a state that does not get newer is no error to it; and once it has lost
its connection its thread connects and uploads the control script again and again, which only the end of the process
stops. What was servoed to stays the controller's target meanwhile: the arm stands there.

`UrSdk` is the other end, in the arm's process. A message is a tuple; each question has a number, which its answer
repeats: news -> (q, ...), servo q -> bool, stop -> bool (None instead where the newest state is old), control -> the
line of an error, or "".
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from envs.real.arm import ArmError, described
from envs.start import module_command

VARIABLES = ["timestamp", "actual_q", "robot_mode", "safety_status_bits", "runtime_state"]
STALE_S = 0.03  # packets come every 8 ms
LOST_S = 1.0  # before ur_rtde notices, after 2.5 s, and reconnects
LOOK_S = 0.0005
WATCH_S = 0.02
SERVO_TIME_S, LOOKAHEAD_S, GAIN = 0.008, 0.1, 300.0  # of servoJ; the last two are UR's defaults
REMEDY = "pip install ur_rtde, which has wheels for Python 3.10 to 3.12 on x86_64"
NO_STATE = "check the address, and that RTDE is enabled in the controller's security settings"
NO_CONTROL = "set the pendant to remote control, and end other programs that control the arm"
START_S, ANSWER_S, STOP_S = 15.0, 0.1, 1.0


@dataclass(frozen=True)
class Measured:
    """q: rad (6,). The others as in UR's RTDE guide."""

    q: list[float]
    safety_status_bits: int
    robot_mode: int
    runtime_state: int


class Robot:
    """Raises RuntimeError of ur_rtde, and ImportError without it."""

    def __init__(self, host: str, hz: float) -> None:
        import rtde_receive

        self._host, self._hz = host, hz
        self._receive: Any = rtde_receive.RTDEReceiveInterface(host, hz, VARIABLES)
        self._control: Any = None
        self._timestamp, self._seen_s = -1.0, time.monotonic()

    def new(self) -> bool:
        """Whether another state has come since the last call."""
        timestamp = self._receive.getTimestamp()
        if timestamp == self._timestamp:
            return False
        self._timestamp, self._seen_s = timestamp, time.monotonic()
        return True

    def fresh(self) -> bool:
        return self.new() or time.monotonic() - self._seen_s <= STALE_S

    @property
    def lost(self) -> bool:
        return not self._receive.isConnected() or (not self.new() and time.monotonic() - self._seen_s > LOST_S)

    def news(self) -> tuple[list[float], int, int, int] | None:
        """The next state, as Measured has it; None when none comes within STALE_S."""
        self.new()
        end_s = time.monotonic() + STALE_S
        while not self.new():
            if time.monotonic() > end_s:
                return None
            time.sleep(LOOK_S)
        receive = self._receive
        bits, mode = receive.getSafetyStatusBits(), receive.getRobotMode()
        return receive.getActualQ(), bits, mode, receive.getRuntimeState()

    def control(self) -> str:
        """Upload the control script. Returns the line of an error, or ""."""
        import rtde_control

        try:
            self._control = rtde_control.RTDEControlInterface(self._host, self._hz)
        except Exception as error:
            return f"its control script cannot be uploaded ({described(error)}); {NO_CONTROL}"
        return ""

    def servo(self, q: list[float]) -> bool | None:
        return bool(self._control.servoJ(q, 0.0, 0.0, SERVO_TIME_S, LOOKAHEAD_S, GAIN)) if self.fresh() else None

    def stop(self) -> bool | None:
        return bool(self._control and self._control.servoStop()) if self.fresh() else None


def serve(connection: Connection, robot: Robot) -> None:
    """Until the connection to the controller is lost, or the arm's process has gone: then the arm is stopped."""
    while not robot.lost:
        try:
            if not connection.poll(WATCH_S):
                continue
            number, word, *given = connection.recv()
            connection.send((number, getattr(robot, word)(*given)))
        except (EOFError, ConnectionError):
            robot.stop()
            return


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    try:
        robot = Robot(*connection.recv())
    except Exception as error:
        remedy = f": {REMEDY}" if isinstance(error, ImportError) else f"; {NO_STATE}"
        connection.send((0, f"ur_rtde cannot connect ({described(error)}){remedy}"))
        return
    connection.send((0, ""))
    try:
        serve(connection, robot)
    finally:
        os._exit(0)  # without ur_rtde's own end, which may not come


class UrSdk:
    """Raises ArmError when the process or the controller does not answer, or ur_rtde is missing."""

    def __init__(self, host: str, hz: float) -> None:
        self._host, self._number = host, 0
        ours, theirs = socket.socketpair()
        words = module_command("envs.real.ur_sdk", theirs.fileno())
        self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send((host, hz))
        self._expect(0, START_S)

    def control(self) -> None:
        self._number += 1
        self._connection.send((self._number, "control"))
        self._expect(self._number, START_S)

    def news(self) -> Measured:
        """Raises TimeoutError for an old state."""
        return Measured(*self._ask("news", ANSWER_S))

    def servo(self, q: list[float]) -> bool:
        """Whether the controller's program takes it. Raises TimeoutError, not sent, when the newest state is old."""
        return bool(self._ask("servo", ANSWER_S, q))

    def stop(self) -> bool:
        """As `servo`."""
        return bool(self._ask("stop", STOP_S))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _expect(self, number: int, timeout_s: float) -> None:
        """No error's line as the answer."""
        try:
            line = self._answer(number, timeout_s)
        except TimeoutError:
            line = f"no answer for {timeout_s:g} s"
        except OSError:
            line = "ur_rtde's process has ended; its last output is above"
        if line:
            self.close()
            raise ArmError(f"ur: {self._host}: {line}")

    def _ask(self, word: str, timeout_s: float, *given: object) -> Any:
        self._number += 1
        try:
            self._connection.send((self._number, word, *given))
            answer = self._answer(self._number, timeout_s)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise ArmError(f"ur: no connection to {self._host}: is the controller on, and its cable in?") from None
        if answer is None:
            raise TimeoutError(f"ur: no state from {self._host} for {1000 * STALE_S:g} ms")
        return answer

    def _answer(self, number: int, timeout_s: float) -> Any:
        end_s = time.monotonic() + timeout_s
        while self._connection.poll(max(0.0, end_s - time.monotonic())):
            try:
                answered, answer = self._connection.recv()
            except EOFError:
                raise ConnectionResetError from None
            if answered == number:  # others came too late
                return answer
        raise TimeoutError(f"ur: no answer from {self._host} for {timeout_s:g} s")


if __name__ == "__main__":
    main()
