"""The robot's end of the link: steps go out, weights come in, and nothing here ever blocks the control loop.

Every step stays in the outbox until the learner has acknowledged its whole episode. `pump` sends what the socket takes;
the learner's ACK, RESEND and WHO move the outbox's cursors.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from agent.data.episode_file import EpisodeFileError
from agent.env_record import EnvRecord
from agent.spec import Observation, Spec, Transition, UserError
from agent.wire.bad_messages import Faults, shown, unexpected
from agent.wire.frames import Frames
from agent.wire.messages import (
    MAX_REPORTED,
    NAME,
    Message,
    check_address,
    held_bytes,
    pack,
    unpack,
    wire_bytes,
)
from agent.wire.receipt import is_receipt
from agent.wire.untrusted import WireError
from envs.clock import Clock
from robot_server.outbox import Outbox
from robot_server.watch import dial

HELLO_EVERY_S = 1.0
RECONNECT_S = 1.0  # after a handshake that failed
PULL_EVERY_S = 2.0
TIMED = 600  # newest steps that lateness is reported of
PULLS_A_QUESTION = 5  # weights that got lost are asked for anew after so many PULLs
REFUSED_FOR_S = 15.0  # how long "that name is in use" may last: longer than the learner remembers a crashed robot
LONGEST_HOLD_S = 60.0
PUMP_S = 0.002  # sending a backlog takes at most this much of a control step

log = logging.getLogger(__name__)


class Link:
    """Connects to the learner at `address`, which need not be there yet.

    env: recorded with every episode. spool: folder for what is not delivered,
    spool_gb: how much may be there (see `full`).
    network, run: as the learner told; None and "" before it has. version: of the weights last taken, 0 before.
    keys: folder with this robot's keys, see agent.wire.keys. counts: bad messages by kind. Raises UserError for an
    impossible address or name, one that is refused, or a key that is missing.
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
        self.env = env.to_dict()
        self.boot = secrets.token_hex(4)
        self.network: dict[str, Any] | None = None
        self.run = self._secret = ""  # this boot's, in that run
        self.version = 0
        self.clock: Clock | None = None  # of whoever makes the steps: how well it keeps its deadlines is reported
        self._heard_s = time.monotonic()
        self.spool = Path(spool)
        self._outbox = Outbox(self.spool, spec, robot_name, self.boot, spool_gb * 1e9)
        self.done = False  # the learner said that its run is over
        self._welcomed = False  # on this connection
        self._connections = 0  # made when that was last looked at
        self._learner_boot = ""
        self._refused_s: float | None = None  # time.monotonic() of the first refusal in a row
        self._weights: tuple[int, dict[str, np.ndarray]] | None = None
        self._have = -1  # version of the newest weights received
        self._pulls = 0
        self._window = held_bytes(spec) // 2  # bytes of steps under way, beyond which the learner hangs up
        self._sent = self._taken = 0  # bytes of steps on this connection: given to the socket, and read by the learner
        self._pulled: deque[tuple[float, int]] = deque(maxlen=100)  # PULLs without PONG: sent_s, bytes before
        self._frames = Frames()
        self._due_s = self._reconnect_s = 0.0  # when HELLO or PULL is next to be sent, the connection to be looked at
        self._hold_end_s = 0.0
        self._faults = Faults()
        self._round_trips_s: deque[float] = deque(maxlen=30)
        options = {
            zmq.ROUTING_ID: f"{robot_name}-{self.boot}".encode(),
            zmq.RECONNECT_IVL: 100,
            zmq.RECONNECT_IVL_MAX: 1000,
        }
        self._context, self._socket, self._watch = dial(address, robot_name, keys, options)

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
        return self._outbox.backlog

    @property
    def unkept(self) -> int:
        """Episodes that are in memory only: neither acknowledged nor in the spool."""
        return self._outbox.unkept

    @property
    def full(self) -> str:
        """Why the robot should make no more steps, in words: they could be lost. Empty: it may."""
        return self._outbox.full

    @property
    def trouble(self) -> str:
        """Why there is no connection, in plain words; empty while there is one."""
        self._watch.read()
        return self._watch.trouble

    @property
    def reconnects(self) -> int:
        """How often the connection had to be made anew."""
        return max(0, self._watch.connections - 1)

    @property
    def round_trip_s(self) -> float:
        """Median of the last minute, from a question to the learner's answer, which comes between two updates."""
        return statistics.median(self._round_trips_s) if self._round_trips_s else 0.0

    @property
    def silent_s(self) -> float:
        """Seconds since the learner's last message; it answers between two updates."""
        return time.monotonic() - self._heard_s

    def connect(self, timeout_s: float) -> bool:
        """Wait for the learner's WELCOME; False when the time is over. Raises UserError when it refuses."""
        deadline_s = time.monotonic() + timeout_s
        while not self._welcomed and (left_s := deadline_s - time.monotonic()) > 0:
            self.wait(min(left_s, 0.05))
        return self._welcomed

    def begin(self, meta: Mapping[str, Any] | None = None) -> int:
        """Start the next episode of this boot, and return its number. `meta`: JSON-able, such as {"seed": 3}."""
        return self._outbox.begin({"env": self.env, "run": self.run, "secret": self._secret, **(meta or {})})

    def send(self, transition: Transition) -> None:
        """Put the next step of the running episode in the outbox. Never blocks. Raises SpecError if it does not fit."""
        self._outbox.append(transition)

    def cut(self, observation: Observation | None = None, ending: str = "") -> None:
        """End the running episode, if there is one: its last step becomes truncated, `observation` came after it.

        ending: a person's, see run_episode.

        Without an observation (or with one that does not fit the spec) the last step is dropped, and its own is used.
        An episode without steps is dropped.
        """
        self._outbox.cut(observation, ending)

    def keep(self) -> None:
        """Write what has ended, and is not acknowledged, to the spool. Waits for the disk: call it between episodes."""
        self._outbox.keep()

    def pump(self) -> None:
        """Receive what has arrived and send what the socket takes, for two milliseconds each at most; never blocks.

        Raises UserError when the learner refuses this robot; nothing else that the learner sends raises.
        """
        began = time.monotonic()
        try:
            while time.monotonic() < began + PUMP_S:
                if (frames := self._frames.read(self._socket)) is not None:
                    self._receive(frames)
        except zmq.Again:
            pass
        self._look_at_connection()
        now = time.monotonic()
        if now >= self._reconnect_s and self._watch.gave_up:
            self._reconnect_s = now + RECONNECT_S
            self._reconnect()
        if self._sent - (self._pulled[-1][1] if self._pulled else self._taken) > self._window // 2:
            self._due_s = 0.0  # the PONG will tell what the learner has read
        if now >= self._due_s and self._say_hello_or_pull():
            self._due_s = now + (PULL_EVERY_S if self._welcomed else HELLO_EVERY_S)
        if not self._welcomed:
            return
        for episode in self._outbox.deliverable:
            while episode.sent < episode.length:
                if time.monotonic() > now + PUMP_S:
                    return
                try:
                    frames = episode.message(episode.sent)
                except EpisodeFileError as error:
                    self._outbox.move_damaged(episode, error)
                    return
                if self._sent - self._taken > self._window or not self._put(frames):
                    return
                self._sent += wire_bytes(frames)
                episode.sent += 1

    def wait(self, timeout_s: float) -> None:
        """Pump, and return when something has arrived or the time is over."""
        self.pump()
        if self._socket.poll(max(0, int(timeout_s * 1000))):
            self.pump()

    def has_weights(self, timeout_s: float) -> bool:
        """Whether newest_weights() has some to give, after waiting for them for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._weights is None and (left_s := deadline_s - time.monotonic()) > 0:
            self.wait(left_s)
        return self._weights is not None

    def newest_weights(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """(version, read-only arrays) of the newest weights, once; None when they have been taken already."""
        newest, self._weights = self._weights, None
        if newest:
            self.version = newest[0]
        return newest

    def close(self, timeout_s: float = 5.0, give_up: Callable[[], bool] = lambda: False) -> int:
        """End the running episode, deliver, say BYE; returns how many episodes are left, all but `unkept` in the spool.

        They are written there before the wait for the learner begins: killing the process then loses nothing. give_up:
        ends that wait. When an exception comes out of here (Ctrl-C), close may be called again.
        """
        self.cut()
        self.keep()
        deadline_s = time.monotonic() + timeout_s
        try:
            while self._outbox and self.network is not None and (left_s := deadline_s - time.monotonic()) > 0:
                if give_up():
                    break
                self._due_s = min(self._due_s, time.monotonic() + 0.25)  # report more often: nothing else will
                self.wait(min(left_s, 0.05))
        except UserError as error:
            log.warning("%s", error)
        if not self._socket.closed:
            self._watch.read()
            self._put(pack("BYE"))
            self._watch.close()
            self._socket.close()
        self._context.term()
        return len(self._outbox.episodes)

    def _put(self, frames: Sequence[bytes]) -> bool:
        """Whether the socket took them. It would take some without a connection: for those the outbox is the queue.

        (zmq.IMMEDIATE would do that, too, but libzmq 4.3.5 with it can abort the process: a connection that ends while
        a message of several frames is being read takes the unread ones away.)
        """
        if self._watch.trouble:
            return False
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _reconnect(self) -> None:
        """Try again where libzmq has given up: the keys may have been put right."""
        self._watch.gave_up = False
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disconnect(self.address)
        self._socket.connect(self.address)

    def _say_hello_or_pull(self) -> bool:
        if self._watch.trouble:
            return False
        held = self._outbox.deliverable if self._welcomed else self._outbox.episodes.values()
        outbox = [[*out.key, out.sent] for out in held if out.sent or not self._welcomed][:MAX_REPORTED]  # the oldest
        if self._welcomed:
            self._pulls += 1
            pull = pack(
                "PULL",
                have=self._have,
                ask=self._pulls // PULLS_A_QUESTION,
                outbox=outbox,
                sent_s=(now := time.monotonic()),
                acting=self.version,
                unacknowledged=sum(out.length for out in held),
                spooled=sum(out.file is not None for out in held),
                reconnects=self.reconnects,
                round_trip_s=self.round_trip_s,
                **self._timing(),
            )
            if taken := self._put(pull):
                self._pulled.append((now, self._sent))
            return taken
        spec = self.spec.to_dict()
        return self._put(pack("HELLO", robot=self.name, boot=self.boot, spec=spec, env=self.env, outbox=outbox))

    def _timing(self) -> dict[str, Any]:
        if not self.clock:
            return {"steps_timed": 0, "deadlines_missed": 0, "late_p50_s": 0.0, "late_p99_s": 0.0}
        median_s, most_s = self.clock.late(TIMED)
        counts = {"steps_timed": self.clock.steps, "deadlines_missed": self.clock.misses}
        return {**counts, "late_p50_s": median_s, "late_p99_s": most_s}

    def _look_at_connection(self) -> None:
        """Whoever is at the end of a new one has to say WELCOME first: it may be another."""
        self._watch.read()
        if self._watch.connections != self._connections:
            self._connections = self._watch.connections
            self._welcomed, self._due_s = False, 0.0
            self._sent = self._taken = 0
            self._pulled.clear()

    def _receive(self, frames: list[bytes]) -> None:
        kind = "malformed"
        self._look_at_connection()  # libzmq tells of a connection before it hands out what came over it
        try:
            message = unpack(frames)
            kind, self._heard_s = message.kind, time.monotonic()
            if kind not in ("WELCOME", "REFUSE", "WEIGHTS", "ACK", "RESEND", "WHO", "PACE", "DONE", "PONG"):
                raise WireError(f"{kind} is not for a robot")
            if not self._welcomed and kind not in ("WELCOME", "REFUSE", "WHO"):
                return
            getattr(self, f"_on_{kind.lower()}")(message)
        except WireError as error:
            self._faults.note(kind, self.address, error)
        except UserError:
            raise  # the learner refuses this robot
        except Exception as error:  # nothing in one message stops a robot
            self._faults.note(kind, self.address, unexpected(error))

    def _on_welcome(self, message: Message) -> None:
        fields = message.fields
        if not (fields["run"] and fields["secret"]):
            raise WireError("a run without a name or a secret")
        if self.network not in (None, fields["network"]):
            raise UserError(
                f"the learner at {self.address} came back with another network: start the robot server anew"
            )
        self.network, self.run, self._secret = fields["network"], fields["run"], fields["secret"]
        self._outbox.use_run(self.run)
        if fields["learner_boot"] != self._learner_boot:
            self._learner_boot = fields["learner_boot"]
            self._have = -1  # another learner's versions say nothing about ours
        self._welcomed, self._refused_s, self._due_s = True, None, 0.0

    def _on_refuse(self, message: Message) -> None:
        self._welcomed = False
        now = time.monotonic()
        self._refused_s = self._refused_s or now
        if not message.fields["retry"] or now - self._refused_s > REFUSED_FOR_S:
            raise UserError(f"the learner at {self.address} refused: {shown(message.fields['reason'])}")

    def _on_weights(self, message: Message) -> None:
        self._have = message.fields["version"]
        self._weights = (self._have, message.arrays)
        self._pulls += PULLS_A_QUESTION  # the next question is a new one
        self._due_s = 0.0

    def _on_ack(self, message: Message) -> None:
        key, stored = self._key(message), message.fields["steps"]
        episode = self._outbox.episodes.get(key)
        if episode is None:
            return
        secret = episode.meta.get("secret")
        if episode.held or (secret and not is_receipt(message.fields["receipt"], secret, key[2], stored)):
            raise WireError(f"ACK of {key} from another run")
        if stored < episode.length:  # cut short there, when this robot was away
            episode.sent = min(episode.sent, stored)  # the learner asks for the rest that it needs
        elif not episode.ended:
            raise WireError(f"ACK of {key}, which has not ended")
        else:
            self._outbox.deliver(key)

    def _on_resend(self, message: Message) -> None:
        if episode := self._outbox.episodes.get(self._key(message)):
            episode.sent = min(episode.sent, message.fields["step"])

    def _on_who(self, message: Message) -> None:
        self._welcomed, self._due_s = False, 0.0

    def _on_pace(self, message: Message) -> None:
        hold_s = message.fields["hold_s"]
        if not math.isfinite(hold_s) or hold_s < 0:
            raise WireError(f"PACE of {hold_s} s")
        self._hold_end_s = time.monotonic() + min(hold_s, LONGEST_HOLD_S)

    def _on_done(self, message: Message) -> None:
        self.done = True
        self._hold_end_s = 0.0

    def _on_pong(self, message: Message) -> None:
        round_trip_s = time.monotonic() - message.fields["sent_s"]
        if not 0 <= round_trip_s < 1e9:
            raise WireError(f"PONG after {round_trip_s} s")
        self._round_trips_s.append(round_trip_s)
        while self._pulled and self._pulled[0][0] <= message.fields["sent_s"]:  # the learner reads in order
            self._taken = self._pulled.popleft()[1]

    @staticmethod
    def _key(message: Message) -> tuple[str, str, int]:
        return message.fields["robot"], message.fields["boot"], message.fields["episode"]
