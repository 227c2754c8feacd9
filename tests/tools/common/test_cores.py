"""Cores that other programs leave alone."""

import os

import pytest

from tools.common import cores

STAT = """cpu  {} 0 0 0 0 0 0 0 0 0
cpu0 {} 0 100 {} 0 0 0 0 0 0
cpu1 {} 50 0 {} {} 5 5 0 0 0
intr 1 2 3
"""


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """seen(before, after): the texts of /proc/stat at the two looks."""

    def seen(*texts):
        left = list(texts)
        monkeypatch.setattr(cores.Path, "read_text", lambda path: left.pop(0))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
        return cores.idle_cores(0.0)

    return seen


@pytest.mark.parametrize(
    ("ticks", "count"),
    [
        ((2, 48, 2, 40, 8), 2),
        ((30, 20, 2, 48, 0), 1),
        ((2, 48, 40, 10, 0), 1),
        ((50, 0, 50, 0, 0), 1),  # at least one
        ((2, 48, 25, 0, 25), 2),  # waiting for a disk is idle
    ],
)
def test_a_core_that_was_idle_half_of_the_time_counts(seen, ticks, count):
    user0, idle0, user1, idle1, wait1 = ticks
    before = STAT.format(9, 1000, 7000, 1000, 7000, 300)
    after = STAT.format(99, 1000 + user0, 7000 + idle0, 1000 + user1, 7000 + idle1, 300 + wait1)
    assert seen(before, after) == count


def test_a_core_of_which_nothing_is_known_counts(seen):
    text = STAT.format(9, 1000, 7000, 1000, 7000, 300)
    assert seen(text, text) == 2 and seen("", "") == 2


def test_this_computers_cores_are_read():
    assert 1 <= cores.idle_cores(0.05) <= len(os.sched_getaffinity(0))
    assert set(cores.times(cores.Path("/proc/stat").read_text())) >= os.sched_getaffinity(0)
