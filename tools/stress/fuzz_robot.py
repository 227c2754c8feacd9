"""The second part of tools.stress.fuzz: a stranger in the place of a robot's learner."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from agent.mailbox.mailbox import Mailbox
from agent.spec import Episode, UserError
from agent.wire.messages import pack, unpack
from robot_server.link import Link
from tools.common.report import Report
from tools.stress.fuzz_data import BATCH, ENV, NETWORK, SPEC, growth, on_cores, resident, transitions
from tools.stress.hostile_messages import Noise


def false_learner(orders: Connection) -> None:
    """In the learner's place: sends as many messages as it is told to whoever said HELLO; answers when done."""
    on_cores(strangers=True)
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.linger = 0
    orders.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    route = socket.recv_multipart()[0]
    source = Noise(1, SPEC, ["good"]).learner()
    welcome = pack("WELCOME", run="x", secret="x", learner_boot="x", spec=SPEC.to_dict(), network=NETWORK)
    while (count := orders.recv()) > 0:
        socket.send_multipart([route, *welcome])
        batch = [frames for frames in itertools.islice(source, BATCH) if not by_design(frames, NETWORK)]
        for frames in itertools.islice(itertools.cycle(batch), count):
            socket.send_multipart([route, *frames])
        while socket.poll(0):
            socket.recv_multipart()
        orders.send(count)
    socket.close()


def by_design(frames: list[bytes], network: dict[str, Any]) -> bool:
    """Whether a robot stops, or keeps its episodes, because of it, rightly: the learner refuses it, or is another."""
    try:
        message = unpack(frames)
    except ValueError:
        return False
    return message.kind in ("REFUSE", "WELCOME") or message.fields.get("network", network) != network


def against_robot(report: Report, messages: int) -> None:
    cores = os.sched_getaffinity(0)
    orders, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=false_learner, args=(theirs,), daemon=True)
    child.start()
    on_cores(strangers=False)
    address = orders.recv()
    pumps: dict[str, list[float]] = {"alone": [], "flooded": []}
    with tempfile.TemporaryDirectory() as spool:
        link = Link(address, SPEC, "good", ENV, spool)
        link.begin()
        for step in transitions(0):
            link.send(step)

        def control(seconds: float, until: Callable[[], bool], taken: list[float]) -> None:
            """Steps of 10 ms, as robot_server.actor makes them."""
            end = time.monotonic() + seconds
            while time.monotonic() < end and not until():
                due = time.monotonic() + 0.01
                began = time.perf_counter()
                link.pump()
                taken.append(time.perf_counter() - began)
                while (left := due - time.monotonic()) > 0:
                    link.wait(left)

        control(2.0, bool, pumps["alone"])
        sent, before, samples, stopped = 0, resident(), [], 0
        while sent < messages:
            orders.send(min(BATCH, messages))
            while not orders.poll():
                try:
                    control(60.0, orders.poll, pumps["flooded"])
                except UserError:
                    stopped += 1
            sent += orders.recv()
            control(0.05, bool, [])
            samples.append((sent, resident()))
        while link.connection.wait(0):  # libzmq 4.3.5 may abort a DEALER with IMMEDIATE that reads when its peer goes
            link.pump()
        orders.send(0)
        child.join(10.0)
        mailbox = Mailbox(address, SPEC, NETWORK, run="x", secret="x", env=ENV)
        episodes: list[Episode] = []
        end = time.monotonic() + 20.0
        while not episodes and time.monotonic() < end:
            link.wait(0.005)
            episodes += mailbox.drain()
        whole = [e for e in episodes if e.equals(Episode.from_transitions(transitions(0), e.meta))]
        link.close(0.0)
        mailbox.close()
    os.sched_setaffinity(0, cores)
    report.add("robot: messages of a false learner", sent, "")
    for kind, count in sorted(link.counts.items()):
        report.add(f"robot: counted as {kind}", count, "")
    report.add("robot: stopped", stopped, "", 0)
    report.add("robot: episodes lost or different", 1 - len(whole), "", 0)
    for name, taken in pumps.items():
        target = 5.0 if name == "flooded" else None  # of a control step of 10 ms
        report.add(f"robot: pump, {name}, 99th percentile", float(np.percentile(taken, 99)) * 1e3, "ms", target)
        report.add(f"robot: pump, {name}, longest", max(taken) * 1e3, "ms")
    report.add("robot: memory before", before / 1e6, "MB")
    grown, slope = growth(samples)
    report.add("robot: memory grown by, after the first fifth", grown, "MB", 32)
    report.add("robot: memory, slope", slope, "B/message", 50)
