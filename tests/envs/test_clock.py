import time

import pytest

from envs.clock import Clock


class World:
    """Time that passes when somebody sleeps or works."""

    def __init__(self):
        self.now_s = 100.0
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds

    def clock(self, hz):
        clock = Clock(hz, lambda: self.now_s, self.sleep)
        clock.start()
        return clock


def test_errors_do_not_add_up():
    world = World()
    clock = world.clock(10)
    for step in range(1, 101):
        world.now_s += 0.013 + 0.001 * (step % 7)
        clock.wait()
        assert world.now_s == pytest.approx(100 + step / 10)
    assert clock.misses == 0


def test_a_late_step_is_counted_and_caught_up():
    world = World()
    clock = world.clock(10)
    world.now_s += 0.15
    clock.wait()
    assert world.now_s == pytest.approx(100.15) and clock.misses == 1  # at once
    clock.wait()
    assert world.now_s == pytest.approx(100.2) and clock.misses == 1  # on the grid again


def test_a_stall_is_not_followed_by_a_burst():
    world = World()
    clock = world.clock(10)
    world.now_s += 5.03
    clock.wait()
    assert clock.misses == 1
    stalled_until_s = world.now_s
    for step in range(1, 4):
        clock.wait()
        assert world.now_s == pytest.approx(stalled_until_s + step / 10)


def test_unpaced_never_sleeps():
    world = World()
    clock = world.clock(0)
    for _ in range(10):
        clock.wait(lambda timeout_s: pytest.fail("no time to idle"))
    assert world.slept == [] and clock.misses == 0


def test_the_waiting_time_is_given_to_idle_and_never_overrun():
    world = World()
    clock = world.clock(10)
    given = []

    def idle(timeout_s):
        given.append(timeout_s)
        world.now_s += min(timeout_s, 0.04)  # something arrived earlier

    clock.wait(idle)
    assert world.now_s == pytest.approx(100.1)
    assert len(given) == 3 and sum(world.slept) == pytest.approx(0.002)


def test_with_real_time():
    clock = Clock(200)
    clock.start()
    started_s = time.monotonic()
    for _ in range(20):
        clock.wait()
    assert time.monotonic() - started_s >= 0.1 - 1e-6


def test_lateness_is_told_of_the_newest_steps():
    clock = Clock(10)
    assert clock.late(600) == (0.0, 0.0) and str(clock) == "no steps"
    clock.late_s.extend([5.0] * 10 + [i / 1000 for i in range(100, -1, -1)])
    assert clock.late(101) == (0.05, 0.099)
    assert clock.late()[1] == 5.0
