"""An arm that only remembers, and a clock of the test's own."""

import numpy as np

from envs.real.arm import State

PERIOD_S = 0.1
TIMEOUT_S = 0.03  # after which a driver gives a reply up


class Arm:
    """Goes where it is sent at once, unless `stuck`; `clips` what it is sent, as some drivers do."""

    axes = ("x", "y")

    def __init__(self, now):
        self.now, self.log, self.error = now, [], None
        self.at, self.stuck, self.clips = np.zeros(2), False, np.inf

    def _say(self, what):
        self.log.append(what)
        if self.error:
            raise self.error

    def connect(self):
        self._say("connect")

    def state(self):
        if self.error:
            raise self.error
        return State(self.at.copy(), self.now.monotonic())

    def command(self, target):
        self._say("command")
        sent = np.clip(target, -self.clips, self.clips)
        if not self.stuck:
            self.at = sent.copy()
        return sent

    def hold(self):
        self._say("hold")

    def disconnect(self):
        self.log.append("disconnect")


class Now:
    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s

    def sleep(self, for_s):
        self.now_s += for_s


class Bus(Arm):
    """Loses the replies to the next `lose` reads, writes or holds, each after TIMEOUT_S."""

    def __init__(self, now):
        super().__init__(now)
        self.lose = {"state": 0, "command": 0, "hold": 0}

    def _lost(self, what):
        if self.lose[what]:
            self.lose[what] -= 1
            self.now.now_s += TIMEOUT_S
            raise ConnectionError("There is no status packet!")

    def state(self):
        self._lost("state")
        return super().state()

    def command(self, target):
        self._lost("command")
        return super().command(target)

    def hold(self):
        self._lost("hold")
        super().hold()


def go(guard, now, x, y=0.0, after_s=PERIOD_S):
    now.now_s += after_s
    return guard.command(np.array([x, y]), now.now_s)
