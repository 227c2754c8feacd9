"""CURVE on the real sockets: who is known gets through, everybody else neither in nor out, and nobody reads along."""

import os
import re
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import zmq
import zmq.auth
from link_data import NETWORK, PULL, SPEC, send_if_connected, steps_of

from agent.env_record import EnvRecord
from agent.mailbox.mailbox import Mailbox
from agent.spec import UserError
from agent.wire import keys, messages
from robot_server.link import Link
from tools.keys import main

WEIGHTS = {"w": np.frombuffer(b"these weights are worth a week of robot time" * 20, np.uint8)}


@pytest.fixture
def folders(tmp_path):
    """(the learner's keys, those of the robot "robot"), carried as the tool says."""
    box, arm = tmp_path / "box", tmp_path / "arm"
    main(["--out", str(box)])
    main(["--out", str(arm), "--robot", "robot"])
    shutil.copy(box / "learner.key", arm)
    shutil.copy(arm / "robot.key", box / "authorized")
    return box, arm


class Tap:
    """A TCP proxy that keeps every byte, as a colleague with a packet sniffer would."""

    def __init__(self, target):
        self.heard, self._target = bytearray(), target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", int(self._target.rpartition(":")[2])))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                self.heard += data
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_passes_can_be_read_by_the_two_ends_only(bench, folders, episode_steps, empty, encrypted):
    box, arm = folders if encrypted else ("", "")
    mailbox = bench.mailbox(keys=box)
    tap = Tap(mailbox.address)
    try:
        link = Link(tap.address, SPEC, "robot", EnvRecord("fake"), bench.spool, keys=arm)
        bench.links.append(link)
        mailbox.offer(1, WEIGHTS)
        steps = episode_steps(4)
        bench.play(link, steps)
        bench.turn(lambda: empty(link) and link.has_weights(0))
    finally:
        tap.close()
    assert bench.same(bench.episodes[0], steps)
    np.testing.assert_array_equal(link.newest_weights()[1]["w"], WEIGHTS["w"])
    secrets = [WEIGHTS["w"].tobytes(), *(step.observation["front"].tobytes() for step in steps), b"front", b"robot"]
    assert [secret in tap.heard for secret in secrets] == [not encrypted] * len(secrets)


@pytest.mark.parametrize("stranger", ["no key", "not authorized", "the learner's key is another"])
def test_a_stranger_gets_nothing_in_and_nothing_out(bench, folders, tmp_path, episode_steps, empty, stranger):
    box, arm = folders
    mailbox = bench.mailbox(keys=box)
    other = tmp_path / "other"
    main(["--out", str(other), "--robot", "robot"])
    (shutil.copy if stranger == "not authorized" else zmq.auth.create_certificates)(
        *((box / "learner.key", other) if stranger == "not authorized" else (other, "learner"))
    )
    if stranger != "not authorized":
        shutil.copy(arm / "robot.key_secret", other)
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.linger = 0
    monitor = raw.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    if stranger != "no key":
        keys.present(raw, other, "robot")
    raw.connect(mailbox.address)
    hello = {"robot": "spy", "boot": "b", "spec": SPEC.to_dict(), "env": {"name": "fake"}, "outbox": []}
    send_if_connected(raw, messages.pack("HELLO", **hello))
    for number, step in enumerate(steps_of(3)):
        send_if_connected(raw, messages.pack_step(("spy", "b", 0), number, step))
    link = Link(mailbox.address, SPEC, "robot", EnvRecord("fake"), bench.spool, keys=arm)
    bench.links.append(link)
    mailbox.offer(1, WEIGHTS)
    steps = episode_steps(4)
    bench.play(link, steps)
    bench.turn(lambda: empty(link))  # beside it, who is known is served
    until = time.monotonic() + 0.5
    bench.turn(lambda: time.monotonic() > until)
    assert [robot.name for robot in mailbox.robots] == ["robot"] and mailbox.steps == 4 and not mailbox.counts
    assert not raw.poll(0) and not monitor.poll(0)
    raw.disable_monitor()
    raw.close()
    monitor.close()
    context.term()


def add_robot(folders, name):
    """Keys of another robot, carried while the learner runs."""
    box, arm = folders
    main(["--out", str(arm), "--robot", name])
    shutil.copy(arm / f"{name}.key", box / "authorized")


def test_a_robot_is_who_its_key_says(bench, folders, episode_steps, tmp_path):
    """A robot with a good key takes another's name, speaks of another's episodes, and takes over its connection."""
    box, arm = folders
    mailbox = bench.mailbox(keys=box)
    add_robot(folders, "arm2")
    good = bench.link(mailbox, keys=arm)
    bench.turn(lambda: good.network is not None)
    os.replace(arm / "robot.key_secret", tmp_path / "kept")
    shutil.copy(arm / "arm2.key_secret", arm / "robot.key_secret")
    with pytest.raises(UserError, match=r"its key is that of robot 'arm2', its robot\.robot_name is 'robot'"):
        impostor = bench.link(mailbox, keys=arm, spool=tmp_path / "other")
        bench.turn(lambda: impostor.network is not None)
    bench.close(impostor)

    bench.play(good, episode_steps(4)[:2])
    bench.turn(lambda: mailbox.steps == 2)
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.linger, raw.routing_id = 0, mailbox.robots[0].route
    keys.present(raw, arm, "arm2")
    raw.connect(mailbox.address)
    forged = episode_steps(4, seed=9)
    raw.send_multipart(messages.pack_step(("robot", good.boot, 0), 2, forged[2]))
    raw.send_multipart(messages.pack("BYE"))
    bench.turn(lambda: mailbox.counts["STEP"] == 1 and mailbox.counts["BYE"] == 1)
    assert mailbox.steps == 2 and [robot.name for robot in mailbox.robots] == ["robot"]
    raw.close()
    context.term()


@pytest.mark.parametrize("what", ["steps", "report"])
def test_a_robot_speaks_of_its_own_episodes_only(bench, episode_steps, what):
    mailbox, link = bench.pair()
    other = bench.link(mailbox, name="arm2", spool=bench.spool.parent / "other")
    bench.turn(lambda: len(mailbox.robots) == 2)
    bench.play(link, episode_steps(4)[:2])
    bench.turn(lambda: mailbox.steps == 2)
    key = ("robot", link.boot, 0)
    if what == "steps":
        other.connection.send(messages.pack_step(key, 2, episode_steps(4)[2]))
    else:
        other.connection.send(messages.pack("PULL", **{**PULL, "outbox": [[*key, 3]]}))
    bench.turn(lambda: mailbox.counts)
    assert mailbox.steps == 2


def test_keys_come_and_go_while_the_learner_runs(bench, folders, caplog):
    box, arm = folders
    mailbox = bench.mailbox(keys=box)
    main(["--out", str(arm), "--robot", "arm2"])
    link = bench.link(mailbox, name="arm2", keys=arm)
    bench.turn(lambda: "does not know the key of 'arm2'" in link.connection_error)
    assert link.network is None
    shutil.copy(arm / "arm2.key", box / "authorized")
    bench.turn(lambda: link.network is not None)  # the robot server that was waiting
    assert link.connection_error == ""
    bench.close(link)
    (box / "authorized" / "arm2.key").unlink()
    (box / "authorized" / "arm3.key").write_text("not a key")  # one bad file locks nobody else out
    late = bench.link(mailbox, name="arm2", keys=arm)
    known = bench.link(mailbox, keys=arm)
    bench.turn(lambda: known.network is not None)
    assert late.network is None and "arm3.key: not a public key" in caplog.text


def test_secret_keys_are_for_their_owner_only(folders, capsys):
    box, arm = folders
    for path in (box / "learner.key_secret", arm / "robot.key_secret"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert box.stat().st_mode & 0o777 == 0o700
    for path in (box / "learner.key", arm / "robot.key"):
        assert b"secret" not in path.read_bytes().split(b"curve")[1]
    with pytest.raises(UserError, match=r"learner\.key.*already exists"):
        main(["--out", str(box)])
    for name in ("a/b", "learner", ""):
        with pytest.raises(UserError, match="--robot"):
            main(["--out", str(arm), "--robot", name])


def refused(box, arm):
    """What Mailbox or Link say of their keys; nothing when they take them."""
    for make in (
        lambda: Mailbox("tcp://127.0.0.1:0", SPEC, NETWORK, keys=box),
        lambda: Link("tcp://127.0.0.1:1", SPEC, "robot", EnvRecord("fake"), arm / "spool", keys=arm),
    ):
        try:
            end = make()
        except UserError as error:
            return str(error)
        end.close(*([0] if isinstance(end, Link) else []))
    return ""


def test_keys_that_cannot_be_right_are_named(folders, tmp_path):
    box, arm = folders
    assert refused(box, arm) == ""
    for folder, name in ((box, "learner.key_secret"), (arm, "robot.key_secret"), (arm, "learner.key")):
        path, away = folder / name, tmp_path / "away"
        os.rename(path, away)
        assert f"{path}: no such key" in refused(box, arm)
        path.write_text("hello")
        path.chmod(0o600)
        assert f"{path}: not a " in refused(box, arm)
        path.write_text(re.sub('(-key = ")[^"]*', r"\g<1>" + 40 * "~", away.read_text()))  # no Z85: it hung the learner
        assert f"{path}: not a " in refused(box, arm)
        os.replace(away, path)
    (box / "learner.key_secret").chmod(0o640)
    assert "others may read" in refused(box, arm)
    (box / "learner.key_secret").chmod(0o600)
    (box / "authorized" / "robot.key").write_text("metadata\n")
    assert "authorized/robot.key: not a public key" in refused(box, arm)
    (box / "authorized" / "robot.key").unlink()
    assert "no robot may connect" in refused(box, arm)


def test_an_error_in_the_authenticator_keeps_no_later_peer_out(bench, monkeypatch):
    mailbox, asked = bench.mailbox(), []

    def refuses(address):
        asked.append(address)
        assert len(asked) > 1, "an error that nobody foresaw"
        return False

    monkeypatch.setattr(mailbox.listener._authenticator, "_refuses", refuses)
    bench.link(mailbox)
    bench.turn(lambda: asked)
    later = bench.link(mailbox, "later", spool=bench.spool / "later")
    bench.turn(lambda: later.network is not None)


def test_with_keys_an_address_beyond_this_machine_is_allowed(folders):
    Mailbox("tcp://0.0.0.0:0", SPEC, NETWORK, keys=folders[0]).close()
