"""The arm's own process: driver, safety filter and watchdog. It outlives whoever commands it, and holds the arm then.

`ArmProcess` is the other end, in the robot server. Between them is a socket pair; a message is a tuple, pickled by
multiprocessing.connection (the two are one program). Asked is always by the robot server, which waits for the answer:

  command wish sent_s   -> begun, target, State   through the filter, to the driver
  state                 -> State
  hold                  -> State             the arm stands still, until the next command
  scene seed            -> State             for arms that can rearrange the scene (reset_scene)
  clear                 -> State             a person has looked: go on after an error
  close                 -> nothing           hold, disconnect, end

or the answer is an Exception. Each question has a number, which its answer repeats; nothing is asked twice. When the
robot server has gone the arm is held at once, for `release_s`, or until the next robot server takes it over; then it is
disconnected.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from envs.arm import ArmError, State, make_arm
from envs.keeper import BRAKES, Keeper, Setup

CONNECT_S = 60.0  # an arm may take so long to get ready


def serve(connection: Connection, keeper: Keeper) -> None:
    """Until "close" or the robot server's end."""
    deeds: dict[str, Callable[..., Any]] = {
        "command": keeper.command,
        "state": keeper.state,
        "scene": keeper.scene,
        "hold": keeper.hold,
        "clear": keeper.clear,
    }
    while True:
        try:
            if connection.poll(keeper.wait_s):
                number, word, *arguments = connection.recv()
                if word == "close":
                    return
                try:
                    answer = deeds[word](*arguments)
                except (*BRAKES, ValueError) as error:
                    answer = error
                connection.send((number, answer))
        except (EOFError, ConnectionError):
            with contextlib.suppress(ArmError):
                keeper.hold()
            alone(keeper)
            return
        keeper.turn()


def alone(keeper: Keeper) -> None:
    """Hold for `release_s`, or until SIGTERM, or until the next robot server takes the arm over."""
    release_s, left = keeper.setup.release_s, _note(keeper.setup)
    left.write_text(str(os.getpid()))
    print(
        f"the robot server has gone: the arm is held for {release_s:g} s, then let go (kill {os.getpid()}: now)",
        file=sys.stderr,
        flush=True,
    )
    end_s = time.monotonic() + release_s
    try:
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(0.2, left_s))
    finally:
        left.unlink(missing_ok=True)


def take_over(setup: Setup, timeout_s: float = 5.0) -> None:
    """From a process that was left alone with this arm, and still holds it."""
    note = _note(setup)
    try:
        holder = int(note.read_text())
        os.kill(holder, signal.SIGTERM)
    except (OSError, ValueError):
        return
    end_s = time.monotonic() + timeout_s
    while note.exists() and time.monotonic() < end_s:
        time.sleep(0.02)
    time.sleep(0.2)  # it disconnects now


def _note(setup: Setup) -> Path:
    """Where a process says that it holds the arm alone."""
    which = zlib.crc32(json.dumps([setup.kind, setup.options], sort_keys=True, default=str).encode())
    return Path(tempfile.gettempdir(), f"arm-{os.getuid()}-{which:08x}.held")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the robot server's to answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connection = Connection(int(sys.argv[1]))
    setup: Setup = connection.recv()
    try:
        take_over(setup)
        arm = make_arm(setup.kind, setup.options)
        keeper = Keeper(setup, arm)
    except ValueError as error:
        connection.send((0, error))
        return
    try:
        try:
            connection.send((0, (arm.axes, keeper.connect())))
        except BRAKES as error:
            connection.send((0, ArmError(" ".join(str(error).split()))))
            return
        serve(connection, keeper)
    finally:
        with contextlib.suppress(*BRAKES):
            arm.hold()
        with contextlib.suppress(*BRAKES):
            arm.disconnect()


class ArmProcess:
    """Starts the process and connects the arm. Raises ValueError for bad options, ArmError when it is not there."""

    def __init__(self, setup: Setup, timeout_s: float = 1.0) -> None:
        self._timeout_s, self._number = timeout_s, 0
        ours, theirs = socket.socketpair()
        words = [sys.executable, "-m", "envs.arm_process", str(theirs.fileno())]
        # A session of its own: what kills the robot server's group must not kill what holds the arm.
        self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(setup)
        try:
            self.axes, self.first = self._answer(CONNECT_S)
        except BaseException:
            self.close()
            raise

    def command(self, wish: np.ndarray) -> tuple[np.ndarray, np.ndarray, State]:
        """(the target before, the one that left the filter now, the state before). Raises ArmError."""
        return self._ask("command", wish, time.monotonic())

    def state(self) -> State:
        """Raises ArmError."""
        return self._ask("state")

    def hold(self) -> State:
        """Raises ArmError, and the arm is held then too."""
        return self._ask("hold")

    def scene(self, seed: int) -> State:
        """Raises ArmError."""
        return self._ask("scene", seed)

    def clear(self) -> State:
        """A person has looked. Raises ArmError when the trouble is still there."""
        return self._ask("clear", timeout_s=CONNECT_S)

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._connection.send((0, "close"))
        self._connection.close()  # the arm is held now, whatever happens
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.terminate()

    def _ask(self, *words: Any, timeout_s: float | None = None) -> Any:
        self._number += 1
        with contextlib.suppress(OSError):  # _answer says it
            self._connection.send((self._number, *words))
        return self._answer(timeout_s or self._timeout_s)

    def _answer(self, timeout_s: float) -> Any:
        number, end_s = -1, time.monotonic() + timeout_s
        try:
            while number != self._number:  # others came too late
                if not self._connection.poll(max(0.0, end_s - time.monotonic())):
                    raise ArmError(f"the arm has not answered for {timeout_s:g} s; its last command is not repeated")
                number, answer = self._connection.recv()
        except (OSError, EOFError):
            raise ArmError("the arm's process has ended; what it said last is above") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


if __name__ == "__main__":
    main()
