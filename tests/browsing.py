"""What the tests of the operator's pages share: a robot server without a robot, and a browser to look at it."""

import shutil
import threading
import time

import numpy as np
import pytest

from robot_server.control import Control

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
by_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (apt-get install chromium)")
SECONDS = 60.0


def until(condition, what="too late"):
    end_s = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end_s, what
        time.sleep(0.01)
    return found


class Arm:
    """A robot server's control loop, without a robot: its operator's socket, and what a person did there."""

    def __init__(self, address="tcp://127.0.0.1:*", name="arm1"):
        self.control = Control(address, lambda: {"robot": name, "episodes": 4, "successes": 3})
        self.commands, self.events = [], []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        step = 0
        while not self._over.is_set():
            command = self.control.read()
            self.events += command.events
            self.commands = [*self.commands[-9:], command]
            step += 1
            image = np.full((48, 64, 3), step % 256, np.uint8)
            seen = {"front": image, "wrist": image[::-1], "state": np.float32([step, 0.5])}
            self.control.show(seen, {"step": step, "return": 0.0, "success": False, "action": [0.0] * 6 + [1.0]})
            time.sleep(0.02)
        self.control.close()

    @property
    def command(self):
        return self.commands[-1]

    def moves(self, *motion):
        return until(lambda: np.allclose(self.command.motion, motion) and self.command.enabled, f"not {motion}")

    def close(self):
        self._over.set()
        self._thread.join()
