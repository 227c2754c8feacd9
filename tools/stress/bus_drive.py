"""Drives an arm through `envs.make`, as the robot server does, and reports each event as a line of JSON.

  python -m tools.stress.bus_drive ENV OPTIONS_JSON

It runs in the environment of the arm's driver. Each axis swings about its home. After a fault it waits for a line on
its standard input, which is the person who has inspected the arm; "close" ends it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from queue import SimpleQueue
from typing import Any

import numpy as np

import envs
from envs.base import RobotFault


def say(event: str, **more: Any) -> None:
    print(json.dumps({"time_s": time.monotonic(), "event": event, **more}), flush=True)


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
    while True:
        try:
            if fresh:
                env.reset(seed=0)
                fresh = False
            push = np.sin(2 * np.pi * time.monotonic() / 4.0)  # 4 s there and back
            info = env.step(np.full(env.action_space.shape, push, np.float32))[4]
            relaxed = [name for name, row in arm.motors.items() if row.get("relaxed")]
            say("step", coasted=info["coasted"], lost=arm.lost_replies, relaxed=relaxed)
            if not lines.empty() and lines.get() == "close":
                return
        except RobotFault as fault:
            say("fault", line=str(fault))
            if not cleared(arm, lines):
                return


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
