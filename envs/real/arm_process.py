"""The arm's own process: driver, safety filter and watchdog. It outlives whoever commands it, and holds the arm then.

`ArmProcess` is the other end, in the robot server. Between them is a socket pair; a message is a tuple, pickled by
multiprocessing.connection (the two are one program). Asked is always by the robot server, which waits for the answer:

  command requested sent_s -> begun, target, State   through the filter, to the driver
  state                 -> State
  hold                  -> State             the arm stands still, until the next command
  stand                 -> State             where that begins: somebody may have moved the arm
  scene seed            -> State             for arms that can rearrange the scene (reset_scene)
  clear                 -> State             a person has looked: go on after an error
  park                  -> str               lead it to the pose `park`; why it is not there; any message stops it
  close                 -> nothing           hold, disconnect, end

or the answer is an Exception. Each question has a number, which its answer repeats; nothing is asked twice. When the
robot server has gone the arm is held at once, for `release_s`, or until the next robot server takes it over; then it is
disconnected. One that was moving when the robot server ended is parked before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from envs.real.arm import ArmError, State, described, make_arm
from envs.real.claim import Claim
from envs.real.guard import Guard
from envs.real.park import park
from envs.real.realtime import real_time
from envs.real.setup import Setup
from envs.start import module_command

LOAD_S = 300.0  # a driver's modules may take so long to load
CONNECT_S = 60.0  # an arm may take so long to get ready
PARK_S = 60.0  # or to be parked
SCENE_S = 60.0  # or to put the scene back
LOOK_S = 0.02  # while it does, between two looks at who may stop it


log = logging.getLogger(__name__)


def serve(connection: Connection, guard: Guard, claim: Claim) -> None:
    """Until "close" or the robot server's end."""
    handlers: dict[str, Callable[..., Any]] = {
        "command": guard.command,
        "state": guard.state,
        "scene": guard.scene,
        "hold": guard.hold,
        "stand": guard.stand,
        "clear": guard.clear,
        "park": lambda: parked(connection, guard),
    }
    moving = False  # the robot server's last word was not that the arm is to stand
    while True:
        try:
            if connection.poll(guard.wait_s):
                number, word, *arguments = connection.recv()
                if word == "close":
                    return
                moving = word == "command" or (moving and word == "state")
                try:
                    answer = handlers[word](*arguments)
                except Exception as error:
                    answer = error
                send(connection, guard, number, answer)
        except (EOFError, ConnectionError):
            with contextlib.suppress(ArmError):
                guard.hold()
            alone(guard, claim, moving)
            return
        guard.tick()


def send(connection: Connection, guard: Guard, number: int, answer: object) -> None:
    """What cannot be pickled, of a driver's own making, is its mistake: the arm is held, and keeps its power."""
    try:
        connection.send((number, answer))
    except OSError:
        raise
    except Exception as error:
        connection.send((number, guard.fail(error)))


def parked(connection: Connection, guard: Guard) -> str:
    """Park the arm while the robot server waits: its next message stops that, its end does not."""
    gone = False

    def stopped(timeout_s: float) -> bool:
        nonlocal gone
        try:
            if not gone and connection.poll(timeout_s):
                connection.recv()
                return True
        except (EOFError, ConnectionError):
            gone = True
        time.sleep(timeout_s if gone else 0.0)
        return False

    why = park(guard, stopped)
    if gone and why:
        report(f"the arm is not parked: {why}")
    return why


def alone(guard: Guard, claim: Claim, moving: bool) -> None:
    """Hold for `release_s`, or until SIGTERM, or until the next robot server takes the arm over; then it is parked.

    One that was not `moving` is not parked: a person may have stopped it, or work beside it.
    """
    release_s = guard.setup.release_s
    with contextlib.suppress(OSError):  # a full disk is no reason to let the arm go
        claim.say({"pid": os.getpid(), "alone": True})
    parks = moving and guard.setup.park is not None
    report(
        f"the robot server has exited: the arm is held for {release_s:g} s, then {'parked and ' * parks}released "
        f"(kill {os.getpid()}: released now)"
    )
    end_s = time.monotonic() + release_s
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, guard.wait_s))
        guard.tick()  # a hold that was not answered
    if parks and (why := park(guard, wait)):
        report(f"the arm is not parked, and released where it is: {why}")


def report(line: str) -> None:
    """To stderr; a terminal that was closed, which ends a robot server too, is no reason to let the arm go."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def wait(timeout_s: float) -> bool:
    """Nobody is there who could stop it, except by SIGTERM."""
    time.sleep(timeout_s)
    return False


def end(*_: object) -> None:
    """Answer the first SIGTERM; who takes the arm over sends it again and again."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the robot server's to answer
    signal.signal(signal.SIGTERM, end)
    connection = Connection(int(sys.argv[1]))
    setup: Setup = connection.recv()
    try:
        arm = make_arm(setup.kind, setup.options)
        guard = Guard(setup, arm)
        claim = Claim(setup)  # last: whoever held the arm lets it go now, and a driver takes seconds to load
    except ValueError as error:
        connection.send((0, error))
        return
    connection.send((0, None))  # loaded
    if setup.realtime:
        real_time()  # not before: its driver's modules take seconds of a core to load
    try:
        try:
            connection.send((0, (arm.axes, guard.connect())))
        except Exception as error:
            connection.send((0, ArmError(described(error))))
            return
        serve(connection, guard, claim)
    finally:
        try:
            with contextlib.suppress(Exception):
                arm.hold()
        finally:  # a SIGTERM that ends a hold, or comes again, does not keep the torque on
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with contextlib.suppress(Exception):
                arm.disconnect()


class ArmProcess:
    """Starts the process and connects the arm. Raises ValueError for bad options, ArmError when it is not there."""

    def __init__(self, setup: Setup, timeout_s: float = 1.0) -> None:
        self._timeout_s, self._number = timeout_s, 0
        self._parks, self._moved = setup.park is not None, False
        ours, theirs = socket.socketpair()
        words = module_command("envs.real.arm_process", theirs.fileno())
        # A session of its own: what kills the robot server's group must not kill what holds the arm.
        self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(setup)
        try:
            self._answer(LOAD_S)
            self.axes, self.first = self._answer(CONNECT_S)
        except BaseException:
            self.close()
            raise

    def command(self, requested: np.ndarray) -> tuple[np.ndarray, np.ndarray, State]:
        """(the target before, the one that left the filter now, the state before). Raises ArmError."""
        self._moved = True
        begun, target, state = self._ask("command", requested, time.monotonic())
        return begun, target, state

    def state(self) -> State:
        """Raises ArmError."""
        return self._state("state")

    def hold(self) -> State:
        """Raises ArmError, and the arm is held then too."""
        return self._state("hold")

    def stand(self) -> State:
        """Where the next command begins, as its target. Raises ArmError."""
        return self._state("stand")

    def scene(self, seed: int, paused: Callable[[float], object] = time.sleep) -> State:
        """Let the arm's driver put the scene back, SCENE_S at most. paused: waits for so long. Raises ArmError."""
        self._number += 1
        end_s = time.monotonic() + SCENE_S
        with contextlib.suppress(OSError):  # _answer says it
            self._connection.send((self._number, "scene", seed))
            while not self._connection.poll(0):
                if time.monotonic() > end_s:
                    raise ArmError(f"the arm's driver has not put the scene back within {SCENE_S:g} s")
                paused(LOOK_S)
        state: State = self._answer(self._timeout_s)
        return state

    def clear(self) -> State:
        """A person has looked. Raises ArmError when the trouble is still there."""
        return self._state("clear", timeout_s=CONNECT_S)

    def close(self, paused: Callable[[float], bool] = wait) -> None:
        """Park the arm if it has moved and has a place for that, hold it, and let it go.

        paused: waits for so long; whether the arm must not move. One that is stopped on its way there is held for
        `release_s` before it is let go; after a second Ctrl-C, too.
        """
        try:
            released = not (self._moved and self._parks) or self._park(paused)
        except KeyboardInterrupt:
            self._leave(False)
            raise
        self._leave(released)

    def _park(self, paused: Callable[[float], bool]) -> bool:
        """Whether the arm may be let go now: it is parked, or stood all the time."""
        if paused(0.0):
            log.warning("the arm is not parked: a person has stopped or paused it")
            return True
        log.info("the arm is being parked; Ctrl-C stops it")
        self._number += 1
        end_s = time.monotonic() + PARK_S
        try:
            self._connection.send((self._number, "park"))
            while not self._connection.poll(0):
                if paused(LOOK_S) or time.monotonic() > end_s:
                    return False
            why = self._answer(self._timeout_s)
        except (ArmError, OSError) as error:
            why = str(error)
        if why:
            log.warning("the arm is not parked: %s", why)
        return not why

    def _leave(self, released: bool) -> None:
        """Held from now on, and let go at once or after `release_s`."""
        with contextlib.suppress(OSError, ValueError):
            self._connection.send((0, "close" if released else "hold"))
        self._connection.close()  # the arm is held now, whatever happens
        if not released:
            return
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
