"""What the link carries: transitions a second, bytes per transition, and how fast new weights reach a robot.

  python -m tools.bench.link [--json FILE] [--rounds 9]

A Link and a Mailbox in two processes, over TCP on this machine; transitions of two 128x128 cameras, as fast as they go.
Beside them, in turn, bare libzmq sockets of the same kind carry the same frames, packed beforehand and thrown away on
arrival: the limit. A round begins when the robot is told to send, and ends when the learner has every episode whole,
checked and acknowledged. Weights are those of the default network; their time is from `offer` to `newest_weights` of a
robot that does nothing else (one that acts takes them at its next step).
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from agent.mailbox import Mailbox
from agent.spec import Spec, Transition
from agent.wire import SOCKET_OPTIONS, pack
from robot_server.link import Link
from robot_server.outgoing import Outgoing
from tools.bench.report import Report, parser

SPEC = Spec({"front": (128, 128, 3), "wrist": (128, 128, 3)}, {"state": 9}, 7)
EPISODE_STEPS, EPISODES = 100, 5  # a round
HERE = "tcp://127.0.0.1:*"
ENV = {"name": "bench", "options": {}}


def transitions() -> list[Transition]:
    """An episode of random numbers."""
    rng = np.random.default_rng(0)

    def observe() -> dict[str, np.ndarray]:
        frames = {key: rng.integers(0, 256, SPEC.shape(key), dtype=np.uint8) for key in SPEC.cameras}
        return {**frames, "state": rng.normal(size=9).astype(np.float32)}

    made = []
    for step in range(EPISODE_STEPS):
        last = step == EPISODE_STEPS - 1
        action, after = rng.uniform(-1, 1, 7).astype(np.float32), observe() if last else None
        made.append(Transition(observe(), action, float(last), last, False, last, final_observation=after))
    return made


def wire_frames(steps: list[Transition]) -> list[list[bytes]]:
    """The ZeroMQ frames of each step, as the link sends them."""
    outgoing = Outgoing(("arm", "0" * 8, 0), {})
    return [outgoing.append(step) for step in steps]


def bare_socket(context: zmq.Context, kind: int) -> Any:
    socket = context.socket(kind)
    for option, value in SOCKET_OPTIONS.items():
        socket.setsockopt(option, value)
    return socket


def robot(orders: Connection, link_address: str, bare_address: str, spool: str) -> None:
    """The other process: does what it is told, with a Link and with a bare socket."""
    steps = transitions()
    messages = wire_frames(steps)
    link = Link(link_address, SPEC, "arm", ENV, spool)
    bare = bare_socket(zmq.Context(), zmq.DEALER)
    bare.connect(bare_address)
    bare.send(b"here")
    if not link.connect(20.0):
        raise SystemExit("no WELCOME from the learner")
    orders.send("ready")
    while True:
        while not orders.poll():
            link.wait(0.002)
        order = orders.recv()
        if order == "link steps":
            for _ in range(EPISODES):
                link.begin()
                for step in steps:
                    link.send(step)
                    link.pump()
            while link._outbox:
                link.pump()
        elif order == "bare steps":
            for _ in range(EPISODES):
                for frames in messages:
                    bare.send_multipart(frames)
        elif order == "link weights":
            orders.send("waiting")
            if not link.has_weights(10.0) or link.newest_weights() is None:
                raise SystemExit("no weights from the learner")
            orders.send(time.monotonic())  # the same clock in every process
        elif order == "bare weights":
            orders.send("waiting")
            bare.recv_multipart()
            orders.send(time.monotonic())
        else:
            link.close(0.0)
            bare.close()
            return


class Learner:
    """This process's end of both, and the measurements."""

    def __init__(self, orders: Connection, mailbox: Mailbox, bare: Any, weights: dict[str, np.ndarray]) -> None:
        self.orders, self.mailbox, self.bare, self.weights = orders, mailbox, bare, weights
        self.version = 0
        self.route = b""

    def meet(self) -> None:
        while not self.orders.poll():
            self.mailbox.wait(0.01)
            self.mailbox.drain()
        self.orders.recv()
        self.route, _ = self.bare.recv_multipart()

    def link_steps(self) -> float:
        """Seconds until every episode of a round was handed out, and acknowledged."""
        began, whole = time.monotonic(), 0
        self.orders.send("link steps")
        while whole < EPISODES:
            self.mailbox.wait(1.0)
            for episode in self.mailbox.drain():
                self.mailbox.acknowledge(episode)
                whole += 1
        return time.monotonic() - began

    def bare_steps(self) -> float:
        began = time.monotonic()
        self.orders.send("bare steps")
        for _ in range(EPISODES * EPISODE_STEPS):
            self.bare.recv_multipart()
        return time.monotonic() - began

    def _serve(self, until: Callable[[], bool]) -> None:
        while not until():
            self.mailbox.wait(0.001)
            self.mailbox.drain()

    def _weights(self, kind: str, send: Callable[[], None]) -> float:
        """Seconds from `send` to when the robot has them."""
        rest = time.monotonic() + 0.02  # in which its question for the next ones comes in
        self._serve(lambda: time.monotonic() > rest)
        self.orders.send(f"{kind} weights")
        self._serve(self.orders.poll)
        self.orders.recv()
        time.sleep(0.002)
        began = time.monotonic()
        send()
        self._serve(self.orders.poll)
        return self.orders.recv() - began

    def link_weights(self) -> float:
        self.version += 1
        return self._weights("link", lambda: self.mailbox.offer(self.version, self.weights))

    def bare_weights(self) -> float:
        return self._weights(
            "bare", lambda: self.bare.send_multipart([self.route, *pack("WEIGHTS", self.weights, version=0)])
        )


def default_weights() -> dict[str, np.ndarray]:
    from agent.config import NetworkConfig
    from agent.policy import Policy  # torch, which the robot's process has no need of here

    return Policy(SPEC, NetworkConfig()).weights()


def measure(learner: Learner, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"link_steps": [], "bare_steps": [], "link_weights": [], "bare_weights": []}
    for turn in range(-1, rounds):
        for name, taken in times.items():
            for _ in range(5 if name.endswith("weights") else 1):
                seconds = getattr(learner, name)()
                if turn >= 0:
                    taken.append(seconds)
    return times


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=9, help="of 500 transitions each way (9)")
    flags = arguments.parse_args()
    weights = default_weights()
    mailbox = Mailbox(HERE, SPEC, {"features": 64}, env=ENV)
    bare = bare_socket(zmq.Context(), zmq.ROUTER)
    bare.bind(HERE)
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as spool:
        addresses = (mailbox.address, bare.getsockopt_string(zmq.LAST_ENDPOINT))
        child = multiprocessing.get_context("spawn").Process(
            target=robot, args=(theirs, *addresses, spool), daemon=True
        )
        child.start()
        learner = Learner(ours, mailbox, bare, weights)
        learner.meet()
        times = measure(learner, flags.rounds)
        ours.send("stop")
        child.join(10.0)
    faults = sum(mailbox.counts.values())
    mailbox.close()
    bare.close()

    steps = transitions()
    observations = [*(step.observation for step in steps), steps[-1].final_observation or {}]
    raw = sum(array.nbytes for seen in observations for array in seen.values()) + sum(s.action.nbytes for s in steps)
    sent = [len(frame) for frames in wire_frames(steps) for frame in frames]
    wire = sum(size + (9 if size > 255 else 2) for size in sent)  # with ZMTP's flags and length of each frame
    report = Report("link: two 128x128 cameras, two processes, TCP on one machine")
    rates = {}
    for name in ("link_steps", "bare_steps"):
        each = sorted(EPISODES * EPISODE_STEPS / taken for taken in times[name])
        words = {"link_steps": "Link and Mailbox", "bare_steps": "bare libzmq"}[name]
        rates[name] = statistics.median(each)
        report.add(f"transitions/s, {words}", rates[name], "1/s")
        report.add(f"transitions/s, {words}, slowest round", each[0], "1/s")
        report.add(f"transitions/s, {words}, fastest round", each[-1], "1/s")
    report.add("transitions/s: Link and Mailbox / bare libzmq", rates["link_steps"] / rates["bare_steps"], "x")
    report.add("MB/s, Link and Mailbox", rates["link_steps"] * raw / EPISODE_STEPS / 1e6, "MB/s")
    report.add("bytes per transition, arrays alone", raw / EPISODE_STEPS, "B")
    report.add("bytes per transition, on the wire", wire / EPISODE_STEPS, "B")
    report.add("bytes: wire / arrays", wire / raw, "x")
    report.add("bytes of the weights", sum(array.nbytes for array in weights.values()), "B")
    offered = report.add_times("weights, offer to newest_weights", times["link_weights"])
    limit = report.add_times("weights, bare libzmq", times["bare_weights"])
    report.add("weights: Link and Mailbox / bare libzmq", offered / limit, "x")
    report.add("bad messages", faults, "", 0)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
