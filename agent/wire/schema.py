"""The messages between learner and robot server: each kind, its fields, and the check of what a field holds.

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
  PROGRESS how the run is getting on, after a PONG: for the operator, see wire.progress
  STATUS   the answer to a PROBE, with ballast of `answer_bytes`

`outbox` lists [robot, boot, episode, steps sent] of episodes not acknowledged; the learner answers each with ACK,
RESEND or nothing. That one report heals every loss: of steps, of acknowledgements, of a connection, of a process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.spec import STEP_COLUMNS, STEP_FIELDS
from agent.wire.untrusted import MAX_DEPTH, WireError, is_shallow, kind_of

MAX_MAP_BYTES = 1 << 14  # of a field that is a map (env, meta, spec, ...), as JSON
MAX_REPORTED = 5000  # episodes in one outbox report

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
    "PROGRESS": {
        "stage": str,
        "updates": int,
        "updates_due": int,
        "env_steps": int,
        "env_steps_wanted": int,
        "episodes": int,
        "seconds_left": float,
        "checkpoint_age_s": float,
        "figures": dict,
        "warnings": list,
        "newest_episode": dict,
    },
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
    "state_names": (dict,),
}
ENV_TYPES: dict[str, tuple[type, ...]] = {"name": (str,), "options": (dict,)}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # of robots and boots: safe as part of a file name


def check_fields(kind: str, fields: Mapping[str, Any]) -> None:
    """Raise WireError for a message of `kind` whose fields are not those of KINDS."""
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
