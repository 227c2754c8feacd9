"""The arm's own process: driver, safety filter and watchdog. It outlives whoever commands it, and holds the arm then.

`ArmProcess` is the other end, in the robot server. Between them is a socket pair; a message is a tuple, pickled by
multiprocessing.connection (the two are one program). Asked is always by the robot server, which waits for the answer:

  command requested sent_s -> begun, target, State   through the filter, to the driver
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
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from envs.real.arm import ArmError, State, make_arm
from envs.real.guard import Guard, Setup
from envs.real.realtime import real_time
from envs.runtime import runtime_folder
from envs.start import module_command

NOTICE_S = 1.0  # within which a process notices that its robot server has gone
LET_GO_S = 10.0  # within which it lets the arm go when it is told to
CONNECT_S = 60.0  # an arm may take so long to get ready


def serve(connection: Connection, guard: Guard, claim: Claim) -> None:
    """Until "close" or the robot server's end."""
    handlers: dict[str, Callable[..., Any]] = {
        "command": guard.command,
        "state": guard.state,
        "scene": guard.scene,
        "hold": guard.hold,
        "clear": guard.clear,
    }
    while True:
        try:
            if connection.poll(guard.wait_s):
                number, word, *arguments = connection.recv()
                if word == "close":
                    return
                try:
                    answer = handlers[word](*arguments)
                except Exception as error:
                    answer = error
                connection.send((number, answer))
        except (EOFError, ConnectionError):
            with contextlib.suppress(ArmError):
                guard.hold()
            alone(guard, claim)
            return
        guard.tick()


def alone(guard: Guard, claim: Claim) -> None:
    """Hold for `release_s`, or until SIGTERM, or until the next robot server takes the arm over."""
    release_s = guard.setup.release_s
    claim.say({"pid": os.getpid(), "alone": True})
    print(
        f"the robot server has exited: the arm is held for {release_s:g} s, then released (kill {os.getpid()}: now)",
        file=sys.stderr,
        flush=True,
    )
    end_s = time.monotonic() + release_s
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, guard.wait_s))
        guard.tick()  # a hold that was not answered


class Claim:
    """That this process, and no other of this user, drives the arm of `setup`: a locked file, let go when it ends.

    The file is in the runtime folder, which nobody else can enter. Takes the arm over from a process that was left
    alone with it. Raises ValueError when another one drives it, or when the file cannot be opened.
    """

    def __init__(self, setup: Setup) -> None:
        which = zlib.crc32(json.dumps([setup.kind, setup.options], sort_keys=True, default=str).encode())
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(runtime_folder() / f"arm-{which:08x}.lock", flags, 0o600)
        except OSError as error:
            raise ValueError(f"arm '{setup.kind}': no lock: {error}") from None
        self._file = os.fdopen(handle, "r+")
        begun_s = time.monotonic()
        while not self._locked():
            holder = self._read()
            if holder.get("alone"):
                _end(holder)
            if time.monotonic() - begun_s > (LET_GO_S if holder.get("alone") else NOTICE_S):
                raise ValueError(f"arm '{setup.kind}': another process ({holder.get('pid', 'unknown')}) drives it")
            time.sleep(0.05)
        self.say({"pid": os.getpid(), "alone": False})

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self) -> dict[str, Any]:
        self._file.seek(0)
        try:
            return dict(json.loads(self._file.read()))
        except (ValueError, TypeError):
            return {}  # it is being written

    def say(self, holder: dict[str, Any]) -> None:
        """Write who holds the arm; with when its process began, since another may get its number."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps({**holder, "started": _started(os.getpid())}))
        self._file.flush()


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _end(holder: dict[str, Any]) -> None:
    """SIGTERM to the process that wrote `holder`, and to no other that has its number now."""
    pid, started = holder.get("pid"), holder.get("started")
    if isinstance(pid, int) and pid > 1 and started and _started(pid) == started:
        with contextlib.suppress(OSError):  # it has just ended
            os.kill(pid, signal.SIGTERM)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the robot server's to answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connection = Connection(int(sys.argv[1]))
    setup: Setup = connection.recv()
    if setup.realtime:
        real_time()
    try:
        claim = Claim(setup)
        arm = make_arm(setup.kind, setup.options)
        guard = Guard(setup, arm)
    except ValueError as error:
        connection.send((0, error))
        return
    try:
        try:
            connection.send((0, (arm.axes, guard.connect())))
        except Exception as error:
            connection.send((0, ArmError(" ".join(str(error).split()) or type(error).__name__)))
            return
        serve(connection, guard, claim)
    finally:
        with contextlib.suppress(Exception):
            arm.hold()
        with contextlib.suppress(Exception):
            arm.disconnect()


class ArmProcess:
    """Starts the process and connects the arm. Raises ValueError for bad options, ArmError when it is not there."""

    def __init__(self, setup: Setup, timeout_s: float = 1.0) -> None:
        self._timeout_s, self._number = timeout_s, 0
        ours, theirs = socket.socketpair()
        words = module_command("envs.real.arm_process", theirs.fileno())
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

    def command(self, requested: np.ndarray) -> tuple[np.ndarray, np.ndarray, State]:
        """(the target before, the one that left the filter now, the state before). Raises ArmError."""
        begun, target, state = self._ask("command", requested, time.monotonic())
        return begun, target, state

    def state(self) -> State:
        """Raises ArmError."""
        return self._state("state")

    def hold(self) -> State:
        """Raises ArmError, and the arm is held then too."""
        return self._state("hold")

    def scene(self, seed: int) -> State:
        """Raises ArmError."""
        return self._state("scene", seed)

    def clear(self) -> State:
        """A person has looked. Raises ArmError when the trouble is still there."""
        return self._state("clear", timeout_s=CONNECT_S)

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._connection.send((0, "close"))
        self._connection.close()  # the arm is held now, whatever happens
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.terminate()

    def _state(self, *words: object, timeout_s: float | None = None) -> State:
        state: State = self._ask(*words, timeout_s=timeout_s)
        return state

    def _ask(self, *words: object, timeout_s: float | None = None) -> Any:
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
            raise ArmError("the arm's process has ended; its last output is above") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


if __name__ == "__main__":
    main()
