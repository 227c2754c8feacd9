"""An episode leaves a robot only when the whole of it is on the learner's disk."""

import dataclasses
import time
from collections import Counter

import numpy as np
import pytest
import zmq
from link_data import NETWORK

from agent.data.episode_file import write_episode
from agent.mailbox import connections
from agent.spec import Episode, UserError
from agent.wire import messages
from agent.wire.receipt import boot_secret, is_receipt, receipt
from robot_server import handshake
from robot_server import link as link_module
from tools.stress.proxy import Proxy


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
    bench.turn(lambda: first.handshake.refused_s)  # it is told to wait for the second one to leave
    assert len(first.outbox) == 1 and len(bench.episodes) == 1
    for step in others[3:]:
        second.send(step)
    bench.turn(lambda: empty(second))
    second.connection.send(messages.pack("BYE"))
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
    monkeypatch.setattr(handshake, "REFUSED_FOR_S", 0.0)
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
    link.save()
    bench.turn(lambda: bench.episodes)
    (whole,) = bench.episodes
    bench.close(mailbox)
    mailbox = bench.mailbox(mailbox.address, stored={("robot", link.boot, 0): 4})  # all that an older life had of it
    bench.turn(lambda: len(bench.episodes) == 2)
    assert not empty(link) and len(bench.spooled()) == 1
    assert bench.episodes[1].equals(whole) and mailbox.steps == 5
    mailbox.acknowledge(bench.episodes[1])
    bench.turn(lambda: empty(link))
    assert not bench.spooled() and not link.counts


def test_a_longer_version_that_is_cut_short_again_is_no_shorter(bench, proxies, episode_steps, empty, quick, tmp_path):
    """The first robot is away, back, away and back; at no time does the learner have less than before."""
    mailbox = bench.mailbox()
    proxy = proxies(mailbox)
    first = bench.link(proxy.address, spool=tmp_path / "a")
    bench.turn(lambda: first.network is not None)
    steps = episode_steps(12)
    first.begin({"seed": 1})
    for number, until in enumerate((8, 10)):
        while first.outbox.running.length < until:
            first.send(steps[first.outbox.running.length])
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


# ---- who may say that an episode is stored ----


class Stranger:
    """Listens where the learner was, and claims to have stored whatever it hears of."""

    def __init__(self, address, welcome):
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.linger = 0
        self.welcome, self.heard, self.told = welcome, [], Counter()
        deadline_s = time.monotonic() + 10
        while True:
            try:
                return self.socket.bind(address) and None
            except zmq.ZMQError:  # the learner's socket lets go of the port in its own time
                assert time.monotonic() < deadline_s
                time.sleep(0.01)

    def work(self):
        while self.socket.poll(0):
            route, *frames = self.socket.recv_multipart()
            self.heard.append(frames)
            message = messages.unpack(frames)
            if message.kind == "HELLO" and self.welcome:
                self.send(route, "WELCOME", spec={}, network=NETWORK, learner_boot="x", **self.welcome)
            keys = [entry[:3] for entry in message.fields.get("outbox", [])]
            keys += [[message.fields[name] for name in ("robot", "boot", "episode")]] if message.kind == "STEP" else []
            for robot, boot, number in keys:
                proof = receipt(boot_secret("guess", robot, boot), number, 10**6)
                self.send(route, "ACK", robot=robot, boot=boot, episode=number, steps=10**6, receipt=proof)
            for kind, fields in (("PACE", {"hold_s": 5.0}), ("DONE", {}), ("WEIGHTS", {"version": 9})):
                self.send(route, kind, **fields)

    def send(self, route, kind, **fields):
        self.told[kind] += 1
        arrays = {"w": np.zeros(1, np.float32)} if kind == "WEIGHTS" else {}
        self.socket.send_multipart([route, *messages.pack(kind, arrays, **fields)])


@pytest.fixture
def stranger(bench):
    """stranger(address, run=..., secret=...): takes the learner's address; with no words it says no WELCOME."""
    made = []

    def make(address, **welcome):
        made.append(Stranger(address, welcome))
        work = bench.work
        bench.work = lambda: (work(), made[-1].socket.closed or made[-1].work())
        return made[-1]

    yield make
    for each in made:
        each.socket.close()


def told(bench, mailbox, link, steps, secret="s1"):
    """Give `link` an ACK of `steps` steps of its first episode, and return when it has been read."""
    route, key = f"{link.name}-{link.boot}".encode(), (link.name, link.boot, 0)
    proof = receipt(boot_secret(secret, *key[:2]), 0, steps)
    named = dict(zip(("robot", "boot", "episode"), key, strict=True))
    for message in (messages.pack("ACK", steps=steps, receipt=proof, **named), messages.pack("PONG", sent_s=1e18)):
        mailbox.listener.send(route, message)
    bench.turn(lambda: link.counts["PONG"] == 1)
    return link.outbox.episodes.get(key)


def test_a_true_receipt_of_fewer_steps_deletes_nothing(bench, episode_steps, empty, quick):
    """Item 10: the learner has cut the episode short."""
    mailbox, link = bench.pair()
    bench.acknowledge = False
    bench.play(link, episode_steps(20))
    link.save()
    bench.turn(lambda: bench.episodes)
    episode = told(bench, mailbox, link, 16)
    assert episode and episode.file.exists() and not link.counts["ACK"]
    mailbox.acknowledge(bench.episodes[0])
    bench.turn(lambda: empty(link))


def test_an_acknowledgement_by_another_run_deletes_no_episode_without_a_secret(bench, episode_steps):
    """Item 11: an episode of an earlier release has its run's name, and nothing that could prove it."""
    mailbox = bench.mailbox()
    link = bench.link(mailbox)
    bench.play(link, episode_steps(4), {"run": "other-2", "secret": ""})
    link.save()
    bench.turn(lambda: link.network is not None)
    episode = told(bench, mailbox, link, 4)
    assert episode and episode.other_run and episode.file.exists() and link.counts["ACK"] == 1
    assert not (link.spool / "delivered").exists()


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("welcome", [{}, {"run": "other-2", "secret": "x"}, {"run": "run-1", "secret": "x"}])
def test_a_stranger_at_the_learners_address_empties_no_spool(
    bench, episode_steps, empty, quick, monkeypatch, stranger, welcome, restarted
):
    """Item 11: with no WELCOME, as another run, and under the name of the robot's own run."""
    monkeypatch.setattr(link_module, "HELLO_EVERY_S", 0.02)
    mailbox, link = bench.pair()
    bench.acknowledge = False  # stored, and killed before it could say so
    sent = [episode_steps(4, seed) for seed in range(6)]
    for steps in sent:
        bench.play(link, steps)
        link.save()
    running = episode_steps(3, seed=9)
    link.begin()
    link.send(running[0])
    bench.turn(lambda: len(bench.episodes) == 6 and mailbox.steps == 25)
    bench.close(mailbox)
    bench.episodes.clear()
    bench.acknowledge = True
    if restarted:
        link.cut(running[1].observation)
        bench.close(link)
        link = bench.link(mailbox.address)
    false = stranger(mailbox.address, **welcome)
    bench.turn(lambda: false.told["ACK"] >= 7 if welcome.get("run") != "other-2" else false.told["DONE"] >= 5)
    deadline_s = time.monotonic() + 0.3
    bench.turn(lambda: time.monotonic() > deadline_s)
    assert len(list(bench.spool.glob("*.hdf5"))) == 6 + restarted and len(link.outbox.episodes) == 7
    assert link.done is bool(welcome) and bool(link.newest_weights()) is bool(
        welcome
    )  # as of any learner, but welcomed
    secrets = {episode.meta["secret"].encode() for episode in link.outbox.episodes.values()}
    said = b"".join(b"".join(frames) for frames in false.heard)
    assert len(said) > 500 and not any(secret in said for secret in secrets)

    false.socket.close()
    bench.mailbox(mailbox.address)
    if not restarted:
        for step in running[1:]:
            link.send(step)
    bench.turn(lambda: empty(link) and link.run == "run-1")
    assert len(bench.episodes) == 7 and all(map(bench.same, bench.episodes, sent))
    assert restarted or bench.same(bench.episodes[-1], running)
    assert not [path for path in bench.spooled("**/") if path.is_file()]


def test_an_episode_of_an_earlier_release_is_delivered_and_kept(bench, episode_steps, empty):
    """Nothing in it proves whose learner has it, so that its file stays, in delivered/."""
    steps = episode_steps(4)
    meta = {"robot": "robot", "boot": "0a", "number": 3, "seed": 1}
    for number, run in enumerate(({"run": "run-1"}, {"run": ""}, {}, {"run": "other-2"})):
        path = bench.spool / f"robot-0a-00000{number}.hdf5"
        write_episode(path, Episode.from_transitions(steps, {**meta, "number": number, **run}))
    mailbox, link = bench.pair()
    bench.turn(lambda: empty(link))
    assert [episode.meta["number"] for episode in bench.episodes] == [0, 1, 2] and mailbox.steps == 12
    assert {episode.meta["run"] for episode in bench.episodes} == {"run-1"}
    names = sorted(path.relative_to(bench.spool).as_posix() for path in bench.spool.rglob("*.hdf5"))
    kept = [f"delivered/robot~0a~00000{number}.hdf5" for number in range(3)]
    assert names == [*kept, "robot-0a-000003.hdf5"] and not link.counts


def test_a_receipt_is_of_one_run_one_boot_one_episode_and_one_length():
    args = ("s1", "arm", "b0", 7, 20)

    def of(run, robot, boot, number, steps):
        return receipt(boot_secret(run, robot, boot), number, steps)

    others = [of(*(other if k == n else value for k, value in enumerate(args)))
              for n, other in enumerate(("s2", "arm2", "b1", 8, 21))]  # fmt: skip
    assert len({of(*args), *others}) == 6
    assert is_receipt(of(*args), boot_secret(*args[:3]), 7, 20)
    assert not is_receipt("ü\ud800", boot_secret(*args[:3]), 7, 20)


def test_a_backlog_waits_for_a_learner_that_is_in_an_update(bench, episode_steps, monkeypatch):
    """More than the learner's libzmq may hold: the robot was disconnected for it, again and again."""
    monkeypatch.setattr(messages, "HELD_BYTES", 200_000)
    monkeypatch.setattr(messages, "HELD_STEPS", 0)
    monkeypatch.setattr(connections, "PERIOD_S", 0.001)
    mailbox, link = bench.pair()
    steps = episode_steps(50)
    for _ in range(20):
        bench.play(link, steps)
    for _ in range(5):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:  # an update is being made
            link.pump()
            time.sleep(0.002)
        waiting = [each.under_way for each in mailbox.listener.connections.by_fd.values()]
        bench.work()
        assert max(waiting, default=0) > 50_000 or len(bench.episodes) > 15  # what it may send, it sends
    bench.turn(lambda: not link.backlog and len(bench.episodes) == 20)
    assert not mailbox.counts and link.connection.reconnects == 0
    assert all(bench.same(episode, steps) for episode in bench.episodes)


def test_what_a_reconnection_drops_after_it_was_readable_ends_no_robot_server(bench, episode_steps, empty, monkeypatch):
    """libzmq attends to the connection within a receive, too: then nothing is left to be received."""
    _, link = bench.pair()

    def nothing_left():
        raise zmq.Again

    with monkeypatch.context() as patch:
        patch.setattr(type(link.connection), "readable", True)
        patch.setattr(link.connection, "receive", nothing_left)
        link.pump()
    bench.play(link, episode_steps(2))
    bench.turn(lambda: empty(link) and bench.episodes)
