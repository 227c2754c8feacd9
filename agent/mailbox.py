"""The learner's end of the link: episodes come out, weights go in. No thread: everything happens inside `drain`.

An episode is handed out once, and acknowledged to its robot only when the learner says that it is on disk; until then
the robot keeps it. So a learner that dies, at any moment, loses nothing.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from agent.assembly import Assembly
from agent.keys import Guard
from agent.spec import Episode, Spec, SpecError, UserError, env_differences
from agent.wire import (
    PROTOCOL,
    SOCKET_OPTIONS,
    EpisodeKey,
    Faults,
    Message,
    ProtocolError,
    WireError,
    check_address,
    pack,
    read_step,
    unpack,
)

log = logging.getLogger(__name__)

LIVE_S = 10.0  # a robot not heard of for so long may be replaced by another of its name
ASK_AGAIN_S = 0.5  # between two RESENDs or WHOs to the same robot about the same thing
MAX_ROBOT_FRAME_BYTES = 64 << 20  # libzmq hangs up on a longer one before taking memory for it


@dataclass
class Robot:
    """A robot server as the learner knows it. version: of the weights it has; -1 for none yet."""

    name: str
    boot: str
    env: dict[str, Any]
    route: bytes = field(repr=False)
    version: int = -1
    seen_s: float = 0.0  # time.monotonic() at its last message
    ask: int = field(default=-1, repr=False)  # number of its newest PULL
    answered: int = field(default=-1, repr=False)  # number of the PULL that got the last WEIGHTS

    @property
    def age_s(self) -> float:
        """Seconds since its last message."""
        return time.monotonic() - self.seen_s


class Mailbox:
    """Binds `address` for robots that see and do `spec`.

    network: keyword arguments of agent.config.NetworkConfig, told to the robots. stored: (robot, boot, number) of the
    episodes already on disk. env: {"name", "options"} that the data came from; other_env: robots may have another.
    steps: env steps received so far, each counted once, those of unfinished episodes too.
    counts: bad messages by kind. address: as bound (tells the port where 0 or * was asked for).
    Raises UserError when the address is taken, impossible, or beyond this machine without `keys` (a folder,
    see agent.keys) and not `insecure`, or a key is missing.
    """

    def __init__(
        self,
        address: str,
        spec: Spec,
        network: Mapping[str, Any],
        run: str = "",
        stored: Iterable[EpisodeKey] = (),
        insecure: bool = False,
        keys: str | Path = "",
        env: Mapping[str, Any] | None = None,
        other_env: bool = False,
    ):
        check_address(address, insecure or bool(keys))
        self._env, self._other_env = dict(env or {}), other_env
        self.spec = spec
        self._welcome = pack(
            "WELCOME", run=run, learner_boot=secrets.token_hex(4), spec=spec.to_dict(), network=dict(network)
        )
        self._assembly = Assembly(stored)
        self._robots: dict[bytes, Robot] = {}
        self._weights: list[bytes] = []
        self._version = -1
        self._asked: dict[Any, float] = {}  # what was asked of whom -> when
        self._lease_end_s = 0.0
        self._faults = Faults()
        self._context = zmq.Context()
        self._guard: Guard | None = None
        self._socket = self._context.socket(zmq.ROUTER)
        # Handover: a robot that reconnects replaces its half-dead connection.
        for option, value in {**SOCKET_OPTIONS, zmq.MAXMSGSIZE: MAX_ROBOT_FRAME_BYTES, zmq.ROUTER_HANDOVER: 1}.items():
            self._socket.setsockopt(option, value)
        self._socket.ipv6 = "[" in address
        try:
            if keys:
                self._guard = Guard(self._socket, self._context, Path(keys))
            self._socket.bind(address)
        except UserError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            hint = "; is another learner running?" if error.errno == zmq.EADDRINUSE else ""
            raise UserError(f"cannot listen at {address}: {error.strerror.lower()}{hint}") from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def steps(self) -> int:
        return self._assembly.steps

    @property
    def counts(self) -> Counter[str]:
        return self._faults.counts

    @property
    def robots(self) -> list[Robot]:
        """Robots heard of lately."""
        return [robot for robot in self._robots.values() if robot.age_s < LIVE_S]

    def wait(self, timeout_s: float) -> bool:
        """Block until something arrives; False when nothing did."""
        return bool(self._socket.poll(int(timeout_s * 1000)))

    def drain(self, limit: int = 2000) -> list[Episode]:
        """Take in up to `limit` messages that are there; never blocks, never raises because of one.

        Returns the episodes that ended, checked, in order of ending. Their meta has robot, boot, number, env, seed.
        """
        for _ in range(limit):
            try:
                frames = [self._socket.recv(zmq.NOBLOCK, copy=False)]
            except zmq.Again:
                break
            while frames[-1].more:
                frames.append(self._socket.recv(copy=False))
            holder = self._guard.holder(frames[0]) if self._guard else None
            self._receive(frames[0].bytes, [frame.buffer for frame in frames[1:]], holder)
        return self._assembly.take()

    def acknowledge(self, episode: Episode) -> None:
        """Tell its robot to forget `episode`: it is on this machine's disk."""
        key, route = self._assembly.acknowledge(episode)
        if route:
            self._acknowledge(route, key)

    def offer(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """Newest weights for the robots, copied here. They replace older ones; a robot gets them when it asks."""
        self._weights = pack("WEIGHTS", weights, version=version)
        self._version = version
        for robot in self._robots.values():
            self._answer(robot)

    def pace(self, hold_s: float) -> None:
        """Ask every simulated robot to wait up to `hold_s` before its next step; 0 releases them. Cheap to repeat."""
        now = time.monotonic()
        if (hold_s > 0 and self._lease_end_s - now > hold_s / 2) or (hold_s <= 0 and self._lease_end_s <= now):
            return
        self._lease_end_s = now + hold_s
        for route in self._robots:
            self._send(route, pack("PACE", hold_s=float(max(hold_s, 0))))

    def done(self) -> None:
        """Tell every robot that the run is over; each then delivers what it has and leaves. Cheap to repeat."""
        for route in self._robots:
            if self._due((route, "DONE")):
                self._send(route, pack("DONE"))

    def close(self) -> None:
        """Flush what was sent (half a second at most) and free the address."""
        self._socket.close()
        if self._guard:
            self._guard.stop()
        self._context.term()

    def _send(self, route: bytes, frames: Iterable[Any]) -> None:
        # ROUTER drops what its peer cannot take: each promise is kept by a report that asks again, not by a queue.
        try:
            self._socket.send_multipart([route, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._faults.note("unsent", repr(route), error)

    def _receive(self, route: bytes, frames: list[memoryview], holder: str | None) -> None:
        """holder: name of the robot whose key they came with; None without encryption."""
        robot = self._robots.get(route)
        sender = robot.name if robot else f"unknown {route!r:.80}"
        kind = "malformed"
        try:
            message = unpack(frames)
            kind = message.kind
            if kind == "HELLO":
                self._hello(route, message, holder)
                return
            if kind not in ("STEP", "PULL", "BYE"):
                raise WireError(f"{kind} is not for a learner")
            if robot is None:
                if kind != "BYE" and self._due(route):
                    self._send(route, pack("WHO"))
                return
            if holder not in (None, robot.name):
                raise WireError(f"it came with the key of robot '{holder}'")
            robot.seen_s = time.monotonic()
            if kind == "STEP":
                self._step(robot, message)
            elif kind == "PULL":
                self._pull(robot, message)
            else:
                del self._robots[route]
        except ProtocolError as error:
            self._faults.note("protocol", sender, error)
            self._refuse(route, f"{error}: learner and robot server must be of the same release (learner: {PROTOCOL})")
        except (WireError, SpecError) as error:
            self._faults.note(kind, sender, error)

    def _hello(self, route: bytes, message: Message, holder: str | None) -> None:
        fields = message.fields
        name, boot = fields["robot"], fields["boot"]
        if holder not in (None, name):
            self._refuse(route, f"its key is that of robot '{holder}', its robot.robot_name is '{name}'")
            return
        try:
            differences = Spec.from_dict(fields["spec"]).differences(self.spec)
        except (SpecError, OverflowError) as error:
            differences = [str(error)]
        options = env_differences(fields["env"], self._env) if self._env.get("name") else {}
        for option in ("env", "task", "robot"):  # equal spaces may hide them
            if option in options and not (self._other_env and option == "env"):
                hint = " (link.other_env true allows it)" if option == "env" else ""
                differences.append(f"{option}: {options[option]}{hint}")
        if differences:
            self._refuse(route, f"robot '{name}' and the learner's data differ (robot first): {'; '.join(differences)}")
            return
        for other in list(self._robots.values()):
            if other.name == name and other.boot != boot:
                if other.age_s < LIVE_S:
                    self._refuse(route, f"a robot named '{name}' is connected already (robot.robot_name)", retry=True)
                    return
                del self._robots[other.route]
        if options and route not in self._robots:
            named = "; ".join(f"{option}: {values}" for option, values in options.items())
            log.warning("robot '%s' and the learner's data differ (robot first): %s", name, named)
        self._robots[route] = Robot(name, boot, fields["env"], route, seen_s=time.monotonic())
        self._assembly.cut_short(name, boot, {tuple(names) for *names, _ in fields["outbox"]}, route)
        self._answer_outbox(self._robots[route], fields["outbox"])  # before WELCOME, which starts its steps
        self._send(route, self._welcome)

    def _refuse(self, route: bytes, reason: str, retry: bool = False) -> None:
        self._send(route, pack("REFUSE", reason=reason[:2000], retry=retry))

    def _pull(self, robot: Robot, message: Message) -> None:
        robot.version, robot.ask = message.fields["have"], message.fields["ask"]
        self._answer_outbox(robot, message.fields["outbox"])
        self._answer(robot)

    def _answer(self, robot: Robot) -> None:
        """WEIGHTS, if the robot has others and its newest question has had no answer: never two on their way."""
        if self._weights and robot.ask != robot.answered and robot.version != self._version:
            robot.answered = robot.ask
            self._send(robot.route, self._weights)

    def _answer_outbox(self, robot: Robot, outbox: list[list[Any]]) -> None:
        route = robot.route
        for *names, sent in outbox:
            key = tuple(names)
            if key[0] != robot.name:
                raise WireError(f"an outbox with episodes of '{key[0]}'")
            if key in self._assembly.stored:
                self._acknowledge(route, key)
            elif key not in self._assembly.unacknowledged:
                received = self._assembly.received(key)
                if received < sent:  # frames keep their order, so those are lost
                    self._resend(route, key, received)

    def _acknowledge(self, route: bytes, key: EpisodeKey) -> None:
        robot, boot, number = key
        self._send(route, pack("ACK", robot=robot, boot=boot, episode=number))

    def _resend(self, route: bytes, key: EpisodeKey, step: int) -> None:
        robot, boot, number = key
        if self._due((route, key, step)):
            self._send(route, pack("RESEND", robot=robot, boot=boot, episode=number, step=step))

    def _due(self, question: Any) -> bool:
        """Whether `question` has not been asked lately; notes that it is asked now."""
        now = time.monotonic()
        if len(self._asked) > 1000:
            self._asked = {asked: when for asked, when in self._asked.items() if now - when < ASK_AGAIN_S}
        if now - self._asked.get(question, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return False
        self._asked[question] = now
        return True

    def _step(self, robot: Robot, message: Message) -> None:
        fields, assembly = message.fields, self._assembly
        key, step = (fields["robot"], fields["boot"], fields["episode"]), fields["step"]
        last = fields["terminated"] or fields["truncated"]
        if key[0] != robot.name:
            raise WireError(f"a step of '{key[0]}'")
        if key in assembly.stored:
            if step == 0 or last:
                self._acknowledge(robot.route, key)
        elif key in assembly.unacknowledged:
            assembly.unacknowledged[key] = robot.route
        elif step > (received := assembly.received(key)):
            self._resend(robot.route, key, received)
        elif step == received or last:  # otherwise a duplicate
            transition = read_step(message)
            transition.check(self.spec)
            assembly.add(key, step, transition, fields["meta"], robot.route)
