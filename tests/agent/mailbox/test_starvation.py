"""One robot's flood of episodes holds up neither other robots nor updates."""

import time

import pytest
import test_learner
import test_mailbox
from forked import Program
from link_data import steps_of
from test_mailbox import drain_until

from agent.data.episode_store import Store
from agent.env_record import EnvRecord
from agent.mailbox.arrivals import Arrivals
from agent.run.records import read_log
from agent.spec import Episode, UserError
from agent.wire import messages
from robot_server.link import Link

offline = test_learner.offline
make_mailbox, mailbox = test_mailbox.make_mailbox, test_mailbox.mailbox
make_robot, robot = test_mailbox.make_robot, test_mailbox.robot
ENV = EnvRecord("fake")


def episode(name, number, length=2):
    return Episode.from_transitions(steps_of(length), {"robot": name, "boot": "b0", "number": number})


def test_robots_take_turns():
    arrivals = Arrivals()
    arrivals.add([episode("a", number) for number in range(4)] + [episode("b", 0)])
    arrivals.add([episode("c", 0), episode("b", 1)])
    taken = []
    while arrivals:
        meta = arrivals.next.meta
        assert arrivals.next.meta is meta  # it stays until it is on disk
        taken.append((meta["robot"], meta["number"]))
        arrivals.pop()
    assert taken == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3)]


def test_a_robot_with_too_much_that_waits_for_the_disk_begins_no_more_and_loses_nothing(mailbox, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.mailbox.assembly.MAX_PENDING", 5)
    link = Link(mailbox.address, test_mailbox.SPEC, "greedy", EnvRecord("fake"), tmp_path)
    for _ in range(13):
        link.begin()
        for step in steps_of(2):
            link.send(step)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        link.wait(0.01)
        mailbox.finished += mailbox.drain()
    assert len(mailbox.finished) == 5 == len(mailbox.assembly.unacknowledged) and not mailbox.counts
    taken, end = [], time.monotonic() + 60.0
    while len(taken) < 13:
        assert time.monotonic() < end
        while mailbox.finished:
            taken.append(mailbox.finished.pop(0))
            mailbox.acknowledge(taken[-1])
        link.wait(0.01)
        mailbox.finished += mailbox.drain()
    assert sorted(each.meta["number"] for each in taken) == list(range(13))
    link.close(0.0)


def test_a_robot_over_its_share_of_the_disk_keeps_its_next_episodes(mailbox, robot, make_robot):
    mailbox.over_share.add("raw")
    for at, step in enumerate(steps_of(3)):
        robot.step(0, at, step)
    other = make_robot(mailbox, "other")
    other.hello(mailbox)
    for at, step in enumerate(steps_of(3)):
        other.step(0, at, step)
    drain_until(mailbox, lambda: mailbox.finished, 5.0)
    robot.pull(outbox=[["raw", "b0", 0, 3]])
    assert robot.next(mailbox, 0.3) is None
    assert [each.meta["robot"] for each in mailbox.finished] == ["other"]


def test_the_store_counts_the_bytes_of_each_robot(tmp_path):
    def use(given):
        if given.meta["number"] == 7:
            raise UserError("no")

    store = Store(tmp_path, use, lambda key: None)
    for each in (episode("a", 0), episode("a", 0, 5), episode("a", 7), episode("b", 1)):
        store.take(each)
    again = Store(tmp_path, lambda given: None, lambda key: None)
    again.read_back()
    for counted in (store, again):
        assert counted.bytes.total() == sum(path.stat().st_size for path in tmp_path.rglob("*.hdf5"))
        assert counted.bytes["a"] > counted.bytes["b"] > 0


def updates(folder):
    return max((record["updates"] for record in read_log(folder)), default=0)


@pytest.mark.parametrize("flags", [["--learner.robot-gb", "inf"], ["--learner.robot-gb", "1e-6"]], ids=["all", "share"])
def test_three_thousand_tiny_episodes_of_one_robot_hold_nobody_up(
    offline, spec, make_episode, tiny_flags, tmp_path, flags
):
    run = tmp_path / "run"
    command = ["-m", "agent.learner", "--ckpt", offline, "--run", run, *tiny_flags, *flags]
    command += ["--address", "tcp://127.0.0.1:*", "--env-steps", "100000", "--log-every", "1"]
    learner = Program(*command, out=tmp_path / "said")
    try:
        address = ""
        while not address:
            assert learner.poll() is None
            words = learner.said().replace(";", " ").split()
            address = next((word for word in words if word.startswith("tcp://") and "*" not in word), "")
            time.sleep(0.1)
        link = Link(address, spec, "good", ENV, tmp_path / "spool")
        assert link.connect(30.0)
        greedy = test_mailbox.RawRobot(address, "greedy")
        hello = {"robot": "greedy", "boot": "b0", "spec": spec.to_dict(), "env": ENV.to_dict(), "outbox": []}
        greedy.send("HELLO", **hello)
        assert greedy.socket.poll(30_000)
        last = make_episode(1, seed=1).transitions()[0]
        for number in range(3000):
            greedy.socket.send_multipart(messages.pack_step(("greedy", "b0", number), 0, last))
        before, began = updates(run), time.monotonic()
        link.begin()
        for step in make_episode(5, seed=2).transitions():
            link.send(step)
        while link.outbox:
            link.wait(0.01)
            assert time.monotonic() < began + 5.0, "the good robot's episode waits for the others"
        while updates(run) <= before:
            time.sleep(0.05)
            assert time.monotonic() < began + 8.0, "no update is made"
        if flags[1] != "inf":
            assert "robot 'greedy' has filled its" in learner.said()
        link.close(0.0)
        greedy.socket.close()
    finally:
        learner.kill()
