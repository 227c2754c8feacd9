"""Ctrl-C, once and twice."""

import os
import signal

import pytest

from agent.cli import Stop
from agent.signals import SIGNALS
from robot_server.__main__ import finish, wait_until


@pytest.fixture
def stop():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop() as asked:
        yield asked
    after = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGHUP, before[-1])
    assert after[:2] == before[:2] and (after[2] == before[2]) == (asked.number != signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_and_the_second_interrupts(stop, number):
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop() and not stop.at_once and stop.exit_code == 128 + number
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.at_once


class Closing:
    """A link whose first close is interrupted."""

    spool = "spool"
    unkept = 0

    def __init__(self, interrupted):
        self.interrupted, self.timeouts = interrupted, []

    def close(self, timeout_s):
        self.timeouts.append(timeout_s)
        if self.interrupted and len(self.timeouts) == 1:
            raise KeyboardInterrupt
        return 2


def test_an_interrupted_farewell_is_ended_without_waiting(capsys):
    link = Closing(interrupted=True)
    finish(link, timeout_s=5.0)
    assert link.timeouts == [5.0, 0.0]
    assert "2 episodes not delivered: kept in spool" in capsys.readouterr().err


def test_a_farewell(capsys):
    link = Closing(interrupted=False)
    assert finish(link, timeout_s=5.0) == 0
    assert link.timeouts == [5.0]


def test_what_the_spool_could_not_take_is_not_called_kept(capsys):
    link = Closing(interrupted=False)
    link.unkept = 2
    assert finish(link, timeout_s=5.0) == 2
    said = capsys.readouterr().err
    assert "2 episodes LOST" in said and "kept in" not in said


def test_waiting_says_what_for_and_ends_when_asked(stop, capsys):
    calls = []

    def done():
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    assert not wait_until(done, "waiting for a learner", stop)
    assert capsys.readouterr().out == "waiting for a learner ...\n"
    assert wait_until(lambda: True, "nothing", lambda: False)
