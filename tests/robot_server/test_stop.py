"""Ctrl-C, once and twice."""

import os
import signal
from types import SimpleNamespace

import pytest

from agent.cli import Stop
from agent.signals import SIGNALS
from robot_server import __main__ as server
from robot_server.__main__ import finish
from robot_server.session import wait_until


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


def test_nothing_that_closes_is_interrupted_by_the_second_one(stop):
    os.kill(os.getpid(), signal.SIGINT)
    stop.closing()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.at_once and stop.number == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # it hangs
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("second", ["act", "env.close", "control.close"])
def test_wherever_the_second_ctrl_c_comes_the_arm_and_the_link_are_closed(monkeypatch, tmp_path, second):
    closed = []

    def at(place):
        closed.append(place)
        if place == second:
            os.kill(os.getpid(), signal.SIGINT)

    def act(env, *_):
        monkeypatch.setattr(env, "close", lambda: at("env.close"))
        os.kill(os.getpid(), signal.SIGINT)
        at("act")

    def finish(link, at_once):
        link.close(0.0)
        closed.append(at_once())
        return 0

    def opened(*_, **__):
        return SimpleNamespace(close=lambda: at("control.close"), wait=lambda left_s: None, hold_reason="")

    monkeypatch.setattr(server, "act", act)
    monkeypatch.setattr(server, "finish", finish)
    monkeypatch.setattr(server, "open_control", opened)
    words = ["--env", "fake", "--address", "tcp://127.0.0.1:1", "--spool", str(tmp_path)]
    assert server.main(words) == 0
    assert closed == ["act", "env.close", "control.close", True]


class Closing:
    """A link that has two episodes left."""

    spool = "spool"
    unsaved = 0

    def close(self, timeout_s, give_up):
        self.gave_up = give_up()
        return 2


@pytest.mark.parametrize("at_once", [False, True])
def test_a_farewell(logged, at_once):
    link = Closing()
    assert finish(link, lambda: at_once) == 0
    assert link.gave_up == at_once
    assert "2 episodes not delivered: kept in spool" in "".join(logged())


def test_what_the_spool_could_not_take_is_not_called_kept(logged):
    link = Closing()
    link.unsaved = 2
    assert finish(link, bool) == 2
    said = "".join(logged())
    assert "2 episodes LOST" in said and "kept in" not in said


def test_waiting_says_what_for_and_ends_when_asked(stop, logged):
    calls = []

    def done():
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    assert not wait_until(done, "waiting for a learner", stop)
    assert logged() == ["waiting for a learner ..."]
    assert wait_until(lambda: True, "nothing", lambda: False)
