"""Drives an arm through `envs.make`, as the robot server does, and reports each event as a line of JSON.

  python -m tools.stress.bus_drive ENV OPTIONS_JSON

It runs in the environment of the arm's driver. Each axis swings about its home; a hand that actions move (`hand`) is
led in a random direction and stopped, again and again, and each time "stood" has how far it is from where it was led.
After a fault it waits for a line on its standard input, which is the person who has inspected the arm; "close" ends it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np

import envs
from envs.base import RobotFault
from envs.real.hand import HandActions


def say(event: str, **more: Any) -> None:
    print(json.dumps({"time_s": time.monotonic(), "event": event, **more}), flush=True)


MOVED, STOOD = 5, 6  # steps of a hand
STANDS_S = 0.5  # after it was connected: nothing may move by itself


class Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("envs"):
            say("log", line=record.getMessage())


def main() -> None:
    logging.getLogger().addHandler(Log())
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=read, args=(lines,), daemon=True).start()
    try:
        env = envs.make(sys.argv[1], **json.loads(sys.argv[2]))
    except ValueError as error:
        say("refused", line=str(error))
        sys.exit(1)
    say("connected")
    time.sleep(STANDS_S)
    try:
        drive(env, lines)
    finally:
        env.close()
        say("closed")


def read(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line.strip())


def drive(env: Any, lines: SimpleQueue[str]) -> None:
    arm, fresh = env.unwrapped, True
    hand, size = isinstance(arm._actions, HandActions), env.action_space.shape[0]
    actions = led(size) if hand else swings(size)
    while True:
        try:
            if fresh:
                env.reset(seed=0)
                fresh = False
            action, looks = next(actions)
            observation, *_, info = env.step(action)
            relaxed = [name for name, row in arm.motors.items() if row.get("relaxed")]
            say("step", coasted=info["coasted"], lost=arm.lost_replies, relaxed=relaxed)
            if looks:
                off_m = float(np.linalg.norm(observation["ee_pos"] - arm._actions.goal))
                say("stood", off_mm=1000 * off_m, place=observation["ee_pos"].tolist())
            if not lines.empty() and lines.get() == "close":
                return
        except RobotFault as fault:
            say("fault", line=str(fault))
            if not cleared(arm, lines):
                return


def swings(size: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Actions of every axis, 4 s there and back, and whether to look then: never."""
    while True:
        yield np.full(size, np.sin(2 * np.pi * time.monotonic() / 4.0), np.float32), False


def led(size: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Actions of a hand, MOVED in a random direction and STOOD that ask for nothing, and whether to look then."""
    rng = np.random.default_rng(0)
    while True:
        way = rng.uniform(-1, 1, size).astype(np.float32)
        yield from ((way, False) for _ in range(MOVED))
        yield from ((np.zeros(size, np.float32), step == STOOD - 1) for step in range(STOOD))


def cleared(arm: Any, lines: SimpleQueue[str]) -> bool:
    """Once a person says that they have looked, until it works; False when they close it."""
    while lines.get() != "close":
        try:
            arm.clear()
        except RobotFault as fault:
            say("still", line=str(fault))
        else:
            say("cleared")
            return True
    return False


if __name__ == "__main__":
    main()
