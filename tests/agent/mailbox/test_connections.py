"""What one connection may bring, and how many there may be."""

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_mailbox
from link_data import SPEC, steps_of
from test_mailbox import drain_until
from test_strange_peers import connection, ended

from agent.env_record import EnvRecord
from agent.mailbox import connections
from agent.spec import Episode
from agent.wire import messages
from robot_server.link import Link
from tools import keys as keys_tool
from tools.stress.fuzz_data import resident

make_mailbox, mailbox = test_mailbox.make_mailbox, test_mailbox.mailbox
make_robot, robot = test_mailbox.make_robot, test_mailbox.robot

MORE, LAST = b"\x01\x00", b"\x00\x00"  # empty frames of ZMTP 3


def greeted(mailbox, identity=b""):
    """A connection that has shaken hands (ZMTP 3, NULL) as a DEALER."""
    stranger = connection(mailbox)
    stranger.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY"
    for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", identity)):
        ready += bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
    stranger.sendall(b"\x04" + bytes([len(ready)]) + ready)
    received = b""
    while b"Socket-Type" not in received:
        if not (more := stranger.recv(1000)):
            raise ConnectionError
        received += more
    return stranger


def flood(stranger, data):
    """Send `data` over and over until the other end hangs up; how many bytes went."""
    sent, end = 0, time.monotonic() + 20.0
    stranger.settimeout(1.0)
    try:
        while time.monotonic() < end and sent < 40_000_000:
            sent += stranger.send(data)
    except OSError:
        pass
    return sent


def good(mailbox, robot, number=0):
    before = len(mailbox.finished)
    for at, step in enumerate(steps_of(5)):
        robot.step(number, at, step)
    drain_until(mailbox, lambda: len(mailbox.finished) > before, 10.0)


def test_a_message_that_never_ends_ends_its_connection_between_two_drains(mailbox, robot):
    before = resident()
    with greeted(mailbox) as stranger:
        sent = flood(stranger, MORE * 10_000)  # nobody drains: an update is being made
        assert sent < 30_000_000 and resident() - before < 200e6
        assert ended(stranger, mailbox, 2.0)
    assert mailbox.counts["disconnected"] == 1
    good(mailbox, robot)


def test_a_trickle_of_frames_that_never_ends_is_cut_although_it_is_slow(mailbox, robot, monkeypatch):
    monkeypatch.setattr(connections, "STRANGER_BYTES", 3000)
    with greeted(mailbox) as stranger:
        end = time.monotonic() + 10.0
        while time.monotonic() < end and not mailbox.counts["disconnected"]:
            try:
                stranger.sendall(MORE * 100)
            except OSError:
                break
            mailbox.wait(0.02)
            mailbox.drain()
    assert mailbox.counts["disconnected"] == 1
    good(mailbox, robot)


def test_a_robot_that_is_known_may_not_begin_what_never_ends_either(mailbox, make_robot, monkeypatch):
    mailbox.listener.connections.limits.message = 100_000
    hello = messages.pack("HELLO", robot="raw", boot="b0", spec=SPEC.to_dict(), env={}, outbox=[])[0]
    with greeted(mailbox, b"raw-b0") as stranger:
        stranger.sendall(b"\x02" + len(hello).to_bytes(8, "big") + hello)
        drain_until(mailbox, lambda: mailbox.known)
        for _ in range(100):
            stranger.sendall(MORE * 1000)
        drain_until(mailbox, lambda: mailbox.counts["disconnected"], 10.0)


@pytest.mark.parametrize("frames", [4, 300, 200_000])
def test_a_message_of_too_many_frames_is_dropped_and_its_sender_disconnected(mailbox, robot, frames):
    with greeted(mailbox) as stranger:
        stranger.sendall(MORE * (frames - 1) + LAST)
        assert ended(stranger, mailbox, 10.0)
    slowest = 0.0
    while mailbox.listener.skipping:
        began = time.monotonic()
        mailbox.drain()
        slowest = max(slowest, time.monotonic() - began)
    assert mailbox.counts["disconnected"] == 1 and slowest < 1.0
    good(mailbox, robot)


def test_what_a_robot_has_under_way_between_two_drains_is_bounded_and_nothing_is_lost(mailbox, tmp_path):
    link = Link(mailbox.address, SPEC, "robot", EnvRecord("fake"), tmp_path)
    drain_until(mailbox, lambda: link.connect(0.01) and link.pump() is None and mailbox.known)
    mailbox.listener.connections.limits.robot = 200_000
    steps, end = steps_of(2000), time.monotonic() + 20.0
    link.begin()
    for step in steps:
        link.send(step)
    link.wait(0.1)
    mailbox.drain()  # it is a robot
    while not mailbox.counts["disconnected"]:  # while an update is being made
        link.wait(0.01)
        assert time.monotonic() < end
    drain_until(mailbox, lambda: link.pump() or mailbox.finished)
    assert mailbox.finished[0].equals(Episode.from_transitions(steps, mailbox.finished[0].meta))
    link.close(0.0)


def test_an_honest_robot_that_sends_much_for_long_is_never_disconnected(mailbox, robot, monkeypatch):
    monkeypatch.setattr(connections, "PERIOD_S", 0.001)
    mailbox.listener.connections.limits.message = 3 * messages.largest_step(SPEC)
    mailbox.listener.connections.limits.robot = 4_000_000
    for number in range(100):
        good(mailbox, robot, number)
    assert not mailbox.counts and mailbox.listener.connections.by_fd
    watched = mailbox.listener.connections.by_fd
    drain_until(
        mailbox, lambda: all(-10_000 < each.under_way < 4000 for each in watched.values())
    )  # once it has looked
    assert all(each.robot for each in watched.values())


def test_an_address_that_was_disconnected_again_and_again_is_not_let_in_for_a_while(mailbox, robot, monkeypatch):
    monkeypatch.setattr(connections, "STRIKES_S", 2.0)
    for _ in range(connections.STRIKES):
        with greeted(mailbox) as stranger:
            stranger.sendall(MORE * 5 + LAST)
            assert ended(stranger, mailbox, 5.0)
    with pytest.raises(OSError), greeted(mailbox):
        pass
    good(mailbox, robot)  # it was there before
    end = time.monotonic() + 10.0
    while mailbox.listener.connections.refuses("127.0.0.1"):
        assert time.monotonic() < end
        time.sleep(0.05)
    greeted(mailbox).close()


def test_with_keys_an_address_with_strangers_keeps_no_robot_out(tmp_path, make_mailbox):
    """Their keys tell robots from strangers, who do not get in in the first place."""
    for folder, flags in ((tmp_path, []), (tmp_path, ["--robot", "robot"])):
        keys_tool.main(["--out", str(folder), *flags])
    (tmp_path / "authorized").mkdir(exist_ok=True)
    (tmp_path / "robot.key").rename(tmp_path / "authorized" / "robot.key")
    mailbox = make_mailbox(keys=tmp_path)
    for _ in range(connections.STRIKES):
        mailbox.listener.connections.strike("127.0.0.1")
    link = Link(mailbox.address, SPEC, "robot", EnvRecord(), tmp_path / "spool", keys=tmp_path)
    drain_until(mailbox, lambda: link.pump() or link.network is not None, 10.0)
    link.close(0.0)


def test_a_robot_that_sends_all_it_has_after_its_welcome_is_no_stranger(tmp_path, mailbox, monkeypatch):
    """Its first bytes came before the learner had read anything but its HELLO, and it was disconnected for them."""
    monkeypatch.setattr(connections, "STRANGER_BYTES", 3000)
    link = Link(mailbox.address, SPEC, "robot", EnvRecord(), tmp_path)
    link.begin()
    for step in steps_of(100):
        link.send(step)
    drain_until(mailbox, lambda: link.pump() or mailbox.robots)  # HELLO only
    end = time.monotonic() + 0.5
    while time.monotonic() < end:  # nobody drains: an update is being made
        link.pump()
        time.sleep(0.01)
    assert not mailbox.counts
    drain_until(mailbox, lambda: link.pump() or mailbox.finished)
    assert link.connection.reconnects == 0
    link.close(0.0)


def test_the_oldest_connections_that_are_no_robots_give_way(mailbox, robot, monkeypatch):
    monkeypatch.setattr(connections, "PER_ADDRESS", 10)
    idle = [connection(mailbox) for _ in range(12)]
    assert ended(idle[0], mailbox, 2.0) and not ended(idle[-1], mailbox, 0.2)
    good(mailbox, robot)
    for each in idle:
        each.close()


CHILD = """
import resource, sys, time
from pathlib import Path
soft, hard = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from link_data import NETWORK, SPEC
from agent.mailbox.mailbox import Mailbox
from agent.data.episode_store import Store
mailbox, store = Mailbox("tcp://127.0.0.1:0", SPEC, NETWORK), Store(Path(sys.argv[1]), lambda e: None, lambda k: None)
print(mailbox.address, flush=True)
end = time.monotonic() + 60
while not store.episodes and time.monotonic() < end:
    mailbox.wait(0.05)
    for episode in mailbox.drain():
        store.take(episode)
        mailbox.acknowledge(episode)
print(store.episodes, resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
while time.monotonic() < end and sys.stdin.readable() and not mailbox.wait(0.05):
    pass
mailbox.drain()
"""


@pytest.mark.parametrize(("soft", "hard"), [(1024, 4096), (1024, 1024)])
def test_a_learner_writes_episodes_beside_1105_idle_connections(tmp_path, soft, hard):
    mine, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2000:
        pytest.skip("this test needs 2000 descriptors itself")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(mine, 2000), most))
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[2]), str(here.parents[1])])
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(soft), str(hard)]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        address = child.stdout.readline().strip()
        raw = test_mailbox.RawRobot(address)
        idle = []
        try:
            host, port = address.removeprefix("tcp://").rsplit(":", 1)
            for _ in range(1105):
                idle.append(socket.create_connection((host, int(port)), timeout=30.0))
            for _ in range(20):  # as a robot does, once a second until it has an answer
                raw.send("HELLO", robot="raw", boot="b0", spec=SPEC.to_dict(), env={}, outbox=[])
                if raw.socket.poll(1000):
                    break
            for at, step in enumerate(steps_of(3)):
                raw.step(0, at, step)
            assert child.stdout.readline().split() == ["1", str(hard)]
        finally:
            child.kill()
            raw.socket.close()
            for each in idle:
                each.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (mine, most))
