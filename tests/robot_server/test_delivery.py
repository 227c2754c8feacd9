"""An episode leaves a robot only when the whole of it is on the learner's disk."""

import dataclasses

import pytest

from agent import wire
from agent.spec import UserError
from robot_server import link as link_module
from tools.bench.proxy import Proxy


@pytest.fixture
def proxies(bench):
    """proxies(mailbox): an address of its own for a robot, whose connection the test can cut."""
    made = []

    def make(mailbox):
        made.append(Proxy(int(mailbox.address.rpartition(":")[2])))
        made[-1].address = f"tcp://127.0.0.1:{made[-1].port}"
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def cut_after(steps, count):
    """What a learner makes of the first `count` steps when no more come."""
    last = dataclasses.replace(steps[count - 2], truncated=True, final_observation=steps[count - 1].observation)
    return [*steps[: count - 2], last]


@pytest.mark.parametrize("ended", [True, False], ids=["ended while away", "still running"])
def test_two_robots_of_one_name_lose_nothing(bench, proxies, episode_steps, empty, quick, monkeypatch, tmp_path, ended):
    """Item 10: the second one joins while the first one's connection is down; both are delivered whole."""
    monkeypatch.setattr(link_module, "HELLO_EVERY_S", 0.02)
    mailbox = bench.mailbox()
    proxy = proxies(mailbox)
    first = bench.link(proxy.address, spool=tmp_path / "a")
    bench.turn(lambda: first.network is not None)
    steps, others = episode_steps(20, seed=1), episode_steps(7, seed=2)
    first.begin({"seed": 1})
    for step in steps[:6]:
        first.send(step)
    bench.turn(lambda: mailbox.steps == 6)
    proxy.become("drop")
    for step in steps[6 : 20 if ended else 10]:
        first.send(step)

    second = bench.link(mailbox, spool=tmp_path / "b")
    bench.turn(lambda: second.network is not None and bench.episodes)
    assert bench.same(bench.episodes[0], cut_after(steps, 6)) and mailbox.steps == 5  # for the time being
    second.begin({"seed": 2})
    for step in others[:3]:
        second.send(step)
    bench.turn(lambda: mailbox.steps == 8)
    proxy.become("pass")
    bench.turn(lambda: first._refused_s)  # it is told to wait for the second one to leave
    assert len(first._outbox) == 1 and len(bench.episodes) == 1
    for step in others[3:]:
        second.send(step)
    bench.turn(lambda: empty(second))
    second._put(wire.pack("BYE"))
    bench.close(second)
    for step in [] if ended else steps[10:]:
        first.send(step)
    bench.turn(lambda: empty(first))
    *_, whole = bench.episodes
    assert bench.same(whole, steps) and whole.meta["seed"] == 1 and whole.meta["boot"] == first.boot
    assert bench.identities(bench.episodes).count(("robot", first.boot, 0)) == 2  # the second one replaces the first
    assert bench.same(bench.episodes[1], others) and len(bench.episodes) == 3
    assert mailbox.steps == 20 + 7 and not first.counts and not mailbox.counts


def test_a_refusal_of_a_second_robot_of_the_same_name_says_what_to_do(bench, monkeypatch):
    mailbox, _ = bench.pair()
    monkeypatch.setattr(link_module, "REFUSED_FOR_S", 0.0)
    monkeypatch.setattr(link_module, "HELLO_EVERY_S", 0.02)
    bench.link(mailbox)
    with pytest.raises(UserError, match=r"a name of its own \(robot.robot_name\).* is kept"):
        bench.turn(lambda: False)


def test_an_acknowledgement_of_fewer_steps_deletes_nothing(bench, episode_steps, empty, quick):
    """Whatever a learner has of it, a robot keeps its episode until all of its steps are there."""
    mailbox, link = bench.pair()
    bench.acknowledge = False
    steps = episode_steps(9)
    bench.play(link, steps)
    link.keep()
    bench.turn(lambda: bench.episodes)
    (whole,) = bench.episodes
    bench.close(mailbox)
    mailbox = bench.mailbox(mailbox.address, stored={("robot", link.boot, 0): 4})  # all that an older life had of it
    bench.turn(lambda: len(bench.episodes) == 2)
    assert not empty(link) and len(list(bench.spool.iterdir())) == 1
    assert bench.episodes[1].equals(whole) and mailbox.steps == 5
    mailbox.acknowledge(bench.episodes[1])
    bench.turn(lambda: empty(link))
    assert not list(bench.spool.iterdir()) and not link.counts


def test_a_longer_version_that_is_cut_short_again_is_no_shorter(bench, proxies, episode_steps, empty, quick, tmp_path):
    """The first robot is away, back, away and back; at no time does the learner have less than before."""
    mailbox = bench.mailbox()
    proxy = proxies(mailbox)
    first = bench.link(proxy.address, spool=tmp_path / "a")
    bench.turn(lambda: first.network is not None)
    steps = episode_steps(12)
    first.begin({"seed": 1})
    for number, until in enumerate((8, 10)):
        while first._outbox.running.length < until:
            first.send(steps[first._outbox.running.length])
        bench.turn(lambda until=until: mailbox.steps == until)
        proxy.become("drop")
        second = bench.link(mailbox, spool=tmp_path / f"b{number}")
        bench.turn(lambda second=second, number=number: second.network is not None and len(bench.episodes) > number)
        assert bench.same(bench.episodes[-1], cut_after(steps, until)) and mailbox.steps == until - 1
        bench.close(second)
        proxy.become("pass")
        bench.turn(lambda until=until: mailbox.steps == until)
    for step in steps[10:]:
        first.send(step)
    bench.turn(lambda: empty(first))
    assert [len(episode) for episode in bench.episodes] == [7, 9, 12] and bench.same(bench.episodes[-1], steps)
    assert mailbox.steps == 12 and not first.counts
