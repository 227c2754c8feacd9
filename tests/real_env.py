"""A real arm's environment with the guard in this process, and a clock of the test's own."""

from remembering_arm import PERIOD_S, Now

from envs.clock import Clock
from envs.real import env as env_module
from envs.real import guard as guard_module
from envs.real import lost_replies, startup
from envs.real.env import RealEnv
from envs.real.guard import Guard


class InProcess:
    """As an ArmProcess, of the same `setup`."""

    def __init__(self, setup, arm):
        self.setup, self.guard = setup, Guard(setup, arm)
        self.axes, self.first = arm.axes, self.guard.connect()
        self.state, self.hold, self.clear, self.stand = (
            getattr(self.guard, word) for word in ("state", "hold", "clear", "stand")
        )

    def scene(self, seed, paused):
        return self.guard.scene(seed)

    def command(self, requested):
        return self.guard.command(requested, guard_module.time.monotonic())


def sleeping(monkeypatch):
    """The clock of all modules that take part."""
    now = Now()
    for module in (env_module, guard_module, lost_replies):
        monkeypatch.setattr(module, "time", now)
    return now


def real_env(options, arm, now, monkeypatch):
    """The RealEnv of `options` that drives `arm`."""
    monkeypatch.setattr(startup, "make_arm", lambda kind, options: arm)
    monkeypatch.setattr(startup, "ArmProcess", lambda setup: InProcess(setup, arm))
    made = RealEnv(options)

    def tick(left_s):
        now.now_s += left_s
        made._arm.guard.tick()
        return False

    made.clock, made.paused = Clock(1 / PERIOD_S, now.monotonic, now.sleep), tick
    return made
