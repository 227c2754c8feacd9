"""Who gets a message into the operator's socket: those who have the key of its start, and nobody else."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import pytest
import zmq
from link_data import send_if_connected

from agent.cli import parse
from agent.spec import UserError
from envs.runtime import runtime_folder
from robot_server import control_address
from robot_server.control import Control
from robot_server.control_address import bound, find, key_path, read_key, running
from robot_server.control_client import Operator, question
from tools.common.process import free_port

STOP = question("event", event="stop")
NULL_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """A runtime folder of this test, with a short path."""
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)


@pytest.fixture(params=["ipc", "tcp"])
def control(request, folder):
    control = Control("tcp://127.0.0.1:*" if request.param == "tcp" else bound("auto", "arm"))
    yield control
    control.close()


def zmtp_1(*frames: bytes) -> bytes:
    """A message of a ZMTP/1.0 peer, which needs no greeting: what the body of a POST can be."""
    sizes = [(len(frame) + 1, frame) for frame in frames]
    more = [int(number < len(frames)) for number in range(1, len(frames) + 1)]
    long = lambda size: b"\xff" + size.to_bytes(8, "big")  # noqa: E731
    return b"".join(
        (bytes([size]) if size < 255 else long(size)) + bytes([flag]) + frame
        for (size, frame), flag in zip(sizes, more, strict=True)
    )


def raw(control, data: bytes) -> None:
    """Send `data` to the socket, as anything on this computer can."""
    path = control.address.removeprefix("ipc://")
    with socket.socket(socket.AF_INET if control.address.startswith("tcp") else socket.AF_UNIX) as stranger:
        host, _, port = control.address.removeprefix("tcp://").partition(":")
        stranger.connect((host, int(port)) if control.address.startswith("tcp") else path)
        stranger.settimeout(0.3)
        try:
            stranger.sendall(data)
            while stranger.recv(4096):
                pass
        except OSError:
            pass


def serve(control, seconds=0.3):
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        control.wait(0.01)


POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: 999999\r\n\r\n"
STRANGERS = {
    "ZMTP/1.0": zmtp_1(b"", STOP),
    "ZMTP/1.0, an identity": zmtp_1(b"me") + zmtp_1(STOP),
    "a POST": POST + zmtp_1(b"") + zmtp_1(STOP) * 50,
    "a POST with lengths that swallow its header": POST + b"\x00" * 300 + zmtp_1(STOP) * 50,
    "ZMTP/2.0": b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00" + b"\x00" + bytes([len(STOP)]) + STOP,
    "ZMTP/3.0 without a mechanism": NULL_GREETING
    + b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
    + b"\x00"
    + bytes([len(STOP)])
    + STOP,
    "empty frames": b"\x01\x01" * 1_000_000,
    "noise": os.urandom(100_000),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_nothing_of_a_stranger_gets_in(control, name):
    """Item 3: libzmq takes ZMTP/1.0 without a greeting, so the body of a POST by any web page was read as frames."""
    taken = []
    control.answer = lambda *question: taken.append(question)
    raw(control, STRANGERS[name])
    serve(control)
    assert not taken and not control.stopped and not control.faults.counts and control.read().events == ()


def test_a_peer_with_another_key_gets_nothing_in(control):
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.curve_serverkey = zmq.curve_keypair()[0]
        stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
        stranger.connect(control.address)
        send_if_connected(stranger, [STOP])
        serve(control)
        assert not control.stopped


def test_whoever_reads_the_key_gets_in_and_only_its_user_can_read_it(control):
    path = key_path(control.address)
    assert path.stat().st_mode & 0o777 == 0o600 and runtime_folder().stat().st_mode & 0o777 == 0o700
    operator = Operator(control.address)
    operator.send(STOP)
    serve(control)
    assert control.stopped
    operator.close()


def test_a_stop_is_heard_within_50_ms_while_strangers_send_empty_frames(control):
    """Item 4: 2 MB of them stalled the socket for 5 s."""
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, control.address])
    operator, late_s = Operator(control.address), []
    try:
        serve(control, 0.5)
        for _ in range(20):
            control.stopped, before_s = False, time.monotonic()
            operator.send(question("event", event="stop"))
            while not control.stopped and time.monotonic() < before_s + 5:
                control.serve()
                time.sleep(0.002)
            late_s.append(time.monotonic() - before_s)
    finally:
        flood.kill()
        flood.wait()
        operator.close()
    assert sorted(late_s)[10] < 0.05 and max(late_s) < 1.0, f"{late_s} s late"


FLOOD = """
import socket, sys
transport, _, rest = sys.argv[1].partition("://")
host, _, port = rest.partition(":")
while True:
    with socket.socket(socket.AF_INET if transport == "tcp" else socket.AF_UNIX) as stranger:
        try:
            stranger.connect((host, int(port)) if transport == "tcp" else rest)
            stranger.sendall(bytes([1, 1]) * 1000000)
        except OSError:
            pass
"""


def test_a_message_of_too_many_frames_is_dropped_and_serve_keeps_its_time(control):
    operator = Operator(control.address)
    frames = [b""] * 200_000
    operator.socket.send_multipart(frames)
    operator.send(STOP)
    longest_s, end_s = 0.0, time.monotonic() + 20
    while not control.stopped and time.monotonic() < end_s:
        began_s = time.thread_time()  # other work on this machine does not count
        control.serve()
        longest_s = max(longest_s, time.thread_time() - began_s)
    assert control.stopped and control.faults.counts == {"malformed": 1} and longest_s < 0.1
    operator.close()


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [100, 400, 1000, 3000])
@pytest.mark.parametrize(
    "field", ["ask", "event", "motion", "gripper", "place", "stop", "seen_s", "sent_s", "have", "id"]
)
def test_one_message_ends_nothing(control, field, levels):
    """Item 5: 1,000 levels overflowed in the text of the error."""
    ask = {"motion": "drive", "gripper": "drive", "place": "drive", "have": "frames"}.get(field, "event")
    fields = {"ask": ask, "event": "release", "motion": [0] * 6, "gripper": 0, "sent_s": time.monotonic()}
    packed = msgpack.packb({**fields, field: 0}).rpartition(b"\x00")[0] if field not in fields else None
    body = b"\x91" * levels + b"\x90"
    if packed is None:
        rest = {name: value for name, value in fields.items() if name != field}
        message = bytes([0x80 | len(fields)]) + msgpack.packb(rest)[1:] + msgpack.packb(field) + body
    else:
        message = packed + body
    operator = Operator(control.address)
    operator.send(message)
    operator.send(STOP)
    end_s = time.monotonic() + 10
    while not control.stopped and time.monotonic() < end_s:
        control.wait(0.01)
    assert control.stopped
    operator.close()


# Restarts, and several robots ----------------------------------------------------------------------------------------


def heard(operator, control, seconds=5.0):
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        operator.send(question("state"))
        control.wait(0.02)
        if operator.socket.poll(20):
            operator.socket.recv_multipart()
            return True
    return False


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_tools_survive_a_restart_and_what_was_meant_for_the_one_before_does_not_arrive(transport):
    first = Control(bound("auto", "arm") if transport == "ipc" else "tcp://127.0.0.1:*")
    address, key = first.address, read_key(key_path(first.address))
    operator = Operator(address)
    assert heard(operator, first)
    first.close()
    assert not read_key(key_path(address))
    operator.send(STOP)
    time.sleep(0.05)
    second = Control(address)
    assert read_key(key_path(address)) != key
    assert heard(operator, second) and not second.stopped
    operator.close()
    second.close()


def test_a_tool_may_be_there_before_its_robot_server():
    operator = Operator(bound("auto", "arm"))
    operator.send(STOP)
    control = Control(operator.address)
    assert heard(operator, control)
    operator.close()
    control.close()


START = """
import sys
from robot_server.control import Control
control = Control(sys.argv[1])
print("there", flush=True)
while True:
    control.wait(0.01)
"""


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_tools_find_the_robot_server_that_follows_one_that_was_killed(folder, transport):
    environment = {**os.environ, "TMPDIR": str(folder)}
    address = bound("auto", "arm") if transport == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    operator = Operator(address)
    for _ in range(3):
        server = subprocess.Popen([sys.executable, "-c", START, address], stdout=subprocess.PIPE, env=environment)
        assert server.stdout.readline() == b"there\n"
        end_s = time.monotonic() + 20
        while not operator.ask("state", timeout_s=0.2):
            assert time.monotonic() < end_s
        assert operator.ask("event", event="stop")["stopped"] and operator.ask("state")["state"]["stop"] == 1
        server.kill()
        server.wait()
        operator.send(STOP)
        assert not operator.ask("state", timeout_s=0.05)
    operator.close()


def test_a_running_robot_servers_socket_is_not_taken_and_that_of_a_killed_one_is(folder):
    address = bound("auto", "arm")
    environment = {**os.environ, "TMPDIR": str(folder)}
    other = subprocess.Popen([sys.executable, "-c", START, address], stdout=subprocess.PIPE, env=environment)
    assert other.stdout.readline() == b"there\n"
    inode = Path(address.removeprefix("ipc://")).stat().st_ino
    with pytest.raises(UserError, match="another robot server runs there; give this one another --robot-name"):
        Control(address)
    assert Path(address.removeprefix("ipc://")).stat().st_ino == inode and running() == ["arm"]
    other.kill()
    other.wait()
    assert Path(address.removeprefix("ipc://")).is_socket() and running() == []
    control = Control(address)
    assert running() == ["arm"]
    control.close()
    assert running() == [] and list(runtime_folder().iterdir()) == []


def found(*words):
    return find(parse(list(words), "", ["robot"]))


def test_a_tool_finds_the_only_robot_and_asks_which_of_several():
    assert found() == bound("auto", "robot")  # none yet
    one = Control(bound("auto", "arm-1"))
    assert found() == one.address
    two = Control(bound("auto", "robot"))
    with pytest.raises(UserError, match=r"several robot servers run here \(arm-1, robot\): .*--robot-name arm-1"):
        found()
    assert found("--robot-name", "robot") == two.address and found("--robot-name", "arm-1") == one.address
    assert found("--control", "tcp://127.0.0.1:5556") == "tcp://127.0.0.1:5556"
    for each in (one, two):
        each.close()


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("tcp://*:0", "for this computer"),
        ("tcp://0.0.0.0:5556", "for this computer"),
        ("tcp://192.168.1.4:5556", "for this computer"),
        ("ipc://@everybody", "an address such as"),
        ("ipc://*", "an address such as"),
        ("ipc://", "an address such as"),
        ("inproc://here", "an address such as"),
        ("ipc:///tmp/" + "x" * 103, "at most 107 bytes, this one 108"),
        ("ipc:///no/such/folder/a.sock", "no such file"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_one_line(address, what):
    with pytest.raises(UserError, match=what) as refused:
        Control(address)
    assert "\n" not in str(refused.value)


def test_what_is_no_socket_or_key_is_not_replaced(folder):
    (folder / "notes.sock").write_text("mine")
    with pytest.raises(UserError, match="already exists and is not a socket"):
        Control(f"ipc://{folder}/notes.sock")
    assert (folder / "notes.sock").read_text() == "mine"
    for name, make in (
        ("text", lambda path: path.write_text("mine, and longer")),
        ("link", lambda path: path.symlink_to(folder / "notes.sock")),
        ("hard", lambda path: os.link(folder / "empty", path)),
    ):
        (folder / "empty").write_text("")
        make(folder / f"{name}.sock.key")
        with pytest.raises(UserError, match=f"{name}.sock.key"):
            Control(f"ipc://{folder}/{name}.sock")
    assert (folder / "notes.sock").read_text() == "mine"


def test_somebody_elses_key_is_not_believed(folder, monkeypatch):
    (folder / "a.sock.key").write_bytes(zmq.curve_keypair()[0])
    assert read_key(folder / "a.sock.key")
    monkeypatch.setattr(control_address.os, "getuid", lambda: os.geteuid() + 1)
    assert not read_key(folder / "a.sock.key")


def test_the_longest_path_of_a_socket(folder):
    address = f"ipc://{folder}/" + "x" * (107 - len(str(folder)) - 1)
    control = Control(address)
    operator = Operator(address)
    assert heard(operator, control)
    operator.close()
    control.close()


def test_a_key_file_that_others_could_read_is_closed_to_them_before_a_key_is_in_it(tmp_path):
    path = tmp_path / "a.sock.key"
    path.touch(0o644)
    path.chmod(0o644)
    control = Control(f"ipc://{tmp_path}/a.sock")
    assert path.stat().st_mode & 0o777 == 0o600 and read_key(path)
    control.close()
