"""The robot's end of the link: steps go out, weights come in, and nothing here ever blocks the control loop.

Every step stays in the outbox until the learner has acknowledged its whole episode. `pump` sends what the socket takes;
the learner's ACK, RESEND and WHO move the outbox's cursors.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from agent.env_record import EnvRecord
from agent.spec import Observation, Spec, Transition, UserError
from agent.wire.bad_messages import Faults, unexpected
from agent.wire.messages import Message, check_address, held_bytes, pack, unpack
from agent.wire.progress import read_progress
from agent.wire.schema import NAME
from agent.wire.untrusted import WireError
from envs.clock import Clock
from robot_server.connection import Connection
from robot_server.handshake import Handshake
from robot_server.outbox import Outbox
from robot_server.sender import Sender
from robot_server.weights_puller import WeightsPuller

HELLO_EVERY_S = 1.0
RECONNECT_S = 1.0  # after a handshake that failed
PULL_EVERY_S = 2.0
LONGEST_HOLD_S = 60.0
PUMP_S = 0.002  # sending a backlog takes at most this much of a control step

log = logging.getLogger(__name__)


class Link:
    """Connects to the learner at `address`, which need not be there yet.

    env: recorded with every episode. spool: folder for what is not delivered, spool_gb: how much may be there (see
    `full`). keys: folder with this robot's keys, see agent.wire.keys.
    counts: bad messages by kind. clock: of the control loop; how well it keeps its deadlines is reported. heard_s:
    time.monotonic() of the learner's last message. done: the learner said that its run is over. beside: a second
    robot's end in this process, which is served while this one waits. on_progress: called with each PROGRESS of the
    learner (agent.wire.progress).
    Raises UserError for an impossible address or name, one that is refused, or a key that is missing.
    """

    def __init__(
        self,
        address: str,
        spec: Spec,
        robot_name: str,
        env: EnvRecord,
        spool: str | Path = "spool",
        spool_gb: float = math.inf,
        insecure: bool = False,
        keys: str | Path = "",
    ):
        check_address(address, insecure or bool(keys))
        if not NAME.fullmatch(robot_name):
            raise UserError(f"robot.robot_name {robot_name!r}: letters, digits, '_', '-' and '.', 64 at most")
        self.address, self.spec, self.name = address, spec, robot_name
        self.env, self.spool = env.to_dict(), Path(spool)
        self.boot = secrets.token_hex(4)
        self.clock: Clock | None = None
        self.done = False
        self.beside: Link | None = None
        self.on_progress: Callable[[dict[str, Any]], object] = lambda progress: None
        self.outbox = Outbox(self.spool, spec, robot_name, self.boot, spool_gb * 1e9)
        self.handshake = Handshake(address, robot_name, self.boot, spec, self.env)
        self.weights = WeightsPuller()
        self._connections = 0  # made when that was last looked at
        self._connected = False
        self._due_s = self._retry_s = 0.0  # when HELLO or PULL is next to be sent, a connection given up to be retried
        self._hold_end_s = 0.0
        self.heard_s = time.monotonic()
        self._faults = Faults()
        identity = f"{robot_name}-{self.boot}".encode()
        options = {zmq.ROUTING_ID: identity, zmq.RECONNECT_IVL: 100, zmq.RECONNECT_IVL_MAX: 1000}
        self.connection = Connection(address, robot_name, keys, options)
        self.sender = Sender(self.connection, self.outbox, held_bytes(spec) // 2)

    @property
    def network(self) -> dict[str, Any] | None:
        """As the learner told; None before it has."""
        return self.handshake.network

    @property
    def run(self) -> str:
        """As the learner told; empty before it has."""
        return self.handshake.run

    @property
    def version(self) -> int:
        """Of the weights last taken, 0 before."""
        return self.weights.taken

    @property
    def counts(self) -> Counter[str]:
        return self._faults.counts

    @property
    def hold_s(self) -> float:
        """Seconds that a simulation should still wait before its next step; the lease runs out by itself."""
        return max(0.0, self._hold_end_s - time.monotonic())

    @property
    def backlog(self) -> int:
        """Steps that have not been sent yet, of ended episodes and of the running one."""
        return self.outbox.backlog

    @property
    def unsaved(self) -> int:
        """Episodes that are in memory only: neither acknowledged nor in the spool."""
        return self.outbox.unsaved

    @property
    def full(self) -> str:
        """Why the robot should make no more steps, in words: they could be lost. Empty: it may."""
        return self.outbox.full

    @property
    def connection_error(self) -> str:
        """Why there is no connection, in plain words; empty while there is one."""
        self.connection.read_events()
        return self.connection.error

    @property
    def silent_s(self) -> float:
        """Seconds since the learner's last message; it answers between two updates."""
        return time.monotonic() - self.heard_s

    def connect(self, timeout_s: float) -> bool:
        """Wait for the learner's WELCOME; False when the time is over. Raises UserError when it refuses."""
        deadline_s = time.monotonic() + timeout_s
        while not self.handshake.done and (left_s := deadline_s - time.monotonic()) > 0:
            self.wait(min(left_s, 0.05))
        return self.handshake.done

    def begin(self, meta: Mapping[str, Any] | None = None) -> int:
        """Start the next episode of this boot, and return its number. `meta`: JSON-able, such as {"seed": 3}."""
        return self.outbox.begin({"env": self.env, "run": self.run, "secret": self.handshake.secret, **(meta or {})})

    def send(self, transition: Transition) -> None:
        """Put the next step of the running episode in the outbox. Never blocks. Raises SpecError if it does not fit."""
        self.outbox.append(transition)

    def cut(self, observation: Observation | None = None, ending: str = "") -> None:
        """End the running episode, if there is one: its last step becomes truncated, `observation` came after it.

        ending: a person's, see run_episode. Without an observation (or with one that does not fit the spec) the last
        step is dropped, and its own is used. An episode without steps is dropped.
        """
        self.outbox.cut(observation, ending)

    def save(self) -> None:
        """Write what has ended, and is not acknowledged, to the spool. Waits for the disk: call it between episodes."""
        self.outbox.save()

    def pump(self) -> None:
        """Receive what has arrived and send what the socket takes, for two milliseconds each at most; never blocks.

        Raises UserError when the learner refuses this robot; nothing else that the learner sends raises.
        """
        connection, end_s = self.connection, time.monotonic() + PUMP_S
        with contextlib.suppress(zmq.Again):  # a reconnection may drop what was readable
            while time.monotonic() < end_s and connection.readable:
                if (frames := connection.receive()) is not None:
                    self._receive(frames)
        self._look_at_connection()
        now = time.monotonic()
        if now >= self._retry_s and connection.gave_up:
            self._retry_s = now + RECONNECT_S
            connection.retry()
        if self.sender.needs_pong:
            self._due_s = 0.0
        if now >= self._due_s and (self._send_pull() if self.handshake.done else self._send_hello()):
            self._due_s = now + (PULL_EVERY_S if self.handshake.done else HELLO_EVERY_S)
        if self.handshake.done:
            self.sender.send_steps(now + PUMP_S)

    def wait(self, timeout_s: float) -> None:
        """Pump, and return when something has arrived or the time is over."""
        if self.beside:
            self.beside.pump()
        self.pump()
        if self.connection.wait(timeout_s):
            self.pump()

    def has_weights(self, timeout_s: float) -> bool:
        """Whether newest_weights() has some to give, after waiting for them for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while not self.weights.waiting and (left_s := deadline_s - time.monotonic()) > 0:
            self.wait(left_s)
        return self.weights.waiting

    def newest_weights(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """(version, read-only arrays) of the newest weights, once; None when they have been taken already."""
        return self.weights.take()

    def close(self, timeout_s: float = 5.0, give_up: Callable[[], bool] = lambda: False) -> int:
        """End the running episode, deliver, say BYE; returns how many episodes are left: in the spool, or `unsaved`.

        They are written there before the wait for the learner begins: killing the process then loses nothing. give_up:
        ends that wait. When an exception comes out of here (Ctrl-C), close may be called again.
        """
        self.cut()
        self.save()
        deadline_s = time.monotonic() + timeout_s
        try:
            while self.outbox and self.network is not None and (left_s := deadline_s - time.monotonic()) > 0:
                if give_up():
                    break
                self._due_s = min(self._due_s, time.monotonic() + 0.25)  # report more often: nothing else will
                self.wait(min(left_s, 0.05))
        except UserError as error:
            log.warning("%s", error)
        if self.beside:
            self.beside.beside = None
        self.connection.close(pack("BYE"))
        self.outbox.close()
        return len(self.outbox.episodes)

    def _send_hello(self) -> bool:
        return not self.connection.error and self.connection.send(self.handshake.hello(self.outbox))

    def _send_pull(self) -> bool:
        if self.connection.error:
            return False
        report = {"sent_s": (now := time.monotonic()), "reconnects": self.connection.reconnects}
        pull = self.weights.pull(self.outbox, self.clock, **report, round_trip_s=self.sender.round_trip_s)
        if sent := self.connection.send(pull):
            self.sender.pulled(now)
        return sent

    def _look_at_connection(self) -> None:
        """Whoever is at the end of a new one has to say WELCOME first: it may be another."""
        self.connection.read_events()
        if self._connected == bool(self.connection.error):
            self._report_connection()
        if self.connection.count != self._connections:
            self._connections = self.connection.count
            self.handshake.done, self._due_s = False, 0.0
            self.sender.reset()

    def _report_connection(self) -> None:
        """Log that it is lost, or there again; not the first one, which is waited for."""
        self._connected = not self.connection.error
        if not self._connected and not self.done:
            log.warning("%s", self.connection.error)
        elif self.connection.reconnects:
            log.info("connected to %s again", self.address)

    def _receive(self, frames: list[bytes]) -> None:
        kind = "malformed"
        self._look_at_connection()  # libzmq tells of a connection before it hands out what came over it
        try:
            message = unpack(frames)
            kind, self.heard_s = message.kind, time.monotonic()
            if kind not in ("WELCOME", "REFUSE", "WEIGHTS", "ACK", "RESEND", "WHO", "PACE", "DONE", "PONG", "PROGRESS"):
                raise WireError(f"{kind} is not for a robot")
            if not self.handshake.done and kind not in ("WELCOME", "REFUSE", "WHO"):
                return
            getattr(self, f"_on_{kind.lower()}")(message)
        except WireError as error:
            self._faults.note(kind, self.address, error)
        except UserError:
            raise  # the learner refuses this robot
        except Exception as error:  # nothing in one message stops a robot
            self._faults.note(kind, self.address, unexpected(error))

    def _on_welcome(self, message: Message) -> None:
        if self.handshake.welcome(message.fields, self.outbox):
            self.weights.restart()
        self._due_s = 0.0

    def _on_refuse(self, message: Message) -> None:
        self.handshake.refuse(message.fields)

    def _on_weights(self, message: Message) -> None:
        self.weights.receive(message.fields["version"], message.arrays)
        self._due_s = 0.0

    def _on_ack(self, message: Message) -> None:
        self.outbox.acknowledge(self._key(message), message.fields["steps"], message.fields["receipt"])

    def _on_resend(self, message: Message) -> None:
        self.outbox.resend(self._key(message), message.fields["step"])

    def _on_who(self, message: Message) -> None:
        self.handshake.done, self._due_s = False, 0.0

    def _on_pace(self, message: Message) -> None:
        hold_s = message.fields["hold_s"]
        if not math.isfinite(hold_s) or hold_s < 0:
            raise WireError(f"PACE of {hold_s} s")
        self._hold_end_s = time.monotonic() + min(hold_s, LONGEST_HOLD_S)

    def _on_done(self, message: Message) -> None:
        self.done = True
        self._hold_end_s = 0.0

    def _on_pong(self, message: Message) -> None:
        self.sender.answered(message.fields["sent_s"])

    def _on_progress(self, message: Message) -> None:
        self.on_progress(read_progress(message.fields))

    @staticmethod
    def _key(message: Message) -> tuple[str, str, int]:
        return message.fields["robot"], message.fields["boot"], message.fields["episode"]
