"""The learner's end of the link: episodes come out, weights go in. No thread: everything happens inside `drain`.

An episode is handed out once, and acknowledged to its robot only when the learner says that it is on disk; until then
the robot keeps it. So a learner that dies, at any moment, loses nothing.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from agent.env_record import EnvRecord
from agent.mailbox.assembly import Assembly
from agent.mailbox.delivery import Delivery, Requests
from agent.mailbox.listener import Listener
from agent.mailbox.robots import REPORTED, Refused, Robot, Robots
from agent.spec import Episode, Spec, SpecError
from agent.wire.bad_messages import Faults, shown, unexpected
from agent.wire.messages import PROTOCOL, EpisodeKey, Message, ProtocolError, pack, unpack
from agent.wire.receipt import boot_secret
from agent.wire.untrusted import WireError

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1 << 16  # to a PROBE
MAX_VERSIONS = 10_000  # of which it is known when they were offered
DRAIN_S = 0.2  # a drain ends after so long, whatever is still there


class Mailbox:
    """Binds `address` for robots that see and do `spec`.

    network: keyword arguments of agent.config.NetworkConfig, told to the robots. stored: how many steps are on disk
    already of each episode. env: the one that the data came from; other_env: robots may have another.
    steps: env steps received so far, each counted once, those of unfinished episodes too.
    progress: fields of a PROGRESS, told to robots from then on; {}: none.
    newest_episodes: robot's name -> the field newest_episode of what it is told.
    run: its name, told to everybody. secret: the run's, told to nobody (agent.wire.receipt); without one, robots keep a
    copy of what this run acknowledges after a restart of the learner.
    address: as bound (tells the port where 0 or * was asked for). faults: the bad messages. assembly, registry,
    listener: the episodes, the robots, and the socket.
    Raises UserError when the address is taken, impossible, or beyond this machine without `keys` (a folder,
    see agent.wire.keys) and not `insecure`, or a key is missing.
    """

    def __init__(
        self,
        address: str,
        spec: Spec,
        network: Mapping[str, Any],
        run: str = "run",
        stored: Mapping[EpisodeKey, int] = MappingProxyType({}),
        insecure: bool = False,
        keys: str | Path = "",
        env: EnvRecord | None = None,
        other_env: bool = False,
        secret: str = "",
    ):
        self.spec, self.run, self._env = spec, run, env or EnvRecord()
        self._secret = secret or secrets.token_hex(16)
        self._welcome: dict[str, Any] = {
            "learner_boot": secrets.token_hex(4),
            "spec": spec.to_dict(),
            "network": dict(network),
        }
        self.assembly = Assembly(stored)
        self.registry = Robots(spec, self._env, other_env)
        self._weights: list[bytes] = []
        self.progress: dict[str, Any] = {}
        self.newest_episodes: Mapping[str, dict[str, Any]] = {}
        self._version = -1
        self._offered_s: dict[int, float] = {}  # version -> when
        self._lease_end_s = 0.0
        self.faults = Faults()
        self.listener = Listener(address, spec, self.faults, keys, insecure)
        self._source = -1  # descriptor of the connection of the message that is looked at
        self.requests = Requests()
        self.delivery = Delivery(spec, run, self._secret, self.assembly, self.listener, self.requests)
        self.over_share = self.delivery.over_share  # names of robots whose new episodes are left with them
        self.address = self.listener.address

    @property
    def steps(self) -> int:
        return self.assembly.steps

    @property
    def counts(self) -> Counter[str]:
        """Bad messages by kind."""
        return self.faults.counts

    @property
    def robots(self) -> list[Robot]:
        """Robots heard of lately."""
        return [robot for robot in self.registry if robot.live]

    @property
    def known(self) -> list[Robot]:
        """Those, and robots that have been silent for a while without having left."""
        return list(self.registry)

    @property
    def met(self) -> bool:
        """Whether any robot has joined so far."""
        return self.registry.met

    def policy_age_s(self, robot: Robot) -> float:
        """How long ago the weights that `robot` acts with were offered; 0 when that is not known."""
        offered_s = self._offered_s.get(robot.acting)
        return time.monotonic() - offered_s if offered_s else 0.0

    def wait(self, timeout_s: float) -> bool:
        """Block until something arrives; False when nothing did."""
        return self.listener.wait(timeout_s)

    def drain(self, limit: int = 2000) -> list[Episode]:
        """Take in up to `limit` messages that are there; never blocks, never raises because of one.

        Returns the episodes that ended, checked, in order of ending. Their meta has robot, boot, number, env, seed.
        """
        for arrived in self.listener.messages(DRAIN_S):
            if arrived is None:
                self.registry.listened()
                break
            self._source = arrived.fd
            began_s = time.thread_time()
            if not self._receive(arrived.route, arrived.frames, arrived.holder):
                self.listener.budget.charge(arrived.route, time.thread_time() - began_s)
            limit -= 1
            if limit <= 0:
                break
        return self.assembly.take()

    def acknowledge(self, episode: Episode) -> None:
        """Tell its robot to forget `episode`: it is on this machine's disk."""
        self.delivery.acknowledge(episode)

    def offer(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """Newest weights for the robots, copied here. They replace older ones; a robot gets them when it asks."""
        self._weights = pack("WEIGHTS", weights, version=version)
        self._version = version
        self._offered_s[version] = time.monotonic()
        while len(self._offered_s) > MAX_VERSIONS:
            del self._offered_s[next(iter(self._offered_s))]
        for robot in self.registry:
            self._answer(robot)

    def pace(self, hold_s: float) -> None:
        """Ask every simulated robot to wait up to `hold_s` before its next step; 0 releases them. Cheap to repeat."""
        now = time.monotonic()
        if (hold_s > 0 and self._lease_end_s - now > hold_s / 2) or (hold_s <= 0 and self._lease_end_s <= now):
            return
        self._lease_end_s = now + hold_s
        for robot in self.registry:
            self.listener.send(robot.route, pack("PACE", hold_s=float(max(hold_s, 0))))

    def done(self) -> None:
        """Tell every robot that the run is over; each then delivers what it has and leaves. Cheap to repeat."""
        for robot in self.registry:
            if self.requests.due((robot.route, "DONE")):
                self.listener.send(robot.route, pack("DONE"))

    def close(self) -> None:
        """Flush what was sent (half a second at most) and free the address."""
        self.listener.close()

    def _receive(self, route: bytes, frames: list[memoryview], holder: str | None) -> bool:
        """Whether it was a step that was missing.

        holder: name of the robot whose key they came with; None without encryption.
        """
        robot = self.registry.get(route)
        sender = robot.name if robot else f"unknown {route!r:.80}"
        kind = "malformed"
        try:
            message = unpack(frames)
            kind = message.kind
            if kind == "HELLO":
                self._hello(route, message, holder)
                return False
            if kind == "PROBE":
                self.listener.connections.trust(self._source, robot=False)
                self.listener.send(route, self._status(message))
                return False
            if kind not in ("STEP", "PULL", "BYE"):
                raise WireError(f"{kind} is not for a learner")
            if robot is None:
                if kind != "BYE" and self.requests.due(route):
                    self.listener.send(route, pack("WHO"))
                return False
            if holder not in (None, robot.name):
                raise WireError(f"it came with the key of robot '{holder}'")
            robot.seen_s = time.monotonic()
            self.listener.connections.trust(self._source, robot=True)
            if kind == "STEP":
                return self.delivery.step(robot, message)
            if kind == "PULL":
                self._pull(robot, message)
            else:
                self.registry.leave(route)
        except ProtocolError as error:
            self.faults.note("protocol", sender, error)
            text = shown(error)
            self._refuse(route, f"{text}: learner and robot server must be of the same release (learner: {PROTOCOL})")
        except (WireError, SpecError) as error:
            self.faults.note(kind, sender, error)
        except Exception as error:  # nothing in one message ends a run
            self.faults.note(kind, sender, unexpected(error))
        return False

    def _hello(self, route: bytes, message: Message, holder: str | None) -> None:
        try:
            robot = self.registry.admit(
                route, message.fields, holder, lambda route: self.listener.send(route, pack("WHO"))
            )
        except Refused as refused:
            self._refuse(route, str(refused), refused.retry)
            return
        self.listener.connections.trust(self._source, robot=True)  # it sends what it has as soon as it reads WELCOME
        outbox = _of_one_robot(robot.name, message.fields["outbox"])
        self.assembly.cut_short(robot.name, robot.boot, {tuple(names) for *names, _ in outbox}, route)
        secret = boot_secret(self._secret, robot.name, robot.boot)
        self.listener.send(route, pack("WELCOME", run=self.run, secret=secret, **self._welcome))
        self.delivery.report(robot, outbox)

    def _status(self, probe: Message) -> list[bytes]:
        """The answer to a PROBE."""
        fields = probe.fields
        size = fields["answer_bytes"]
        if size > MAX_ANSWER_BYTES:
            raise WireError(f"PROBE: an answer of {size} bytes")
        return pack(
            "STATUS",
            {"ballast": np.zeros(size, np.uint8)},
            run=self.run,
            spec=self.spec.to_dict(),
            env=self._env.to_dict(),
            version=max(0, self._version),
            robots=[robot.name for robot in self.robots],
            differences=self.registry.differences(fields["spec"], fields["env"])[0] if fields["spec"] else [],
            sent_s=fields["sent_s"],
        )

    def _refuse(self, route: bytes, reason: str, retry: bool = False) -> None:
        self.listener.send(route, pack("REFUSE", reason=reason[:2000], retry=retry))

    def _pull(self, robot: Robot, message: Message) -> None:
        fields = message.fields
        robot.version, robot.ask = fields["have"], fields["ask"]
        for name in REPORTED:
            setattr(robot, name, fields[name])
        self.listener.send(robot.route, pack("PONG", sent_s=fields["sent_s"]))
        if self.progress and self.requests.due((robot.route, "PROGRESS")):
            newest = self.newest_episodes.get(robot.name, {})
            self.listener.send(robot.route, pack("PROGRESS", **self.progress, newest_episode=newest))
        self.delivery.report(robot, _of_one_robot(robot.name, fields["outbox"]))
        self._answer(robot)

    def _answer(self, robot: Robot) -> None:
        """WEIGHTS, if the robot has others and its newest question has had no answer: never two on their way."""
        if self._weights and robot.ask != robot.answered and robot.version != self._version:
            robot.answered = robot.ask
            self.listener.send(robot.route, self._weights, copy=False)  # a robot that does not read holds no copies


def _of_one_robot(name: str, outbox: list[list[Any]]) -> list[list[Any]]:
    """`outbox`, all of it of the robot that reports it. Raises WireError."""
    for other, *_ in outbox:
        if other != name:
            raise WireError(f"an outbox with episodes of '{other}'")
    return outbox
