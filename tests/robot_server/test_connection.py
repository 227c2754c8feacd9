"""Why there is no connection, found by having none in every way there is."""

import shutil
import socket
import threading

import pytest

from agent.mailbox.connections import Connections
from agent.spec import UserError
from agent.wire import messages
from envs.clock import Clock
from tools.keys import main


@pytest.fixture(autouse=True)
def keys(tmp_path, capsys):
    """Folders of keys: box and arm know each other; stranger's is not known; astray knows another learner."""
    for name, robot in (("box", False), ("elsewhere", False), ("arm", True), ("stranger", True)):
        main(["--out", str(tmp_path / name), *(["--robot", "robot"] if robot else [])])
    shutil.copytree(tmp_path / "arm", tmp_path / "astray")
    shutil.copy(tmp_path / "arm" / "robot.key", tmp_path / "box" / "authorized")
    for name, learner in (("arm", "box"), ("stranger", "box"), ("astray", "elsewhere")):
        shutil.copy(tmp_path / learner / "learner.key", tmp_path / name)


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [
        (None, "", "nothing listens at tcp://127"),
        ("box", "", "its learner requires keys (--keys)"),
        ("", "arm", "keys were given (--keys), its learner has none"),
        ("box", "astray", "learner.key is not its key"),
        ("box", "stranger", "does not know the key of 'robot': it wants robot.key in keys/authorized/"),
    ],
)
def test_the_trouble_is_named(bench, tmp_path, theirs, ours, text):
    mailbox = "tcp://127.0.0.1:9" if theirs is None else bench.mailbox(keys=theirs and tmp_path / theirs)
    link = bench.link(mailbox, keys=ours and tmp_path / ours)
    bench.turn(lambda: text in link.connection_error)
    assert link.network is None and link.connection.reconnects == 0


def test_a_refused_address_is_not_asked_for_keys_that_its_learner_does_not_use(bench, monkeypatch):
    monkeypatch.setattr(Connections, "refuses", lambda self, address: True)
    link = bench.link(bench.mailbox())
    bench.turn(lambda: "refuses this address for some seconds" in link.connection_error)
    assert "key" not in link.connection_error


def test_an_unknown_host_name_is_called_that(bench):
    link = bench.link("tcp://no-such-box.invalid:5555", insecure=True)
    bench.turn(lambda: "unknown host name 'no-such-box.invalid'" in link.connection_error)
    there = bench.link("tcp://localhost:9")
    bench.turn(lambda: "nothing listens at tcp://localhost:9" in there.connection_error)


@pytest.mark.parametrize("address", ["box:5555", "127.0.0.1:5555"])
def test_an_address_without_its_transport_says_what_is_missing(bench, address):
    for end in (bench.link, bench.mailbox):
        with pytest.raises(UserError, match=f"an address begins with its transport: tcp://{address}"):
            end(address, insecure=True)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 5])
def test_something_else_listens_there(bench, greeting):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            held = []  # say it, and nothing more
            try:
                while True:
                    held.append(server.accept()[0])
                    held[-1].sendall(greeting)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        link = bench.link(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        bench.turn(lambda: "does not answer as a learner does" in link.connection_error)


def test_a_connection_that_is_lost_and_made_anew(bench):
    mailbox, link = bench.pair()
    assert link.connection_error == "" and link.connection.reconnects == 0
    bench.close(mailbox)
    bench.turn(lambda: "nothing listens" in link.connection_error)
    bench.mailbox(mailbox.address)
    bench.turn(lambda: link.connection.reconnects == 1 and link.connection_error == "")


def test_the_learner_knows_what_the_robot_holds(bench, quick, episode_steps):
    mailbox, link = bench.pair()
    bench.acknowledge = False
    bench.play(link, episode_steps(4))
    link.save()
    link.begin()
    link.send(episode_steps(3)[0])
    bench.turn(lambda: mailbox.robots[0].unacknowledged == 5 and mailbox.robots[0].round_trip_s > 0)
    (robot,) = mailbox.robots
    assert (robot.spooled, robot.reconnects, robot.steps) == (1, 0, 5)


def test_the_learner_knows_how_well_the_robot_keeps_its_deadlines(bench, quick):
    mailbox, link = bench.pair()
    assert mailbox.robots[0].steps_timed == 0
    link.clock = Clock(10)
    link.clock.steps, link.clock.misses = 40, 2
    link.clock.late_s.extend([0.001] * 30 + [0.25])
    bench.turn(lambda: mailbox.robots[0].steps_timed == 40)
    (robot,) = mailbox.robots
    assert (robot.deadlines_missed, robot.late_p50_s, robot.late_p99_s) == (2, 0.001, 0.001)


def test_a_learner_with_nothing_to_say_is_not_away(bench, quick):
    mailbox, link = bench.pair()
    heard = [link.heard_s]
    bench.turn(lambda: (heard.append(link.heard_s), len(set(heard)) > 3)[1])
    assert set(mailbox.counts) == set(link.counts) == set()
    assert 0 < link.sender.round_trip_s < 30


def test_a_pong_from_the_future_says_nothing(bench):
    mailbox, link = bench.pair()
    (robot,) = mailbox.robots
    for sent_s in (1e18, float("nan"), float("-inf")):
        mailbox.listener.send(robot.route, messages.pack("PONG", sent_s=sent_s))
    bench.turn(lambda: link.counts["PONG"] == 3)
    assert link.sender.round_trip_s < 30
