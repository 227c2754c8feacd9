"""What no peer of ours sends: bytes of ZMTP 1.0, of HTTP, of nothing, and of messages that never end."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from tools.stress.fuzz_data import SPEC, on_cores
from tools.stress.hostile_messages import Noise

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: 99999999\r\n\r\n"
MESSAGES = 20  # of a connection
UNENDING_BYTES = 4 << 20
PAUSE_S = 0.02  # between two connections


def zmtp1(frames: list[bytes]) -> bytes:
    """One message; its lengths count the flags."""
    last = len(frames) - 1
    return b"".join(
        b"\xff" + (1 + len(frame)).to_bytes(8, "big") + bytes([at < last]) + frame for at, frame in enumerate(frames)
    )


def zmtp3(frames: list[bytes]) -> bytes:
    last = len(frames) - 1
    return b"".join(bytes([2 + (at < last)]) + len(frame).to_bytes(8, "big") + frame for at, frame in enumerate(frames))


def attacks(seed: int) -> Iterator[tuple[bytes, int]]:
    """What a connection sends, and how many messages that is."""
    draw, source = random.Random(seed), Noise(seed, SPEC, ["good"]).robot("x", "b0")
    end = 0
    while end < len(HEAD):  # the head of a request is taken for frames; where does the last one end?
        end += 1 + HEAD[end]
    head = HEAD + bytes(end - len(HEAD)) + b"\x01\x00"
    while True:
        messages = list(itertools.islice(source, MESSAGES))
        old, new = b"".join(map(zmtp1, messages)), b"".join(map(zmtp3, messages))
        yield draw.choice(
            [
                (b"\x01\x00" + old, MESSAGES),
                (head + old, MESSAGES),
                (head[: draw.randrange(len(head))], 1),
                (GREETING[: draw.randrange(len(GREETING))], 1),
                (GREETING[:10] + bytes([draw.randrange(3)]) + old, MESSAGES),
                (GREETING + READY + new, MESSAGES),
                (GREETING + READY + new[: draw.randrange(len(new))], MESSAGES),
                (GREETING + READY + b"\x01\x00" * draw.randrange(UNENDING_BYTES // 2), 1),
                (GREETING + READY + b"\x01\x00" * draw.randrange(300_000) + b"\x00\x00", 1),
                (GREETING + draw.randbytes(2000), 1),
                (draw.randbytes(2000), 1),
            ]
        )


def raw_strangers(orders: Connection, address: str) -> None:
    """Connects and sends until told to stop; answers how many messages that was."""
    on_cores(strangers=True)
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    sent, held = 0, []
    for data, count in attacks(7):
        if orders.poll():
            break
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((host, int(port)), timeout=0.5))
            held[-1].sendall(data)
            sent += count
        if len(held) > 30:
            held.pop(0).close()
        time.sleep(PAUSE_S)
    for each in held:
        each.close()
    orders.send(sent)
