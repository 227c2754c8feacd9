"""Messages between learner and robot server, as ZeroMQ frames: a msgpack header, and one frame with all arrays, if any.

The header declares the arrays; they lie one after the other, each from the next multiple of 8 bytes on.
Neither side trusts the other: no pickle, every field and array is declared and checked, sizes before memory is taken.
The kinds of message and their fields are in agent.wire.schema.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import zmq

from agent.spec import Spec, Transition, UserError
from agent.wire.arrays import declare, read_layout
from agent.wire.schema import KINDS, STEP_TYPES, check_fields
from agent.wire.untrusted import WireError, kind_of, unpack_map

PROTOCOL = 5
MAX_HEADER_BYTES = 1 << 20
HELD_STEPS = 200  # of a robot, that libzmq may hold between two drains
HELD_BYTES = 64 << 20  # or so much, if that is more

SEPARATOR = "~"  # in file names, between robot, boot and number: not in NAME, and plain text for shells, globs and URLs
SOCKET_OPTIONS = {
    zmq.LINGER: 500,  # ms for what is under way when a socket is closed
    zmq.SNDHWM: 100,
    # No limit: libzmq 4.3.5 aborts the process (libzmq issues 3937, 4364, 4767) when the peer of a connection that it
    # has stopped reading goes away and a heartbeat is due, and while it does not read it answers no heartbeat either.
    zmq.RCVHWM: 0,
    zmq.HEARTBEAT_IVL: 2000,  # ms; ZMTP's own, answered by libzmq however busy the process is
    zmq.HEARTBEAT_TIMEOUT: 6000,
}
Buffer = bytes | memoryview
EpisodeKey = tuple[str, str, int]  # robot, boot, number
REASON = "quarantined"  # in the meta of an episode that learning must not see: why


class ProtocolError(WireError):
    """A message of another protocol version."""


@dataclass(frozen=True)
class Message:
    """kind: one of KINDS. fields: exactly those declared there. arrays: name -> read-only array."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def pack(kind: str, arrays: Mapping[str, np.ndarray] | None = None, **fields: Any) -> list[bytes]:
    """Frames of one message, with a copy of the arrays. Raises WireError for anything that `unpack` would not take."""
    check_fields(kind, fields)
    layout = declare(arrays or {})
    header = msgpack.packb({"v": PROTOCOL, "kind": kind, **fields, "arrays": layout.declared})
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(f"the header of a {kind} has {len(header)} bytes")
    return [header, layout.join(arrays)] if arrays else [header]


def unpack(frames: Sequence[Buffer]) -> Message:
    """The message in `frames`; its arrays are views of them. Raises WireError, ProtocolError for another version."""
    header = _header(frames)
    version, kind, declared = header.pop("v", None), header.pop("kind", None), header.pop("arrays", None)
    if version != PROTOCOL and kind == "REFUSE" and isinstance(header.get("reason"), str):
        return Message("REFUSE", {"reason": header["reason"], "retry": False})
    if version != PROTOCOL or type(version) is not int:
        raise ProtocolError(f"protocol version {kind_of(version)}, here {PROTOCOL}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise WireError(f"unknown kind of message: {kind_of(kind)}")
    check_fields(kind, header)
    layout = read_layout(declared)
    if len(frames) != (2 if layout.places else 1):
        raise WireError(f"{kind}: {len(layout.places)} arrays in {len(frames) - 1} frames")
    return Message(kind, header, layout.split(frames[1]) if layout.places else {})


def _header(frames: Sequence[Buffer]) -> dict[str, Any]:
    if not frames or len(frames[0]) > MAX_HEADER_BYTES:
        raise WireError("no header, or one that is too long")
    return unpack_map(frames[0])


def pack_step(key: EpisodeKey, step: int, transition: Transition, meta: Mapping[str, Any] | None = None) -> list[bytes]:
    """A STEP: transition number `step` of the episode `key`. `meta` of the episode goes with its first or last step."""
    arrays = {f"obs/{name}": value for name, value in transition.observation.items()}
    arrays["action"] = transition.action
    for name, value in (transition.final_observation or {}).items():
        arrays[f"final/{name}"] = value
    return pack(
        "STEP",
        arrays,
        robot=key[0],
        boot=key[1],
        episode=key[2],
        step=step,
        **{name: kind(getattr(transition, name)) for name, kind in STEP_TYPES.items()},
        meta=dict(meta or {}),
    )


def largest_step(spec: Spec) -> int:
    """Bytes of the longest frame with arrays of a STEP: an observation, the final one, an action, each aligned."""
    observation = sum(8 + math.prod(spec.shape(key)) * spec.dtype(key).itemsize for key in spec.keys)
    return 2 * observation + 4 * spec.action_dim + 8


def held_bytes(spec: Spec) -> int:
    """Bytes of a robot that may wait in the learner's libzmq; a robot sends half of that before it waits for a PONG."""
    return max(HELD_BYTES, HELD_STEPS * largest_step(spec))


def wire_bytes(frames: Sequence[Sized]) -> int:
    """What `frames` take in ZMTP 3, without encryption."""
    return sum(len(frame) + (2 if len(frame) < 256 else 9) for frame in frames)


def read_step(message: Message) -> Transition:
    """The transition of a STEP, not checked against a spec yet. Raises WireError for arrays out of place."""
    parts: dict[str, dict[str, np.ndarray]] = {"obs": {}, "final": {}}
    action = None
    for name, array in message.arrays.items():
        part, _, key = name.partition("/")
        if name == "action":
            action = array
        elif key and part in parts:
            parts[part][key] = array
        else:
            raise WireError(f"STEP: unexpected array '{name}'")
    if action is None:
        raise WireError("STEP: no action")
    return Transition(
        observation=parts["obs"],
        action=action,
        final_observation=parts["final"] or None,
        **{name: message.fields[name] for name in STEP_TYPES},
    )


def episode_key(meta: Mapping[str, Any]) -> EpisodeKey:
    """Which episode the one with this meta is. Raises KeyError."""
    return meta["robot"], meta["boot"], meta["number"]


def episode_name(meta: Mapping[str, Any]) -> str:
    """'<robot>~<boot>~000012': the name, without suffix, of an episode's file on either side.

    No robot and no boot has a "~" in its NAME, so no two episodes share a file. (Earlier releases wrote "-" there, and
    are read: what counts is the file's meta.)
    """
    return SEPARATOR.join([meta["robot"], meta["boot"], f"{meta['number']:06d}"])


def without_meta(key: EpisodeKey, reason: str) -> dict[str, Any]:
    """The meta of an episode whose own cannot be used; its REASON sends it to quarantine/."""
    return {"robot": key[0], "boot": key[1], "number": key[2], REASON: reason}


def check_address(address: str, allowed: bool) -> None:
    """Raise UserError for an address that other machines could reach, unless `allowed`, and for an impossible port."""
    if "://" not in address:
        raise UserError(f"{address}: an address begins with its transport: tcp://{address or '127.0.0.1:5555'}")
    transport, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    if transport == "tcp" and port != "*" and not (port.isdecimal() and int(port) < 65536):
        raise UserError(f"{address} is not like tcp://127.0.0.1:5555: no port '{port}'")  # libzmq would take 99999
    if allowed or transport in ("ipc", "inproc") or host == "localhost":
        return
    try:
        if transport == "tcp" and ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise UserError(f"{address} can be reached from other machines: give --keys (python -m tools.keys), or --insecure")
