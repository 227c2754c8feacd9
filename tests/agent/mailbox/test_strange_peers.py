"""Peers that are not ours at the learner's socket: web pages, old protocols, idle connections."""

import socket
import time

import pytest
import test_mailbox
from link_data import SPEC, steps_of
from test_mailbox import drain_until

from agent.wire import messages

make_mailbox, mailbox = test_mailbox.make_mailbox, test_mailbox.mailbox
make_robot, robot = test_mailbox.make_robot, test_mailbox.robot


def connection(mailbox):
    host, port = mailbox.address.removeprefix("tcp://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30.0)


def zmtp1(*sent_messages, identity=b""):
    """The bytes of ZMTP 1.0: its identity, then the frames of `sent_messages`, whose lengths count the flags."""
    sent = bytes([1 + len(identity), 0]) + identity
    for frames in sent_messages:
        for at, frame in enumerate(frames):
            sent += b"\xff" + (1 + len(frame)).to_bytes(8, "big") + bytes([at < len(frames) - 1]) + bytes(frame)
    return sent


def http(body):
    """A POST as a web page of another origin can send it without asking; its head is taken for frames, too."""
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % (
        9999 + len(body)
    )
    end = 0
    while end < len(head):
        end += 1 + head[end]
    return head + bytes(end - len(head)) + b"\x01\x00" + body


def ended(stranger, mailbox, seconds=10.0):
    """Whether the learner hangs up within `seconds`, while it takes in what there is."""
    end = time.monotonic() + seconds
    stranger.settimeout(0.05)
    while time.monotonic() < end:
        mailbox.finished += mailbox.drain()
        try:
            if not stranger.recv(1000):
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
    return False


def spoken():
    """What a robot that joins and sends a whole episode would say."""
    key = ("page", "b0", 0)
    hello = messages.pack("HELLO", robot="page", boot="b0", spec=SPEC.to_dict(), env={}, outbox=[])
    return [hello, *(messages.pack_step(key, at, step) for at, step in enumerate(steps_of(3)))]


@pytest.mark.parametrize("disguise", [bytes, http], ids=["ZMTP/1.0", "ZMTP/1.0 in an HTTP POST"])
def test_nothing_of_a_peer_without_a_greeting_gets_in(mailbox, robot, disguise):
    identity = b"" if disguise is http else b"raw-b0"
    frames = zmtp1(*spoken(), identity=identity)
    with connection(mailbox) as stranger:
        stranger.sendall(disguise(frames if disguise is bytes else frames[2:]))  # the head is its identity
        hung_up = ended(stranger, mailbox, 5.0)
    assert not mailbox.finished and not mailbox.counts and mailbox.steps == 0
    assert [each.name for each in mailbox.known] == ["raw"] and hung_up
    for at, step in enumerate(steps_of(3)):  # a peer of today's protocol is heard
        robot.step(0, at, step)
    drain_until(mailbox, lambda: mailbox.finished)


@pytest.mark.parametrize("revision", [b"\x01", b"\x00"])
def test_an_old_revision_in_a_greeting_is_refused(mailbox, revision):
    with connection(mailbox) as stranger:
        stranger.sendall(
            b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f" + revision + b"\x05\x00\x00\x01\x03raw\x00\x05hello"
        )
        assert ended(stranger, mailbox, 5.0)
    assert not mailbox.counts


def test_a_connection_that_says_nothing_ends_after_seconds(mailbox):
    with connection(mailbox) as stranger:
        assert ended(stranger, mailbox, 6.0)
