"""What the link carries: transitions a second from 1, 4 and 16 robots, what it costs, and how fast new weights arrive.

  python -m tools.bench.link [--json FILE] [--rounds 9] [--robots 1 4 16] [--seconds 20] [--agentlace FOLDER]

Each robot is a process with a Link, this one has the Mailbox; TCP on this machine; two 128x128 cameras.

- transitions/s: as fast as they go, until the learner has every episode whole, checked, acknowledged.
  Beside them, in turn, bare libzmq sockets carry the same frames with the same options, packed beforehand and thrown
  away on arrival; and agentlace (a clone of github.com/youliangtan/agentlace; it needs lz4), as its example uses it.
- send: what `link.send` takes in a control loop at 100 Hz, with the spool on this disk, while the learner takes all in.
- CPU: of this process, while 4 robots send at 20 Hz.
- weights, those of the default network: from `offer` to `newest_weights` of a robot that does nothing else, and of one
  that acts at 20 Hz and takes them for its next action.

Before, the learner has one batch through its network: what glibc keeps of freed memory is as in any learner on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from agent.mailbox.mailbox import Mailbox
from agent.memory import keep_freed
from agent.wire.messages import pack
from tools.bench import link_agentlace
from tools.bench.link_robot import ENV, EPISODE_STEPS, SPEC, Addresses, bare_socket, robot, wire_frames
from tools.common.random_steps import random_steps
from tools.common.report import Missing, Report, parser

HERE = "tcp://127.0.0.1:*"
SEND_HZ, CPU_ROBOTS, CPU_HZ = 100, 4, 20
WAYS = {"link": "Link and Mailbox", "bare": "bare libzmq", "agentlace": "agentlace"}


class Learner:
    """This process's ends, and the measurements. Raises Missing where `peer` is a folder without agentlace."""

    def __init__(self, robots: int, peer: str | None, weights: dict[str, np.ndarray]) -> None:
        self.names = [f"arm{number}" for number in range(robots)]
        self.peer = link_agentlace.Learner(peer, self.names) if peer else None
        self.mailbox = Mailbox(HERE, SPEC, {"features": 64}, env=ENV)
        self.bare = bare_socket(zmq.Context(), zmq.ROUTER)
        self.bare.bind(HERE)
        self.weights, self.version = weights, 0
        self.routes: dict[str, bytes] = {}  # of the bare sockets
        self.orders: list[Connection] = []
        self.ways = [way for way in WAYS if way != "agentlace" or self.peer]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """With the robots' processes."""
        peer = self.peer.address if self.peer else None
        addresses = Addresses(self.mailbox.address, self.bare.getsockopt_string(zmq.LAST_ENDPOINT), peer)
        context, children = multiprocessing.get_context("spawn"), []
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as spool:  # /tmp may be memory
            for name in self.names:
                ours, theirs = context.Pipe()
                child = context.Process(target=robot, args=(theirs, name, addresses, f"{spool}/{name}"), daemon=True)
                child.start()
                children.append(child)
                self.orders.append(ours)
            self._serve(lambda: all(orders.poll() for orders in self.orders))
            for orders in self.orders:
                orders.recv()
                route, name = self.bare.recv_multipart()
                self.routes[name.decode()] = route
            yield
            for orders in self.orders:
                orders.send(None)
            for child in children:
                child.join(20.0)
        self.mailbox.close()
        self.bare.close()
        if self.peer:
            self.peer.close()

    def _serve(self, until: Callable[[], bool]) -> None:
        while not until():
            self.mailbox.wait(0.001)
            for episode in self.mailbox.drain():
                self.mailbox.acknowledge(episode)

    def _answers(self, robots: int = 1) -> list[Any]:
        """What the first robots return, serving them meanwhile."""
        self._serve(lambda: all(orders.poll() for orders in self.orders[:robots]))
        return [orders.recv() for orders in self.orders[:robots]]

    def steps(self, way: str, robots: int, episodes: int) -> float:
        """Transitions a second from so many robots at once."""
        count, before = robots * episodes * EPISODE_STEPS, self.peer.steps if self.peer else 0
        began, whole = time.monotonic(), 0
        for orders in self.orders[:robots]:
            orders.send((f"{way}_steps", episodes))
        if way == "link":
            while whole < robots * episodes:
                self.mailbox.wait(1.0)
                for episode in self.mailbox.drain():
                    self.mailbox.acknowledge(episode)
                    whole += 1
        elif way == "bare":
            for _ in range(count):
                self.bare.recv_multipart(copy=False)
        else:
            while self.peer and self.peer.steps < before + count:
                time.sleep(0.001)
        taken = time.monotonic() - began
        self._answers(robots)
        return count / taken

    def send_times(self, seconds: float) -> list[float]:
        self.orders[0].send(("link_paced", SEND_HZ, seconds))
        return [taken for answer in self._answers() for taken in answer]

    def cpu_share(self, way: str, robots: int, seconds: float) -> float:
        """Of one core, while so many robots send at CPU_HZ."""
        began, used = time.monotonic(), time.process_time()
        for orders in self.orders[:robots]:
            orders.send((f"{way}_paced", CPU_HZ, seconds))
        while not all(orders.poll() for orders in self.orders[:robots]):
            if way == "link":
                self.mailbox.wait(0.2)
                for episode in self.mailbox.drain():
                    self.mailbox.acknowledge(episode)
            else:
                time.sleep(0.2)
        share = (time.process_time() - used) / (time.monotonic() - began)
        self._answers(robots)
        return share

    def weights_time(self, way: str, *arguments: Any) -> float:
        """Seconds from offering weights to when the first robot has them. way: link, bare, agentlace, acting."""
        self.orders[0].send((f"{way}_weights" if way in WAYS else f"link_{way}", *arguments))
        self._answers()
        rest = time.monotonic() + 0.01 + random.random() / CPU_HZ  # at no set moment between two of its steps
        self._serve(lambda: time.monotonic() > rest)
        self.version += 1
        began = time.monotonic()
        if way == "bare":
            self.bare.send_multipart([self.routes[self.names[0]], *pack("WEIGHTS", self.weights, version=0)])
        elif way == "agentlace" and self.peer:
            self.peer.publish(self.weights)
        else:
            self.mailbox.offer(self.version, self.weights)
        return float(self._answers()[0]) - began


def default_weights() -> dict[str, np.ndarray]:
    import torch

    from agent.config import NetworkConfig
    from agent.policy import Policy  # torch, which the robots' processes have no need of here

    policy = Policy(SPEC, NetworkConfig())
    batch = {key: torch.zeros(128, *SPEC.shape(key), dtype=torch.uint8) for key in SPEC.cameras}
    with torch.no_grad():
        policy.encoder({**batch, "state": torch.zeros(128, 9)})
    return policy.weights()


def measure(learner: Learner, flags: argparse.Namespace, report: Report) -> None:
    for robots in flags.robots:
        episodes = max(1, 8 // robots)
        rates: dict[str, list[float]] = {way: [] for way in learner.ways}
        for turn in range(-1, flags.rounds):
            for way, found in rates.items():
                rate = learner.steps(way, robots, episodes)
                if turn >= 0:  # the first is a warm-up
                    found.append(rate)
        add_rates(report, robots, rates)
    add_bytes(report)
    sends = sorted(learner.send_times(flags.seconds))
    for name, place in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
        target = 0.5 if name == "p99" else None
        report.add(f"send at {SEND_HZ} Hz, {name}", sends[int(place * (len(sends) - 1))] * 1e3, "ms", target)
    many = min(CPU_ROBOTS, len(learner.names))
    for way in (way for way in learner.ways if way != "bare"):
        share = learner.cpu_share(way, many, flags.seconds)
        report.add(f"learner's CPU, {many} robots at {CPU_HZ} Hz, {WAYS[way]}", 100 * share, "% of a core")
    add_weights(report, learner)
    report.add("bad messages", sum(learner.mailbox.counts.values()), "", 0)


def add_rates(report: Report, robots: int, rates: dict[str, list[float]]) -> None:
    medians = {way: statistics.median(each) for way, each in rates.items()}
    for way, each in rates.items():
        report.add(f"transitions/s, {robots} robots, {WAYS[way]}", medians[way], "1/s")
        report.add(f"transitions/s, {robots} robots, {WAYS[way]}, slowest round", min(each), "1/s")
        report.add(f"transitions/s, {robots} robots, {WAYS[way]}, fastest round", max(each), "1/s")
    for way, target in (("bare", 0.5), ("agentlace", 5.0)):
        if way in rates:
            ratio = statistics.median(mine / its for mine, its in zip(rates["link"], rates[way], strict=True))
            report.add(f"transitions/s, {robots} robots: ours / {WAYS[way]}", ratio, "x", target, "higher")


def add_bytes(report: Report) -> None:
    steps = random_steps(SPEC, EPISODE_STEPS, 0)
    observations = [*(step.observation for step in steps), steps[-1].final_observation or {}]
    raw = sum(array.nbytes for seen in observations for array in seen.values()) + sum(s.action.nbytes for s in steps)
    sent = [len(frame) for frames in wire_frames(steps) for frame in frames]
    wire = sum(size + (9 if size > 255 else 2) for size in sent)  # with ZMTP's flags and length of each frame
    report.add("bytes per transition, arrays alone", raw / EPISODE_STEPS, "B")
    report.add("bytes per transition, on the wire", wire / EPISODE_STEPS, "B")
    report.add("bytes: wire / arrays", wire / raw, "x", 1.05)


def add_weights(report: Report, learner: Learner) -> None:
    report.add("bytes of the weights", sum(array.nbytes for array in learner.weights.values()), "B")
    times: dict[str, list[float]] = {way: [] for way in learner.ways}
    for _ in range(40):
        for way, taken in times.items():
            taken.append(learner.weights_time(way))
    medians = {way: report.add_times(f"weights, {WAYS[way]}", taken) for way, taken in times.items()}
    report.add("weights: ours / bare libzmq", medians["link"] / medians["bare"], "x")
    acting = [learner.weights_time("acting", CPU_HZ) for _ in range(40)]
    report.add_times(f"weights, until a robot acts by them at {CPU_HZ} Hz", acting)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=9, help="of 800 to 1600 transitions each way (9)")
    arguments.add_argument("--robots", type=int, nargs="+", default=[1, 4, 16], help="how many at once (1 4 16)")
    arguments.add_argument("--seconds", type=float, default=20.0, help="of each paced measurement (20)")
    arguments.add_argument("--agentlace", metavar="FOLDER", help="a clone of github.com/youliangtan/agentlace")
    flags = arguments.parse_args()
    keep_freed()
    weights, most = default_weights(), max(flags.robots)
    try:
        learner = Learner(most, flags.agentlace, weights)
    except Missing as missing:
        print(f"agentlace is left out: {missing}")
        learner = Learner(most, None, weights)
    report = Report("link: two 128x128 cameras, a process for each robot, TCP on one machine")
    with learner.running():
        measure(learner, flags, report)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
