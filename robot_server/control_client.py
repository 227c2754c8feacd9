"""Asking the operator's socket of a robot server (robot_server.control, which says what can be asked)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import zmq

from agent.spec import UserError
from agent.wire.arrays import MAX_FRAME_BYTES, read_layout
from agent.wire.untrusted import WireError, unpack_map
from robot_server.command import Command
from robot_server.control_address import key_path, read_key

REFUSED_S = 0.5
NOTICE_S = 3.0


class Operator:
    """The other end, for tools: connects to a Control once it is there, and anew when its robot server is restarted.

    Raises UserError for an impossible address.
    """

    def __init__(self, address: str, context: zmq.Context[Any] | None = None) -> None:
        self.address, self._key_path, self._key_stamp = address, key_path(address), (0, 0)
        self.socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self._refused, self._refused_s = "", -math.inf
        self._notice, self._notice_s = "", -math.inf
        for option, value in ((zmq.LINGER, 100), (zmq.SNDHWM, 10), (zmq.MAXMSGSIZE, MAX_FRAME_BYTES)):
            self.socket.setsockopt(option, value)
        self.socket.curve_publickey, self.socket.curve_secretkey = zmq.curve_keypair()
        try:
            self.refresh()
        except zmq.ZMQError as error:
            self.socket.close(0)
            raise UserError(f"cannot connect to {address}: {error.strerror.lower()}") from None

    def refresh(self) -> None:
        """Connect if there is a new key. What was not sent by then was for the robot server before, and is dropped."""
        try:
            found = self._key_path.stat()
        except OSError:
            return
        stamp = found.st_mtime_ns, found.st_ino
        if stamp == self._key_stamp or not (key := read_key(self._key_path)):
            return
        if any(self._key_stamp):
            self.socket.disconnect(self.address)
        self.socket.curve_serverkey, self._key_stamp = key, stamp
        self.socket.connect(self.address)

    @property
    def refused(self) -> str:
        """Why a command was refused lately; empty: none was."""
        return self._refused if time.monotonic() - self._refused_s < REFUSED_S else ""

    @property
    def notice(self) -> str:
        """Why an event was ignored lately; empty: none was."""
        return self._notice if time.monotonic() - self._notice_s < NOTICE_S else ""

    def drive(self, command: Command, state: Mapping[str, Any] | None = None) -> None:
        """Give the newest command; its events, too, of a person who saw `state`.

        Never waits; to be repeated well within HELD_S.
        """
        for event in command.events:
            self.send(question("event", event=event, **seen(state or {})))
        placed = {} if command.place is None else {"place": dict(command.place)}
        self.send(question("drive", motion=command.motion, gripper=command.gripper, enabled=command.enabled, **placed))
        while self.socket.poll(0):
            self._receive()

    def ask(self, kind: str, timeout_s: float = 2.0, **more: Any) -> dict[str, Any]:
        """The answer; an empty one when none came in time."""
        asked, end_s = time.monotonic_ns(), time.monotonic() + timeout_s
        self.send(question(kind, id=asked, **more))
        while self.socket.poll(max(0, int(1000 * (end_s - time.monotonic())))):
            if (told := self._receive()).get("id") == asked:
                return told
        return {}

    def lift(self, event: str) -> dict[str, Any]:
        """The answer to "release" or "resume" of the stop or pause that the robot reports now."""
        return self.ask("event", event=event, **seen(self.ask("state").get("state", {})))

    def _receive(self) -> dict[str, Any]:
        told = answer(self.socket.recv_multipart())
        if "refused" in told:
            self._refused, self._refused_s = str(told["refused"]), time.monotonic()
        if "ignored" in told:
            self._notice, self._notice_s = f"{told['ignored']}: {told.get('why', '')}", time.monotonic()
        return told

    def close(self) -> None:
        self.socket.close()

    def send(self, frame: bytes) -> None:
        self.refresh()
        with contextlib.suppress(zmq.Again):
            self.socket.send(frame, zmq.NOBLOCK)


def seen(state: Mapping[str, Any]) -> dict[str, Any]:
    """What an event carries of the state that the person saw."""
    return {"stop": state.get("stop"), "pause": state.get("pause"), "seen_s": state.get("at_s")}


def question(kind: str, **more: Any) -> bytes:
    packed: bytes = msgpack.packb({"ask": kind, "sent_s": time.monotonic(), **more}, default=plain)
    return packed


def answer(frames: Sequence[bytes]) -> dict[str, Any]:
    """Of a Control; "observation": the arrays of frames. Raises WireError."""
    fields = read_map(frames[:1])
    if len(frames) > 1:
        fields["observation"] = read_layout(fields.pop("arrays", None)).split(frames[1])
    return fields


def read_map(frames: Sequence[bytes]) -> dict[str, Any]:
    """The one map that a message has. Raises WireError."""
    if len(frames) != 1:
        raise WireError(f"{len(frames)} frames")
    return unpack_map(frames[0])


def plain(value: Any) -> object:
    """numpy's numbers and arrays, for msgpack."""
    return value.tolist()
