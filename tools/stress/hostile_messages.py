"""Messages as a broken or hostile peer would send them: random ones, and ones made from good ones of every kind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

from agent.spec import Observation, Spec, Transition
from agent.wire.messages import PROTOCOL, pack, pack_step
from agent.wire.schema import KINDS

TO_LEARNER = ("HELLO", "STEP", "PULL", "PROBE", "BYE")
PLAIN: dict[type, Any] = {bool: True, int: 1, float: 0.5, str: "x", list: [], dict: {}}
JUNK: list[Any] = [
    None, True, -1, 2**63, 2**64 - 1, 0.5, float("nan"), float("-inf"), 1e300, "", "../../x", "x" * 70, "\x1b[2J\n",
    b"bytes", [], [[]], {}, {"": {}}, {"a": [float("nan")]}, [["r", "b", 0, 0]] * 9, [["r", "b", -1, 0]], "STEP",
    msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), [2**40], [[2**30] * 8], [["w", "uint8", [2**62, 2]]],
]  # fmt: skip

DEEP = (2, 15, 17, 100, 511, 1000, 1023, 5000)  # levels of containers
HERE = "HERE-0123456789"  # in a header, where something is put that msgpack would not write
METAS = (
    *("env", "seed", "run", "policy", "fps", "marked", "env_success", "unmarked", "order", "quarantined", "robot"),
    "state_names",
)


class Noise:
    """Draws messages for a learner (its robots see and do `spec`) or for a robot, all from one `seed`.

    names: of robots. Strangers know them; boots they have to guess.
    """

    def __init__(self, seed: int, spec: Spec, names: list[str]) -> None:
        self.random, self.spec, self.names = random.Random(seed), spec, names
        rng = np.random.default_rng(seed)
        seen: Observation = {key: rng.integers(0, 256, spec.shape(key), dtype=np.uint8) for key in spec.cameras}
        self.seen: Observation = {
            **seen,
            **{key: rng.normal(size=n).astype(np.float32) for key, n in spec.states.items()},
        }

    def robot(self, name: str, boot: str) -> Iterator[list[Any]]:
        """What a stranger that says to be `name` sends to a learner."""
        while True:
            kinds = TO_LEARNER if self.random.random() < 0.9 else tuple(KINDS)
            yield self.spoilt(self.good(self.random.choice(kinds), name, boot))

    def learner(self) -> Iterator[list[Any]]:
        """What a stranger that plays the learner sends to a robot; at times what only robots may say."""
        kinds = tuple(kind for kind in KINDS if kind not in TO_LEARNER)
        while True:
            kind = self.random.choice(kinds if self.random.random() < 0.9 else TO_LEARNER)
            yield self.spoilt(self.good(kind, "robot", "b0"))

    def good(self, kind: str, name: str, boot: str) -> list[Any]:
        """A message of `kind` in which everything is right."""
        draw = self.random
        key = (draw.choice([name, name, *self.names]), draw.choice([boot, f"{draw.getrandbits(32):08x}"]))
        episode, step = draw.choice([0, 1, draw.getrandbits(20)]), draw.choice([0, 0, 1, 2, draw.getrandbits(62)])
        if kind == "STEP":
            last = draw.random() < 0.1
            action = np.full(self.spec.action_dim, draw.uniform(-1, 1), np.float32)
            made = Transition(self.seen, action, 0.0, last, False, final_observation=self.seen if last else None)
            meta = {f"m{draw.getrandbits(20)}": "x" * draw.randrange(500)} if draw.random() < 0.2 else {}
            return pack_step((*key, episode), step, made, meta)
        outbox = [[*key, draw.getrandbits(30), draw.randrange(3)] for _ in range(draw.choice([0, 1, 5, 2000]))]
        fields: dict[str, Any] = {
            "robot": name, "boot": boot, "episode": episode, "step": step, "outbox": outbox, "env": {"name": "bench"},
            "have": draw.choice([-1, 0, 1, 2**40]), "ask": draw.getrandbits(20), "run": "x", "learner_boot": "y",
            "spec": self.spec.to_dict(), "network": {"features": 8}, "reason": "so it is", "retry": True,
            "secret": "x", "version": draw.getrandbits(30), "hold_s": draw.uniform(0, 1e-3),
        }  # fmt: skip
        arrays = {"w": np.zeros(1000, np.float32)} if kind == "WEIGHTS" else {}
        return pack(kind, arrays, **{field: fields.get(field, PLAIN[of]) for field, of in KINDS[kind].items()})

    def spoilt(self, frames: list[Any]) -> list[bytes]:
        """`frames` with something wrong, or (one in six) as they are."""
        draw, raw = self.random, [bytes(frame) for frame in frames]
        at = draw.randrange(len(raw))
        match draw.randrange(15):
            case 0:
                raw[at] = raw[at][: draw.randrange(len(raw[at]) + 1)]
            case 1 | 2:
                flipped = bytearray(raw[at])
                for _ in range(draw.randrange(1, 9) if flipped else 0):
                    flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
                raw[at] = bytes(flipped)
            case 3 | 4 | 5:
                header = msgpack.unpackb(raw[0])
                for _ in range(draw.randrange(1, 3)):
                    header[draw.choice([*header, "extra"])] = draw.choice(JUNK)
                raw[0] = msgpack.packb(header, strict_types=False)
            case 6:
                header = msgpack.unpackb(raw[0])
                del header[draw.choice([*header])]
                raw[0] = msgpack.packb(header)
            case 7:
                del raw[at]
                raw = raw or [b""]
            case 8:
                more = draw.choice(
                    [[raw[at]], [b""], [b""] * 300, [b""] * 20_000, [draw.randbytes(30)] * draw.randrange(1, 300)]
                )
                raw[at:at] = more
            case 9:
                raw = [draw.randbytes(draw.randrange(200)) for _ in range(draw.randrange(1, 4))]
                kinds = [b"", b"\x91" * 20_000, b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x80" * 1000]
                raw[0] = draw.choice([raw[0], *kinds, msgpack.packb({"v": PROTOCOL + 1, "kind": "HELLO"})])
            case 10 | 11:
                header = msgpack.unpackb(raw[0])
                header[draw.choice([*header, "extra"])] = HERE
                raw[0] = msgpack.packb(header).replace(msgpack.packb(HERE), self.nested())
            case 12:
                header = msgpack.unpackb(raw[0])
                header["meta"] = {name: draw.choice(JUNK) for name in draw.sample(METAS, draw.randrange(1, 4))}
                raw[0] = msgpack.packb(header, strict_types=False)
        return raw

    def nested(self) -> bytes:
        """Containers in one another, in msgpack."""
        opened = self.random.choice([b"\x91", b"\x81\xa1a", b"\x92\x90", b"\xdd\0\0\0\1"])
        return opened * self.random.choice(DEEP) + b"\xc0"
