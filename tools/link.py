"""Can this machine reach the learner, is the key right, do versions and spaces match, and how fast is it?

  python -m tools.link                                                      the learner on this machine
  python -m tools.link --learner tcp://gpu-box:5555 --keys keys --robot-name arm1
  python -m tools.link --learner tcp://gpu-box:5555 --keys keys --robot-name arm1 --env sim --task Lift

Run it where the robot server is to run, with the keys and the name that it will have. With --env it also says whether
that environment fits the learner's data. It disturbs nothing: it does not join the run, moves no robot and makes no
episode; beside a running robot server it may be used at any time. The learner answers between two updates, so the
round trip includes the rest of the update that is being made. Exit code 0: all is well; 1: something is not, and the
last line says what to do.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import zmq

import envs
from agent import cli
from agent.env_record import EnvRecord
from agent.spec import Spec, SpecError, UserError
from agent.wire.bad_messages import shown
from agent.wire.messages import Message, check_address, pack, unpack
from agent.wire.schema import NAME
from agent.wire.untrusted import WireError
from envs.base import action_meaning
from robot_server.connection import Connection
from tools.common.rollout import make_env

CONNECT_S = 3.0
ANSWER_S = 10.0  # an update may be under way
SMALL, LARGE = 20, 40  # messages; many more at once, and the learner would stop listening (agent.mailbox.cpu_budget)
BUSY_S = 3.0
STEP_BYTES = 2 * 128 * 128 * 3
DOWN_BYTES = 1 << 16


class NotWell(Exception):
    """What is wrong, and what to do."""


class Probe:
    """A connection to the learner at `address` that asks and never joins. Raises UserError for missing keys."""

    def __init__(self, address: str, keys: str, robot: str) -> None:
        self.address = address
        self.connection = Connection(address, robot, keys, {zmq.LINGER: 0})

    def connect(self, timeout_s: float) -> None:
        """Raises NotWell when there is no connection in time."""
        deadline = time.monotonic() + timeout_s
        while self.connection.error and not self.connection.gave_up and time.monotonic() < deadline:
            time.sleep(0.02)
            self.connection.read_events()
        if self.connection.error:
            raise NotWell(self.connection.error)

    def ask(self, spec: dict[str, Any], env: dict[str, Any], ballast: int = 0, back: int = 0) -> None:
        array = {"ballast": np.zeros(ballast, np.uint8)} if ballast else {}
        probe = pack("PROBE", array, spec=spec, env=env, sent_s=time.monotonic(), answer_bytes=back)
        self.connection.socket.send_multipart(probe)

    def answer(self, timeout_s: float = ANSWER_S) -> Message:
        """The next answer. Raises NotWell when there is none, or it is a refusal."""
        if not self.connection.wait(timeout_s):
            raise NotWell(
                f"{self.address} is connected, but has not answered in {timeout_s:g} s: is the learner stuck?"
            )
        try:
            message = unpack(self.connection.socket.recv_multipart())
        except WireError as error:
            raise NotWell(f"{self.address} sent an unexpected answer: {shown(error)}") from None
        if message.kind != "STATUS":
            raise NotWell(shown(message.fields.get("reason", f"{self.address} answers with {message.kind}")))
        return message

    def close(self) -> None:
        self.connection.close()


def round_trips_s(probe: Probe) -> list[float]:
    """Of small messages, one after the other, at no moment of the learner's own."""
    taken = []
    for number in range(SMALL):
        time.sleep(0.01 + 0.037 * number % 0.05)
        probe.ask({}, {})
        taken.append(time.monotonic() - probe.answer().fields["sent_s"])
    return sorted(taken)


def rate(probe: Probe, ballast: int, back: int) -> float | None:
    """Messages a second, many under way at once; None when the learner had no time for them all."""
    began = time.monotonic()
    for _ in range(LARGE):
        probe.ask({}, {}, ballast, back)
    try:
        for _ in range(LARGE):
            probe.answer(BUSY_S)
    except NotWell:
        return None
    return LARGE / (time.monotonic() - began)


def describe(spec: Spec) -> str:
    cameras = [f"{name} {height}x{width}" for name, (height, width, _) in spec.cameras.items()]
    states = [f"{name} ({length})" for name, length in spec.states.items()]
    return f"{', '.join(cameras + states)}; actions ({spec.action_dim})"


def report(probe: Probe, own: tuple[Spec, EnvRecord] | None) -> Iterator[str]:
    """Line by line. Raises NotWell with the last one."""
    yield f"connection   {probe.address}: made"
    spec, env = own or (None, EnvRecord())
    probe.ask(spec.to_dict() if spec else {}, env.to_dict())
    fields = probe.answer().fields
    try:
        theirs = describe(Spec.from_dict(fields["spec"]))
    except SpecError as error:
        raise NotWell(f"the learner's spaces are invalid: {shown(error)}") from None
    robots = ", ".join(shown(name) for name in fields["robots"]) or "none"
    yield f"learner      run {shown(fields['run']) or '-'}, policy {fields['version']}, robots: {robots}"
    yield f"its data     {shown(fields['env'].get('name', '-'))}: {theirs}"
    times_s = round_trips_s(probe)
    yield f"round trip   {1e3 * statistics.median(times_s):.1f} ms, {1e3 * times_s[-1]:.1f} ms at most, of {SMALL}"
    up, down = rate(probe, STEP_BYTES, 0), rate(probe, 0, DOWN_BYTES)
    busy = "not measured: the learner is busy"
    steps = f"at least {up:.0f} steps/s of two 128x128 cameras, {up * STEP_BYTES / 1e6:.0f} MB/s" if up else busy
    yield f"up           {steps}"
    yield f"down         {f'at least {down * DOWN_BYTES / 1e6:.0f} MB/s' if down else busy}"
    if spec is None:
        yield "spaces       not compared (--env)"
    elif fields["differences"]:
        raise NotWell(f"a robot with this environment would be refused: {shown('; '.join(fields['differences']))}")
    else:
        yield "spaces       match"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--learner", metavar="ADDRESS", help="where it listens (link.address)")


OFTEN = ("learner", "keys", "robot-name", "env")  # of the flags, first in --help


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parse(
        argv, __doc__, ["link", "robot"], add_flags, envs.options, prog="python -m tools.link", often=OFTEN
    )
    link, robot = arguments.section("link"), arguments.section("robot").robot_name
    address = arguments.flags.learner or link.address
    check_address(address, link.insecure or bool(link.keys))
    if not NAME.fullmatch(robot):
        raise UserError(f"robot.robot_name {robot!r}: letters, digits, '_', '-' and '.', 64 at most")
    probe = Probe(address, link.keys, robot)
    try:
        probe.connect(CONNECT_S)
        if link.keys:
            print(f"key          {robot}: known", flush=True)
        for line in report(probe, own_spec(arguments)):
            print(line, flush=True)
    except NotWell as wrong:
        print(f"NOT WELL     {wrong}", file=sys.stderr)
        return 1
    finally:
        probe.close()
    return 0


def own_spec(arguments: cli.Arguments) -> tuple[Spec, EnvRecord] | None:
    """Spaces and description of the environment asked for with --env, if one was."""
    if not arguments.flags.env:
        return None
    name, options = arguments.env()
    env = make_env(name, options)
    try:
        record = EnvRecord(name, options, action_meaning(env))
        return Spec.from_spaces(env.observation_space, env.action_space), record
    finally:
        env.close()


if __name__ == "__main__":
    cli.run(main)
