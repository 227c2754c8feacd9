"""The third part of tools.stress.fuzz: strangers at the operator's socket, while a person presses STOP."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection

import msgpack
import numpy as np
import zmq

from robot_server.control import Control
from robot_server.control_client import Operator, question
from tools.common.report import Report
from tools.stress.fuzz_data import SPEC, on_cores, peak_mb
from tools.stress.fuzz_raw import raw_strangers
from tools.stress.hostile_messages import HERE, JUNK, Noise

STEP_S = 0.01
BATCH, SENDERS = 200, 16
KINDS = ("drive", "event", "state", "frames", "history", "nonsense")


def with_the_key(orders: Connection, address: str) -> None:
    """A program of this user that has the key, and sends what nobody should; answers how many messages."""
    on_cores(strangers=True)
    noise, draw, sent = Noise(3, SPEC, ["good"]), random.Random(3), 0
    source, operators = noise.robot("x", "b0"), [Operator(address) for _ in range(SENDERS)]
    batch = []
    for _ in range(2000):
        match draw.randrange(4):
            case 0:
                frames = next(source)
            case 1:
                asked = {"motion": [0.0] * 6, "gripper": 0.0, "enabled": False, "event": "pause", "id": 1}
                asked = {"ask": draw.choice(KINDS[2:]), **asked, draw.choice([*asked, "sent_s"]): draw.choice(JUNK)}
                frames = [msgpack.packb(asked, strict_types=False)]
            case 2:
                frames = [question("event", event=HERE).replace(msgpack.packb(HERE), noise.nested())]
            case _:
                frames = [question("state")] + [b""] * draw.choice([1, 3, 300])
        batch.append(frames)
    for at, frames in enumerate(itertools.cycle(batch)):
        if at % BATCH == 0:
            if orders.poll():
                break
            time.sleep(0.002)
        try:
            operators[at % SENDERS].socket.send_multipart(frames, zmq.NOBLOCK)
            sent += 1
        except zmq.Again:
            time.sleep(1e-4)
        while operators[at % SENDERS].socket.poll(0):
            operators[at % SENDERS].socket.recv_multipart()
    orders.send(sent)


def person(orders: Connection, address: str) -> None:
    """Presses STOP and releases it; answers how long each STOP took to be confirmed."""
    operator, taken, unheard = Operator(address), [], 0
    operator.ask("state", timeout_s=30.0)  # a page is connected before anybody presses STOP on it
    while not orders.poll():
        began = time.monotonic()
        answer = operator.ask("event", event="stop")
        taken.append(time.monotonic() - began)
        unheard += answer.get("stopped") is not True
        operator.lift("release")
        time.sleep(0.05)
    orders.send((taken, unheard))


def against_control(report: Report, messages: int) -> None:
    cores = os.sched_getaffinity(0)
    control = Control("tcp://127.0.0.1:*")
    control.step_s = STEP_S
    spawn = multiprocessing.get_context("spawn").Process
    rounds: dict[str, tuple[list[float], int]] = {}
    sent, slowest_s, on_time = 0, 0.0, []
    for name, targets in (
        ("alone", [person]),
        ("beside strangers", [person, raw_strangers]),
        ("beside one with the key", [person, raw_strangers, with_the_key]),
    ):
        pipes = [multiprocessing.Pipe() for _ in targets]
        for target, (_, theirs) in zip(targets, pipes, strict=True):
            spawn(target=target, args=(theirs, control.address), daemon=True).start()
        on_cores(strangers=False)
        end, counted = time.monotonic() + 10.0, control.faults.counts.total()
        while time.monotonic() < end or (
            len(targets) == 3 and control.faults.counts.total() - counted < messages and time.monotonic() < end + 600.0
        ):
            due, began = time.monotonic() + STEP_S, time.perf_counter()
            control.show({"state": np.zeros(9, np.float32)}, {})
            control.read()
            slowest_s = max(slowest_s, time.perf_counter() - began)
            while (left := due - time.monotonic()) > 0:
                control.wait(left)
            on_time.append(time.monotonic() - due)
        for ours, _ in pipes:
            ours.send("stop")
        answers = []
        for ours, _ in pipes:
            while not ours.poll():
                control.wait(0.01)
            answers.append(ours.recv())
        rounds[name] = answers[0]
        sent += sum(answers[1:])
    os.sched_setaffinity(0, cores)
    report.add("control: messages of strangers", sent, "")
    for kind, count in sorted(control.faults.counts.items()):
        report.add(f"control: counted as {kind}", count, "")
    for name, (taken, unheard) in rounds.items():
        median_s, most_s = np.percentile(taken, [50, 99])
        report.add(f"control: STOP confirmed, {name}, {len(taken)} times, median", float(median_s) * 1e3, "ms")
        report.add(f"control: STOP confirmed, {name}, 99th percentile", float(most_s) * 1e3, "ms")
        limit_ms = None if "key" in name else 50.0  # whoever has the key is this user's own program
        report.add(f"control: STOP confirmed, {name}, longest", max(taken) * 1e3, "ms", limit_ms)
        report.add(f"control: STOP not confirmed, {name}", unheard, "", 0)
    report.add("control: longest read", slowest_s * 1e3, "ms")
    report.add("control: steps late by, 99th percentile", float(np.percentile(on_time, 99)) * 1e3, "ms")
    report.add("control: memory of the process, peak", peak_mb(), "MB", 500.0)
    control.close()
