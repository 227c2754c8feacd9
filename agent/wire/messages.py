"""Messages between learner and robot server, as ZeroMQ frames: a msgpack header, and one frame with all arrays, if any.

The header declares the arrays; they lie one after the other, each from the next multiple of 8 bytes on.
Neither side trusts the other: no pickle, every field and array is declared and checked, sizes before memory is taken.

robot -> learner
  HELLO    who I am, what I see and do, what I hold (`outbox`)
  STEP     one transition of one episode
  PULL     send me weights other than those I `have`, now or when there are some; also heartbeat and outbox report
           and what people want to know of the link (agent.mailbox.robots.Robot)
  BYE      I am leaving
  PROBE    not a robot but tools.link: how are you, and could a robot with this `spec` and `env` join? may carry ballast
learner -> robot
  WELCOME  my run and network, and the `secret` with which you know my ACKs (wire.receipt). Before it, and again after
           each new connection, a robot believes nothing else of this list but WHO and REFUSE
  REFUSE   why not; `retry`: ask again, it may pass. Read whatever its protocol version, so that versions can disagree
  WEIGHTS  encoder and actor, newest only
  ACK      so many `steps` of that episode are on my disk, here is the `receipt`; if these are all, forget it
  RESEND   I miss steps of that episode, from `step` on
  WHO      I do not know you (I was restarted): say HELLO
  PACE     simulation: wait up to `hold_s` before the next step (a lease: it runs out by itself)
  DONE     the run is over: end the episode, deliver it, stop
  PONG     I got the PULL that you sent at `sent_s` (your clock)
  STATUS   the answer to a PROBE, with ballast of `answer_bytes`

`outbox` lists [robot, boot, episode, steps sent] of episodes not acknowledged; the learner answers each with ACK,
RESEND or nothing. That one report heals every loss: of steps, of acknowledgements, of a connection, of a process.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import zmq

from agent.spec import STEP_COLUMNS, STEP_FIELDS, Spec, Transition, UserError
from agent.wire.arrays import declare, read_layout
from agent.wire.untrusted import MAX_DEPTH, WireError, is_shallow, kind_of, unpack_map

PROTOCOL = 4
MAX_HEADER_BYTES = 1 << 20
MAX_MAP_BYTES = 1 << 14  # of a field that is a map (env, meta, spec, ...), as JSON
MAX_REPORTED = 5000  # episodes in one outbox report
HELD_STEPS = 200  # of a robot, that libzmq may hold between two drains
HELD_BYTES = 64 << 20  # or so much, if that is more

EPISODE = {"robot": str, "boot": str, "episode": int}
STEP_TYPES: dict[str, type] = {
    name: type(np.zeros((), STEP_COLUMNS[column]).item()) for column, name in STEP_FIELDS.items()
}
KINDS: dict[str, dict[str, type]] = {
    "HELLO": {"robot": str, "boot": str, "spec": dict, "env": dict, "outbox": list},
    "STEP": {
        **EPISODE,
        "step": int,
        **STEP_TYPES,
        "meta": dict,
    },
    "PULL": {
        "have": int,
        "ask": int,
        "outbox": list,
        "sent_s": float,
        "acting": int,
        "unacknowledged": int,
        "spooled": int,
        "reconnects": int,
        "round_trip_s": float,
        "steps_timed": int,
        "deadlines_missed": int,
        "late_p50_s": float,
        "late_p99_s": float,
    },
    "BYE": {},
    "WELCOME": {"run": str, "secret": str, "learner_boot": str, "spec": dict, "network": dict},
    "REFUSE": {"reason": str, "retry": bool},
    "WEIGHTS": {"version": int},
    "ACK": {**EPISODE, "steps": int, "receipt": str},
    "RESEND": {**EPISODE, "step": int},
    "WHO": {},
    "PACE": {"hold_s": float},
    "DONE": {},
    "PONG": {"sent_s": float},
    "PROBE": {"spec": dict, "env": dict, "sent_s": float, "answer_bytes": int},
    "STATUS": {
        "run": str,
        "spec": dict,
        "env": dict,
        "version": int,
        "robots": list,
        "differences": list,
        "sent_s": float,
    },
}
META_TYPES: dict[str, tuple[type, ...]] = {  # of an episode's meta, where they are there; None is as if they were not
    "env": (dict,),
    "seed": (int,),
    "run": (str,),
    "policy": (str,),
    "fps": (int, float),
    "marked": (str,),
    "env_success": (bool,),
    "unmarked": (list,),
}
ENV_TYPES: dict[str, tuple[type, ...]] = {"name": (str,), "options": (dict,)}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # of robots and boots: safe as part of a file name
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
    _check_fields(kind, fields)
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
    _check_fields(kind, header)
    layout = read_layout(declared)
    if len(frames) != (2 if layout.places else 1):
        raise WireError(f"{kind}: {len(layout.places)} arrays in {len(frames) - 1} frames")
    return Message(kind, header, layout.split(frames[1]) if layout.places else {})


def _header(frames: Sequence[Buffer]) -> dict[str, Any]:
    if not frames or len(frames[0]) > MAX_HEADER_BYTES:
        raise WireError("no header, or one that is too long")
    return unpack_map(frames[0])


def _check_fields(kind: str, fields: Mapping[str, Any]) -> None:
    expected = KINDS[kind]
    if fields.keys() != expected.keys():
        raise WireError(f"{kind}: fields {sorted(set(fields) ^ set(expected))!r:.200} missing or unexpected")
    for name, kind_of_value in expected.items():
        value = fields[name]
        fits = type(value) is kind_of_value
        if fits and kind_of_value is int:
            fits = (-1 if name == "have" else 0) <= value < 2**63
        elif fits and name in ("robot", "boot"):
            fits = NAME.fullmatch(value) is not None
        elif fits and name == "outbox":
            fits = len(value) <= MAX_REPORTED and all(_is_outbox_entry(entry) for entry in value)
        elif fits and kind_of_value is list:
            fits = all(type(entry) is str for entry in value)
        elif fits and kind_of_value is dict:
            fits = _is_json(value) and (name != "meta" or _is_meta(value))
        if not fits:
            raise WireError(f"{kind}: '{name}' is {kind_of(value)}")


def _is_outbox_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and [type(value) for value in entry] == [str, str, int, int]
        and all(NAME.fullmatch(name) for name in entry[:2])
        and all(0 <= number < 2**63 for number in entry[2:])
    )


def _is_json(value: dict[str, Any]) -> bool:
    """Whether `value` may go into an episode file's meta (bytes, timestamps, non-text keys and long ones may not)."""
    if not value:
        return True
    if not is_shallow(value, MAX_DEPTH - 1):  # the header is around it
        return False
    try:
        short = len(json.dumps(value)) <= MAX_MAP_BYTES
    except (TypeError, ValueError):
        return False
    return short and all(isinstance(key, str) for key in value)


def _is_meta(meta: dict[str, Any]) -> bool:
    """Whether what others will read of an episode's meta has the type that they expect."""
    env = meta.get("env") or {}
    return _has_types(meta, META_TYPES) and _has_types(env, ENV_TYPES)


def _has_types(given: dict[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    return all(value is None or type(value) in types.get(name, (type(value),)) for name, value in given.items())


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
