"""The robot's end of the link's benchmark: a process that does what it is told, over the Link, libzmq and agentlace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import zmq

from agent.env_record import EnvRecord
from agent.spec import Spec, Transition
from agent.wire.messages import SOCKET_OPTIONS
from envs.clock import Clock
from robot_server.link import Link
from robot_server.outgoing import Outgoing
from tools.bench import link_agentlace
from tools.common.random_steps import random_steps

SPEC = Spec({"front": (128, 128, 3), "wrist": (128, 128, 3)}, {"state": 9}, 7)
EPISODE_STEPS = 100
ENV = EnvRecord("bench")


@dataclass(frozen=True)
class Addresses:
    """Of the learner's ends. agentlace: its folder and its two ports, if it is there."""

    link: str
    bare: str
    agentlace: tuple[str, int, int] | None


def wire_frames(steps: list[Transition]) -> list[list[bytes]]:
    """The ZeroMQ frames of each step, as the link sends them."""
    outgoing = Outgoing(("arm", "0" * 8, 0), {})
    return [outgoing.append(step) for step in steps]


def bare_socket(context: zmq.Context[Any], kind: int) -> Any:
    socket = context.socket(kind)
    for option, value in SOCKET_OPTIONS.items():
        socket.setsockopt(option, value)
    return socket


class Robot:
    """Each method is an order; what it returns goes back to the learner."""

    def __init__(self, orders: Connection, name: str, addresses: Addresses, spool: str) -> None:
        self.orders, self.steps = orders, random_steps(SPEC, EPISODE_STEPS, 0)
        self.messages = wire_frames(self.steps)
        self.link = Link(addresses.link, SPEC, name, ENV, spool)
        self.bare = bare_socket(zmq.Context(), zmq.DEALER)
        self.bare.connect(addresses.bare)
        self.bare.send(name.encode())
        if not self.link.connect(60.0):
            raise SystemExit("no WELCOME from the learner")
        self.peer = link_agentlace.Actor(name, *addresses.agentlace) if addresses.agentlace else None

    def link_steps(self, episodes: int) -> None:
        """As fast as they go."""
        for _ in range(episodes):
            self.link.begin()
            for step in self.steps:
                self.link.send(step)
                self.link.pump()
        self._deliver()

    def bare_steps(self, episodes: int) -> None:
        for _ in range(episodes):
            for frames in self.messages:
                self.bare.send_multipart(frames)

    def agentlace_steps(self, episodes: int) -> None:
        assert self.peer
        for _ in range(episodes):
            self.peer.episode(self.steps)

    def link_paced(self, hz: float, seconds: float) -> list[float]:
        """A control loop like run_episode's, without env and policy: seconds that each `send` took."""
        clock, taken = Clock(hz), []
        clock.start()
        for number in range(int(hz * seconds)):
            if number % EPISODE_STEPS == 0:
                self.link.begin()
            began = time.perf_counter()
            self.link.send(self.steps[number % EPISODE_STEPS])
            taken.append(time.perf_counter() - began)
            self.link.pump()
            clock.wait(self.link.wait)
            if number % EPISODE_STEPS == EPISODE_STEPS - 1:
                self.link.save()  # waits for the disk, between two episodes
                clock.start()
        self.link.cut()
        self._deliver()
        return taken

    def agentlace_paced(self, hz: float, seconds: float) -> None:
        assert self.peer
        clock = Clock(hz)
        clock.start()
        for _ in range(round(hz * seconds / EPISODE_STEPS)):
            self.peer.episode(self.steps, clock.wait)

    def link_weights(self) -> float:
        """When they were there, for a robot that does nothing else; every process has the same clock."""
        self.link.pump()  # asks for them
        self.orders.send("waiting")
        if not self.link.has_weights(10.0) or self.link.newest_weights() is None:
            raise SystemExit("no weights from the learner")
        return time.monotonic()

    def bare_weights(self) -> float:
        self.orders.send("waiting")
        self.bare.recv_multipart()
        return time.monotonic()

    def agentlace_weights(self) -> float:
        assert self.peer
        self.orders.send("waiting")
        return self.peer.weights_at()

    def link_acting(self, hz: float) -> float:
        """When a robot that acts at `hz` had the weights for its next action."""
        self.link.pump()
        self.orders.send("waiting")
        clock, number = Clock(hz), 0
        clock.start()
        self.link.begin()
        while not self.link.newest_weights():
            self.link.send(self.steps[number % (EPISODE_STEPS - 1)])
            self.link.pump()
            number += 1
            clock.wait(self.link.wait)
        there = time.monotonic()
        self.link.cut()
        self._deliver()
        return there

    def _deliver(self) -> None:
        while len(self.link.outbox):
            self.link.wait(0.05)


def robot(orders: Connection, name: str, addresses: Addresses, spool: str) -> None:
    """The process: orders are (method, *arguments), the last one is None."""
    me = Robot(orders, name, addresses, spool)
    orders.send("ready")
    while True:
        while not orders.poll(0.25):
            me.link.pump()
        order = orders.recv()
        if order is None:
            break
        method: Callable[..., Any] = getattr(me, order[0])
        orders.send(method(*order[1:]))
    me.link.close(0.0)
    me.bare.close()
    if me.peer:
        me.peer.close()
