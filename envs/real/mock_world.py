"""A simulated arm, its table and its cameras, as hardware is: it goes on by itself, in wall-clock time, late and noisy.

  python -m envs.real.mock_world --fault stall --for-s 2        to one that runs: its motors do nothing for two seconds

Faults:  stall            the motors do nothing, and say nothing of it
         disconnect       the arm's cable is out
         fault            the arm reports an error of its motors
         late             its answers come `late_s` after they were asked for
         freeze:CAMERA    the camera sends the same frame again and again
         unplug:CAMERA    the camera's cable is out

`--env mock` starts it, and connects as to hardware: the arm (envs.real.mock_arm) and each camera by a line of its own,
on one Unix socket. It ends when nobody has been connected for a while. With MOCK_LOG=FILE each tick is a line of JSON
there: "t" (time.monotonic()), "position" and "target" of the axes.
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
from collections import deque
from multiprocessing.connection import Client, Connection, Listener

import numpy as np

from agent.options import build
from envs.clock import Clock
from envs.real.mock_arm import MockArmOptions, default_socket
from envs.real.realtime import real_time
from envs.sim import STEP_M, SimEnv, SimOptions

WORLD_HZ = 50.0
STIFFNESS = 3000.0  # 1/s^2: at 0.25 m/s it is 6 mm behind
ALONE_S = 5.0  # without anybody connected for so long, it ends
LOG = "MOCK_LOG"


class World:
    """`tick` moves it on; everything else is asked by the threads of the connections."""

    def __init__(self, options: MockArmOptions) -> None:
        self.options = options
        sim = {"task": options.task, "cameras": options.cameras, "image_size": options.size, "control_hz": WORLD_HZ}
        self._sim = SimEnv(build(SimOptions, sim))
        self._rng = np.random.default_rng()
        self._sim.reset(seed=0)
        self._stiffen()
        self._commands: deque[tuple[float, np.ndarray]] = deque()
        self._target = self.position()
        self._grip = 0.0
        self._ends: dict[str, float] = {}  # fault -> when it is over
        self._scene: int | None = None
        self.measured, self.thing, self.success = self.position(), self._thing(), False
        self.frames: dict[str, tuple[int, np.ndarray]] = {}  # camera -> number, image
        self._pending: deque[tuple[float, dict[str, np.ndarray]]] = deque()
        self._shot_s = 0.0
        self.changed = threading.Condition()
        path = os.environ.get(LOG)
        self._log = open(path, "a", buffering=1) if path else None  # noqa: SIM115

    def _stiffen(self) -> None:
        """Servos follow what they are sent more closely than robosuite's compliant arm does."""
        robot = self._sim.robosuite.robots[0]
        controller = robot.part_controllers[robot.arms[0]]
        controller.kp = np.full(6, STIFFNESS)
        controller.kd = 2 * np.sqrt(controller.kp)

    def position(self) -> np.ndarray:
        """float64 (4,): x y z of the hand in the base's frame, m; the gripper, 0 open to 1 closed."""
        hand = self._sim._states()["proprio"][:3].astype(np.float64)
        fingers = self._sim.fingers
        opening = abs(float(fingers[0])) / 0.04 if len(fingers) else 0.0
        return np.append(hand, np.clip(1 - opening, 0, 1))

    def _thing(self) -> np.ndarray | None:
        """Lift's cube, in the base's frame, m."""
        suite, data = self._sim.robosuite, self._sim.data
        if not hasattr(suite, "cube_body_id"):
            return None
        base = data.xpos[self._sim._base]
        return np.array(data.xpos[suite.cube_body_id] - base)

    def broken(self, fault: str) -> bool:
        return time.monotonic() < self._ends.get(fault, 0.0)

    def break_(self, fault: str, for_s: float) -> None:
        self._ends[fault] = time.monotonic() + for_s

    def command(self, target: np.ndarray) -> None:
        if self._rng.random() >= self.options.drop_rate:
            self._commands.append((time.monotonic() + self.options.latency_s, target))

    def hold(self) -> None:
        """The motors' own: no latency but the line's."""
        self._commands.clear()
        self._target = self.measured.copy()

    def new_scene(self, seed: int) -> None:
        self._scene = seed

    def tick(self) -> None:
        now_s = time.monotonic()
        if self._scene is not None:
            self._place(self._scene)
            self._scene = None
        while self._commands and self._commands[0][0] <= now_s:
            self._target = self._commands.popleft()[1]
        here = self.position()
        target = here if self.broken("stall") else self._target
        if not self.broken("stall"):
            self._grip = 1.0 if self._target[3] > 0.5 else -1.0
        motion = np.clip((target - here)[:3] / STEP_M, -1, 1)
        self._sim.robosuite.step(self._sim._with_rotation(np.append(motion, self._grip)))
        self.measured, self.thing = self.position(), self._thing()
        self.success = bool(self._sim.robosuite._check_success())
        if self._log:
            row = {
                "t": time.monotonic(),
                "position": self.measured.round(5).tolist(),
                "target": self._target.round(5).tolist(),
            }
            self._log.write(json.dumps(row) + "\n")
        self._shoot()

    def _shoot(self) -> None:
        now_s = time.monotonic()
        if now_s - self._shot_s >= 1 / self.options.fps - 0.5 / WORLD_HZ:
            self._shot_s = now_s
            self._pending.append((now_s + self.options.camera_delay_s, self._sim.pictures()))
        while self._pending and self._pending[0][0] <= now_s:
            images = self._pending.popleft()[1]
            with self.changed:
                for name, image in images.items():
                    number, before = self.frames.get(name, (0, image))
                    frozen = self.broken(f"freeze:{name}")
                    # A sensor's noise: no two frames of a camera are the same.
                    noisy = before if frozen else np.clip(image + self._rng.integers(-2, 3, image.shape), 0, 255)
                    self.frames[name] = number + 1, noisy.astype(np.uint8)
                self.changed.notify_all()

    def _place(self, seed: int) -> None:
        """New places for the objects; the arm stays."""
        suite = self._sim.robosuite
        suite.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        for position, rotation, thing in suite.placement_initializer.sample().values():
            suite.sim.data.set_joint_qpos(thing.joints[0], np.concatenate([position, rotation]))
        suite.sim.forward()

    def close(self) -> None:
        self._sim.close()
        if self._log:
            self._log.close()


class Lines:
    """Who is connected: a thread each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open = 0
        self._arm = False
        self.alone_s = time.monotonic()
        self._listener = Listener(world.options.socket, "AF_UNIX")
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                threading.Thread(target=self._serve, args=(self._listener.accept(),), daemon=True).start()

    def _serve(self, line: Connection) -> None:
        self.open += 1
        with contextlib.suppress(OSError, EOFError, ValueError, TypeError), line:
            kind, *more = line.recv()
            if kind == "arm":
                self._serve_arm(line)
            elif kind == "camera":
                self._serve_camera(line, *more)
            elif kind == "fault":
                self.world.break_(*more)
                line.send("done")
        self.open -= 1
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
                noise = np.append(world._rng.normal(0, options.noise, 3), 0.0)
                error = "error 0x20: motor 3 overloaded" if world.broken("fault") else ""
                line.send((error, world.measured + noise, world.success, world.thing))
        finally:
            self._arm = False

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
    """Raises OSError when no world runs there."""
    with Client(path, "AF_UNIX") as line:
        line.send(("fault", fault, for_s))
        line.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--options", default="{}", help="JSON")
    parser.add_argument("--fault", metavar="NAME")
    parser.add_argument("--for-s", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--socket", default="", metavar="PATH", help="of the arm; empty: its default")
    flags = parser.parse_args()
    if flags.fault:
        try:
            flags.socket = flags.socket or default_socket()
            send_fault(flags.socket, flags.fault, flags.for_s)
        except OSError as error:
            sys.exit(f"error: {flags.socket}: {error.strerror or error}: does a mock arm run?")
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is hardware
    real_time(False)  # of which it must not take any time that the loop would have
    options = MockArmOptions(**json.loads(flags.options))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.socket)
    world = World(options)
    world.tick()
    lines = Lines(world)
    print("ready", flush=True)
    clock = Clock(WORLD_HZ)
    clock.start()
    while lines.open or time.monotonic() - lines.alone_s < ALONE_S:
        world.tick()
        clock.wait()
    lines.close()
    world.close()


if __name__ == "__main__":
    main()
