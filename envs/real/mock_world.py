"""A simulated arm, its table and its cameras, as hardware is: it goes on by itself, in wall-clock time, late and noisy.

  python -m envs.real.mock_world --fault stall --for-s 2        to one that runs: its motors do nothing for two seconds

Faults:  stall            the motors do nothing, and say nothing of it
         disconnect       the arm's cable is out
         fault            the arm reports an error of its motors
         late             its answers come `late_s` after they were asked for
         freeze:CAMERA    the camera sends the same frame again and again
         unplug:CAMERA    the camera's cable is out
         move:CAMERA      the camera was knocked: its picture is 5 px to the right
         rotate:CAMERA    its picture is turned by 1 degree
         dim:CAMERA       half the brightness
         cover:CAMERA     its lens is covered
         swap             each camera has another's number

`--env mock` starts it, and connects as to hardware: the arm (envs.real.mock_arm) and each camera by a line of its own,
on one Unix socket. It ends when nobody has been connected for a while. With MOCK_LOG=FILE each tick is a line of JSON
there: "t" (time.monotonic()), "position" and "target" of the axes.

--robot so101 is an SO-101 behind an emulated servo bus: a pseudo-terminal that any driver of Feetech's servos opens as
its serial port (envs.real.mock_so101). `disconnect` unplugs the bus, `fault` overloads servo 3, `late` delays every
reply.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Client, Connection, Listener

from envs.clock import Clock
from envs.real.mock_arm import PANDA, ROBOTS, default_socket, mock_options
from envs.real.mock_hardware import Hardware
from envs.real.realtime import real_time

ALONE_S = 5.0  # without anybody connected for so long, it ends


def make_world(robot: str, options: str) -> Hardware:
    """robot: one of ROBOTS. options: of that, JSON. Raises ValueError, one line, for bad ones and a missing package."""
    asked = mock_options(json.loads(options), robot)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(asked.socket)
    if robot == PANDA:
        from envs.real.mock_panda import Panda

        return Panda(asked)
    from envs.real.mock_so101 import SO101

    return SO101(asked)


class Lines:
    """Who is connected: a thread each."""

    def __init__(self, world: Hardware) -> None:
        self.world = world
        self.open, self._counting = 0, threading.Lock()
        self._arm = False
        self.alone_s = time.monotonic()
        self._listener = Listener(world.options.socket, "AF_UNIX")
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                threading.Thread(target=self._serve, args=(self._listener.accept(),), daemon=True).start()

    def _serve(self, line: Connection) -> None:
        self._count(1)
        try:
            with contextlib.suppress(OSError, EOFError, ValueError, TypeError), line:
                kind, *more = line.recv()
                if kind == "arm":
                    self._serve_arm(line)
                elif kind == "camera":
                    self._serve_camera(line, *more)
                elif kind == "scene":
                    self._serve_scene(line)
                elif kind == "fault":
                    line.send(self.world.break_(*more))
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self.open += change
            self.alone_s = time.monotonic()

    def _serve_arm(self, line: Connection) -> None:
        """One at a time, as a serial line. The answer to whatever is asked is the state."""
        world, options = self.world, self.world.options
        if self._arm or world.broken("disconnect"):
            line.send("another program has the arm" if self._arm else "no answer: is its cable in?")
            return
        self._arm = True
        try:
            line.send("ready")
            while True:
                if not line.poll(0.05):
                    if world.broken("disconnect"):
                        return
                    continue
                word, *more = line.recv()
                if world.broken("disconnect"):
                    return
                if word == "command":
                    world.command(*more)
                elif word == "hold":
                    world.hold()
                elif word == "scene":
                    world.new_scene(*more)
                if world.broken("late"):
                    time.sleep(options.late_s)
                line.send(world.reply())
        finally:
            self._arm = False

    def _serve_scene(self, line: Connection) -> None:
        """What a person sees of the task, and does between episodes; of an arm with a bus of its own."""
        while True:
            word, *more = line.recv()
            if word == "scene":
                self.world.new_scene(*more)
            line.send((self.world.success, self.world.thing))

    def _serve_camera(self, line: Connection, name: str) -> None:
        world, number = self.world, 0
        if name not in world.options.cameras:
            line.send(f"there is no camera '{name}'; there are {', '.join(world.options.cameras)}")
            return
        line.send("ready")
        while True:
            with world.changed:
                while world.frames.get(name, (0,))[0] == number:
                    if not world.changed.wait(1.0) and line.poll(0):
                        return
                number, image = world.frames[name]
            if world.broken(f"unplug:{name}"):
                return
            line.send_bytes(image.tobytes())

    def close(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # its folder went first
            self._listener.close()


def send_fault(path: str, fault: str, for_s: float) -> None:
    """Raises OSError when no world runs there, ValueError, one line, for a fault that it has not."""
    with Client(path, "AF_UNIX") as line:
        line.send(("fault", fault, for_s))
        if why := line.recv():
            raise ValueError(why)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=ROBOTS, default=PANDA)
    parser.add_argument("--options", default="{}", help="JSON")
    parser.add_argument("--keep", action="store_true", help="until Ctrl-C, also without anybody connected")
    parser.add_argument("--fault", metavar="NAME")
    parser.add_argument("--for-s", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--socket", default="", metavar="PATH", help="of the arm; empty: its default")
    flags = parser.parse_args()
    if flags.fault:
        try:
            flags.socket = flags.socket or default_socket(flags.robot)
            send_fault(flags.socket, flags.fault, flags.for_s)
        except OSError as error:
            sys.exit(f"error: {flags.socket}: {error.strerror or error}: does a mock arm run?")
        except ValueError as error:
            sys.exit(f"error: --fault {error}")
        return
    if not flags.keep:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is hardware
    real_time(False)  # of which it must not take any time that the loop would have
    try:
        world = make_world(flags.robot, flags.options)
    except ValueError as error:
        sys.exit(f"error: {error}")
    world.tick()
    lines = Lines(world)
    print("ready", flush=True)
    clock = Clock(world.tick_hz)
    clock.start()
    with contextlib.suppress(KeyboardInterrupt):
        while flags.keep or lines.open or time.monotonic() - lines.alone_s < ALONE_S:
            world.tick()
            clock.wait()
    lines.close()
    world.close()


if __name__ == "__main__":
    main()
