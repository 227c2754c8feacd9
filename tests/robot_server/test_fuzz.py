"""What strangers in the learner's place send to a robot: it acts on, and loses nothing."""

import contextlib
import time

import zmq
from link_data import NETWORK, SPEC

from agent.wire import messages
from robot_server.link import Link
from tools.stress.fuzz_robot import by_design
from tools.stress.hostile_messages import Noise


@contextlib.contextmanager
def false_learner(bench):
    """A ROUTER in the place of a learner, the link that has said HELLO to it, and the route to that."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        link: Link = bench.link(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        bench.turn(lambda: router.poll(0))
        yield router, link, router.recv_multipart()[0]


def test_a_robot_survives_thousands_of_strange_messages(bench, episode_steps, empty):
    steps = episode_steps(30)
    with false_learner(bench) as (router, link, route):
        noise = (frames for frames in Noise(2, SPEC, ["robot"]).learner() if not by_design(frames, NETWORK))
        link.begin({"seed": 1})
        for step in steps:
            link.send(step)
            for _ in range(100):
                router.send_multipart([route, *next(noise)])
            while router.poll(0):
                router.recv_multipart()
            link.pump()
        bench.turn(lambda: sum(link.counts.values()) > 1000 and not link.connection.socket.poll(0))
    assert {"malformed", "PULL", "STEP"} <= link.counts.keys() and sum(link.counts.values()) > 1000
    bench.mailbox(link.address)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    assert bench.same(episode, steps)


def test_pump_ends_though_messages_keep_coming(bench, monkeypatch):
    _, link = bench.pair()
    seen: list[int] = []
    frames = [bytes(frame) for frame in messages.pack("PACE", hold_s=0.0)]
    monkeypatch.setattr(link.connection, "socket", Endless(link.connection.socket, frames, seen))
    link.pump()
    assert len(seen) > 1 and not link.counts


class Endless:
    """A socket on which there is always another message."""

    def __init__(self, socket, frames, seen):
        self._socket, self._frames, self._seen = socket, [zmq.Frame(frame) for frame in frames], seen

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def getsockopt(self, option):
        events = zmq.POLLIN if option == zmq.EVENTS else 0
        return self._socket.getsockopt(option) | events

    def recv(self, *_, **__):
        self._seen.append(1)
        return self._frames[0]  # it says that no other follows


def test_a_message_of_very_many_frames_holds_no_control_step_up(bench, episode_steps, empty):
    """Endless and empty frames, at the robot's end."""
    with false_learner(bench) as (router, link, route):
        router.send_multipart([route, *[b""] * 300_000])
        router.send_multipart([route, b"not a message either"])
        taken: list[float] = []
        while link.counts["malformed"] < 2:
            began = time.perf_counter()
            link.pump()
            taken.append(time.perf_counter() - began)
            assert sum(taken) < 20.0 and len(link.connection.frames) <= 3
            time.sleep(0.001)
    assert sum(taken) / max(taken) > 3 and link.counts == {"malformed": 2}


def test_a_run_that_the_network_named_is_one_harmless_line_of_the_log(bench, episode_steps, caplog):
    _, link = bench.pair()
    bench.play(link, episode_steps(3))
    link.outbox.use_run("other\n\x1b[2J")
    (line,) = [record.getMessage() for record in caplog.records if "not sent to run" in record.getMessage()]
    assert "other??[2J" in line and line.isprintable()
