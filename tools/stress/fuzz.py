"""What strangers' messages do to a learner and to a robot: nothing but a little time.

  python -m tools.stress.fuzz [--json FILE] [--messages 200000] [--identities 8] [--only learner|robot|control]

The learner's socket: one process sends random and altered messages of every kind (hostile_messages) by raw sockets,
while a good robot plays episodes with a Link in another; each must arrive bit-equal. First a batch at a time, and the
learner looks at every message: does it go on, and what does it keep? Then as many as a gigabit network carries, and it
ignores whom it has lost patience with (agent.mailbox.cpu_budget), while raw connections bring what no ZeroMQ would send
(tools.stress.fuzz_raw): ZMTP 1.0, HTTP, messages that never end. Rounds with and without strangers take turns, and the
ratio of the robot's times in a pair is the figure, for a robot that makes 100 steps a second, and for one that sends as
fast as it can.

The robot's socket: a stranger in the place of the learner does the same to a Link which is pumped 100 times a second.

The operator's socket: raw connections again, and a program that has the key and sends what nobody should, while a
person presses STOP.

Strangers have the last of this process's cores for themselves (taskset), as if they were elsewhere.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from agent.env_record import EnvRecord
from agent.mailbox import connections, cpu_budget
from agent.mailbox.mailbox import Mailbox
from agent.spec import Episode
from robot_server.link import Link
from tools.common.report import Report, parser
from tools.stress.fuzz_control import against_control
from tools.stress.fuzz_data import (
    BATCH,
    ENV,
    EPISODE_STEPS,
    NETWORK,
    SPEC,
    growth,
    on_cores,
    peak_mb,
    resident,
    transitions,
)
from tools.stress.fuzz_raw import raw_strangers
from tools.stress.fuzz_robot import against_robot
from tools.stress.hostile_messages import Noise

EPISODES = {"100 Hz": 2, "flat out": 120}  # of a round
ROUNDS = 12  # at most: who sends what no robot sends is not let in for a while
NETWORK_BYTES_S = 125e6  # strangers are on a gigabit network
LIMIT_BYTES = 3 << 30  # of memory, at which the benchmark ends, for the machine's sake


def good_robot(orders: Connection, address: str, spool: str) -> None:
    """Plays EPISODES of a round in the way that it is told, until all are acknowledged; answers with the seconds."""
    link, numbers = Link(address, SPEC, "good", ENV, spool), itertools.count()
    if not link.connect(20.0):
        raise SystemExit("no WELCOME from the learner")
    orders.send("ready")
    while True:
        while not orders.poll():
            link.wait(0.002)
        if (way := orders.recv()) == "stop":
            link.close(0.0)
            return
        episodes = [transitions(next(numbers)) for _ in range(EPISODES[way])]
        began = time.monotonic()
        for episode in episodes:
            link.begin()
            for step in episode:
                due = time.monotonic() + 0.01
                link.send(step)
                link.pump()
                while way == "100 Hz" and (left := due - time.monotonic()) > 0:
                    link.wait(left)
        while link.outbox:
            link.wait(0.001)
        orders.send(time.monotonic() - began)


def strangers(orders: Connection, address: str, identities: int) -> None:
    """Told "make", gets messages ready; told "once", sends each; told "flood", sends them over and over until told
    "quiet". Answers how many.
    """
    on_cores(strangers=True)
    noise, boots = Noise(0, SPEC, ["good", *map(str, range(identities))]), itertools.count()
    context, sent = zmq.Context(), 0
    sockets: list[zmq.Socket[bytes]] = []
    batch: list[tuple[zmq.Socket[bytes], list[bytes]]] = []
    while True:
        order = orders.recv()
        if order == "make":
            for socket in sockets:
                socket.close()
            names = [(str(number), f"b{next(boots)}") for number in range(identities)]
            sockets = []
            for name, boot in names:
                sockets.append(context.socket(zmq.DEALER))
                sockets[-1].linger = 0
                sockets[-1].reconnect_ivl = 10  # after each message of too many frames
                sockets[-1].routing_id = f"{name}-{boot}".encode()
                sockets[-1].connect(address)
            sources = [noise.robot(*name) for name in names]
            batch = [(sockets[n % identities], next(sources[n % identities])) for n in range(BATCH)]
            orders.send("ready")
        elif order == "once":
            for socket, frames in batch:
                socket.send_multipart(frames)
                while socket.poll(0):
                    socket.recv_multipart()
            orders.send(len(batch))
        elif order == "flood":
            sent, size, began = 0, 0, time.monotonic()
            for turn, (socket, frames) in enumerate(itertools.cycle(batch)):
                try:
                    socket.send_multipart(frames, zmq.NOBLOCK)
                    sent, size = sent + 1, size + sum(map(len, frames))
                except zmq.Again:
                    time.sleep(1e-4)
                if turn % 50 == 0:  # many may be refused
                    time.sleep(max(0.0, began + size / NETWORK_BYTES_S - time.monotonic()))
                    if orders.poll():
                        break
                    for each in sockets[::2]:  # the others never read
                        while each.poll(0):
                            each.recv_multipart()
            orders.recv()
            orders.send(sent)
        else:
            context.destroy(linger=0)
            return


class Learner:
    """The learner's end, in this process, without the learning: drains, acknowledges, offers weights."""

    def __init__(self, robot: Connection, strangers: Connection, mailbox: Mailbox) -> None:
        self.robot, self.strangers, self.mailbox = robot, strangers, mailbox
        self.good = self.wrong = self.others = 0
        self.slowest_s, self._version, self._offer_s = 0.0, 0, 0.0

    def serve(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + 120.0
        while not until():
            if time.monotonic() > end or resident() > LIMIT_BYTES:
                raise SystemExit(
                    f"no end of this round; {resident() / 1e6:.0f} MB; counted {dict(self.mailbox.counts)}"
                )
            self.mailbox.wait(0.005)
            began = time.monotonic()
            for episode in self.mailbox.drain():
                self.take(episode)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if began > self._offer_s:
                self._offer_s, self._version = began + 0.1, self._version + 1
                self.mailbox.offer(self._version, {"w": np.zeros(25_000, np.float32)})

    def take(self, episode: Episode) -> None:
        self.mailbox.acknowledge(episode)
        if episode.meta["robot"] != "good" or EnvRecord.of_episode(episode.meta) != ENV:
            self.others += 1
            return
        expected = Episode.from_transitions(transitions(episode.meta["number"]), episode.meta)
        right = episode.equals(expected)
        self.good, self.wrong = self.good + right, self.wrong + (not right)

    def batch(self) -> int:
        """The strangers send a batch while the good robot plays; returns how many messages that was."""
        self.ask(self.strangers, "make")
        self.robot.send("100 Hz")
        sent: int = self.ask(self.strangers, "once")
        self.serve(self.robot.poll)
        self.robot.recv()
        return sent

    def ask(self, process: Connection, order: str) -> Any:
        process.send(order)
        self.serve(process.poll)
        return process.recv()

    def round(self, way: str, noisy: bool) -> tuple[float, int]:
        """Seconds that the good robot takes, and how many messages the strangers sent meanwhile."""
        if noisy:
            self.ask(self.strangers, "make")
            self.strangers.send("flood")
        self.robot.send(way)
        self.serve(self.robot.poll)
        sent = 0
        if noisy:
            sent = self.ask(self.strangers, "quiet")
        return self.robot.recv(), sent


def looked_at(report: Report, learner: Learner, messages: int) -> None:
    """Every one of so many messages is taken apart, however long that takes."""
    share, cpu_budget.SHARE_S = cpu_budget.SHARE_S, math.inf
    strikes, connections.STRIKES = connections.STRIKES, 10**9
    sent, samples = 0, [(0, resident())]
    while sent < messages:
        sent += learner.batch()
        samples.append((sent, resident()))
    cpu_budget.SHARE_S, connections.STRIKES = share, strikes
    report.add("learner: messages of strangers, each looked at", sent, "")
    for kind, count in sorted(learner.mailbox.counts.items()):
        report.add(f"learner: counted as {kind}", count, "")
    assembly = learner.mailbox.assembly
    report.add("learner: memory before", samples[0][1] / 1e6, "MB")
    grown, slope = growth(samples)
    report.add("learner: memory grown by, after the first fifth", grown, "MB", 32)
    report.add("learner: memory, slope", slope, "B/message", 50)
    for what, held in (("robots known", [*learner.mailbox.registry]), ("episodes open", [*assembly.open])):
        report.add(f"learner: {what}", len(held), "")
    print(f"  each looked at: {sent} messages, memory {[round(size / 1e6) for _, size in samples]} MB", flush=True)


def against_learner(report: Report, messages: int, identities: int) -> None:
    cores = os.sched_getaffinity(0)
    mailbox = Mailbox("tcp://127.0.0.1:*", SPEC, NETWORK, env=ENV)
    robot, robots_end = multiprocessing.Pipe()
    stranger, strangers_end = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn").Process
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in EPISODES}
    with tempfile.TemporaryDirectory() as spool:
        spawn(target=strangers, args=(strangers_end, mailbox.address, identities), daemon=True).start()
        on_cores(strangers=False)
        spawn(target=good_robot, args=(robots_end, mailbox.address, spool), daemon=True).start()
        learner = Learner(robot, stranger, mailbox)
        learner.serve(robot.poll)
        robot.recv()
        for way in EPISODES:
            learner.round(way, noisy=False)
        looked_at(report, learner, messages)
        raw, raws_end = multiprocessing.Pipe()
        spawn(target=raw_strangers, args=(raws_end, mailbox.address), daemon=True).start()
        sent, before, samples, quiet_s, noisy_s = 0, resident(), [], 0.0, 0.0
        while sent < messages and len(times["100 Hz"]) < ROUNDS:
            for way, taken in times.items():
                learner.slowest_s = 0.0
                quiet, _ = learner.round(way, noisy=False)
                quiet_s = max(quiet_s, learner.slowest_s)
                learner.slowest_s = 0.0
                noisy, more = learner.round(way, noisy=True)
                noisy_s = max(noisy_s, learner.slowest_s)
                taken.append((quiet, noisy))
                sent += more
                samples.append((sent, resident()))
                print(
                    f"  {way}: {quiet:.3f} s, with {more} messages {noisy:.3f} s; {samples[-1][1] / 1e6:.1f} MB",
                    flush=True,
                )
        report.add("learner, flooded: messages of raw connections", learner.ask(raw, "stop"), "")
        robot.send("stop")
        stranger.send("stop")
    report.add("learner, flooded: messages of strangers", sent, "")
    report.add("learner, flooded: ignored", mailbox.counts["ignored"], "")
    report.add("learner: good episodes, bit-equal", learner.good, "")
    report.add("learner: good episodes, different", learner.wrong, "", 0)
    report.add("learner: episodes that strangers completed", learner.others, "")
    for way, taken in times.items():
        steps = EPISODES[way] * EPISODE_STEPS
        report.add(f"learner: good steps/s, {way}, alone", steps / statistics.median(q for q, _ in taken), "1/s")
        report.add(
            f"learner: good robot's time with strangers / alone, {way}",
            statistics.median(n / q for q, n in taken),
            "x",
            1.2,
        )
    report.add("learner: longest drain, alone", quiet_s * 1e3, "ms")
    report.add("learner: longest drain, with strangers", noisy_s * 1e3, "ms")
    report.add("learner: memory of the process, peak", peak_mb(), "MB", 500.0)
    report.add("learner: disconnected", mailbox.counts["disconnected"], "")
    report.add("learner, flooded: memory before", before / 1e6, "MB")
    grown, slope = growth(samples)
    report.add("learner, flooded: memory grown by, after the first fifth", grown, "MB", 32)
    report.add("learner, flooded: memory, slope", slope, "B/message", 50)
    mailbox.close()
    os.sched_setaffinity(0, cores)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--messages", type=int, default=200_000, help="to each socket, at least (200000)")
    arguments.add_argument("--identities", type=int, default=8, help="connections of the strangers' process (8)")
    arguments.add_argument("--only", choices=["learner", "robot", "control"], help="only that one's socket")
    flags = arguments.parse_args()
    report = Report("fuzz: random and altered messages")
    if flags.only in (None, "control"):
        against_control(report, flags.messages)
    if flags.only in (None, "learner"):
        against_learner(report, flags.messages, flags.identities)
    if flags.only in (None, "robot"):
        against_robot(report, flags.messages)
    report.finish(flags.json)


if __name__ == "__main__":
    main()
