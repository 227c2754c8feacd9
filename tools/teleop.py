"""Take over a robot that acts: drive it with a device while the policy fine-tunes, and judge its episodes.

  python -m tools.teleop --device gamepad            beside python -m robot_server, in another terminal of its computer

The arm is yours while the device is enabled (keyboard: e, on and off; gamepad: right bumper, held; SpaceMouse: right
button, held), and the policy's otherwise. What you do is recorded as it was executed, and flagged as an intervention.
Ctrl-C, an unplugged device or a lost connection while you drive holds the arm; enable it again, or resume on the page
(tools.panel), which gives it back to the policy. No key here releases a STOP: inspect the arm, then release it on the
page. Without a device at hand, drive from the page.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Any

from agent import cli
from agent.spec import UserError
from envs.clock import Clock
from robot_server.command import Device, idle_keys
from robot_server.control_address import find
from robot_server.control_client import Operator
from tools.devices.table import BY_A_PERSON, LEROBOT, opened_for_a_person

HZ = 25.0
SHOWN_S = 0.2
STOPPED = "stopped: inspect the arm, then release it on the page (python -m tools.panel)"


def teleoperate(device: Device, operator: Operator, stop: cli.Stop) -> None:
    """Until `stop()` or the device's "stop", which stops this tool and not the robot."""
    clock, enabled, shown_s = Clock(HZ), False, 0.0
    state: dict[str, Any] = {}
    clock.start()
    while not stop():
        command = device.read()
        if "stop" in command.events:
            return
        if command.enabled and not enabled and (action := operator.ask("state").get("state", {}).get("action")):
            device.reset(1.0 if action[-1] > 0 else -1.0)  # the gripper stays as it is
            command = dataclasses.replace(device.read(), events=command.events)
        if command.events:
            command = dataclasses.replace(command, events=paused_or_not(command.events, state))
        if command.enabled or enabled or command.events:
            operator.drive(command, state)
        enabled = command.enabled
        if time.monotonic() - shown_s > SHOWN_S:
            shown_s = time.monotonic()
            state = show(operator, enabled)
        clock.wait()


def paused_or_not(events: tuple[str, ...], state: Mapping[str, Any]) -> tuple[str, ...]:
    """One key pauses and resumes: which of the two, `state` tells, the newest that the person was shown."""
    word = "resume" if state.get("paused") else "pause"
    return tuple(word if event in ("pause", "resume") else event for event in events)


def show(operator: Operator, enabled: bool) -> dict[str, Any]:
    """Write the status line; returns the state that it shows, {} for none."""
    told = operator.ask("state", timeout_s=0.1)
    if not told:
        line = f"no robot server answers at {operator.address}"
    elif enabled and operator.refused:
        line = f"you do not drive: {operator.refused}"
    elif operator.notice:
        line = operator.notice
    else:
        state = told["state"]
        what = STOPPED if state["stopped"] else "paused" if state["paused"] else state["driven"] or "the policy acts"
        line = f"{what} | episode {state.get('episode', '-')}, step {state.get('step', '-')}"
        line += f" | {state.get('successes', 0)} of {state.get('episodes', 0)} succeeded"
    sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else f"{line}\n")
    sys.stderr.flush()
    return dict(told.get("state", {}))


def add_flags(parser: argparse.ArgumentParser) -> None:
    cli.suggest(parser.add_argument("--device", metavar="NAME", help=", ".join(BY_A_PERSON)), BY_A_PERSON)


OFTEN = ("device", "control", "speed", "dead-band")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, ["collect", "robot"], add_flags, prog="python -m tools.teleop", often=OFTEN)
    name = arguments.flags.device
    if name not in BY_A_PERSON and not (name or "").startswith(LEROBOT):
        wrong = f"--device {name}" if name else "--device NAME is needed"
        raise UserError(f"{wrong}: the devices are {', '.join(BY_A_PERSON)}{cli.nearest(name or '', BY_A_PERSON)}")
    config = dataclasses.replace(arguments.section("collect"), enable_key=True)
    device = opened_for_a_person(name, config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(device))
        operator = stack.enter_context(contextlib.closing(Operator(find(arguments))))
        motions = operator.ask("state", timeout_s=0.5).get("state", {}).get("motions")
        print("\n".join(filter(None, [device.keys, idle_keys(motions) if motions else ""])), file=sys.stderr)
        stop = stack.enter_context(cli.Stop())
        try:
            teleoperate(device, operator, stop)
        finally:
            sys.stderr.write("\n")


if __name__ == "__main__":
    cli.run(main)
