"""Robot server: acts with the newest policy, streams every step to the learner, pulls new weights while it runs.

  python -m robot_server --env sim --task Lift            the learner on this machine
  python -m robot_server --env fake --episodes 3          three episodes, then the end

It waits for a learner that is not there yet, and moves nothing before the policy has arrived. When the learner goes
away, it keeps acting with the policy it has (in simulation for --max-backlog-steps; --while-away wait: not beyond the
episode), and delivers what it collected when the learner is back. It stops acting, and waits, rather than lose data:
when the spool folder holds --spool-gb or cannot be written. --address says where the learner is, --robot-name which of
several robots this one is.

--reset-address: a second learner trains a policy that puts the scene back. The two take turns, and each learner gets
the episodes of its own policy.

tools.panel and tools.teleop, on this computer, show what it does and let a person drive, pause and stop it (--control):
after a stop it moves nothing until a person releases it on the page.

Ctrl-C (or SIGTERM) ends the running episode after the step under way, delivers it and stops; what could not be
delivered stays in the spool folder, for the next start; so does, cut short, an episode whose robot server was killed. A
second Ctrl-C stops at once.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import envs
from agent import logs
from agent.cli import Stop, parse, run
from agent.config import LinkConfig
from agent.env_record import EnvRecord
from agent.files import low_space, raise_descriptor_limit
from agent.spec import Spec, UserError, plural
from envs.base import RESET_TASK, action_meaning, paced_env, while_closing
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.control_address import bound
from robot_server.link import Link
from robot_server.session import act

if TYPE_CHECKING:
    import gymnasium

log = logging.getLogger("robot_server")


OFTEN = ("env", "address", "robot-name", "episodes", "config")  # of the flags, first in --help


def helped(env: gymnasium.Env, after: int) -> gymnasium.Env:
    """The same, helped from step `after` on; 0: never. Raises ValueError, with `env` closed, if no expert can help."""
    if not after:
        return env
    from envs.helped import Helped  # with gymnasium, which takes a while to load

    try:
        return Helped(env, after)
    except BaseException:
        env.close()
        raise


def main(argv: list[str] | None = None) -> int:
    arguments = parse(
        argv, __doc__, ["robot", "link"], env_options=envs.options, prog="python -m robot_server", often=OFTEN
    )
    robot: RobotConfig = arguments.section("robot")
    logs.configure(robot.robot_name)
    name, options = arguments.env()
    try:
        env = helped(envs.make(name, **options), robot.help_after)
    except ValueError as error:
        raise UserError(str(error)) from None
    links: list[Link] = []
    try:
        if line := low_space(robot.spool):
            log.warning("%s", line)
        links += connect(arguments.section("link"), robot, env, EnvRecord(name, options))
    except BaseException:
        env.close()
        raise
    control = None
    with Stop() as stop:
        try:
            with contextlib.suppress(KeyboardInterrupt):  # asked twice: not even what it waits for is awaited
                control = open_control(robot, moves=paced_env(env) is not None)
                act(env, links[0], robot, stop, control, *links[1:])
        finally:
            stop.closing()
            serve = control.wait if control else time.sleep
            while_closing(env, lambda: stop.at_once or bool(control and control.hold_reason), serve)
            try:
                env.close()  # first: a robot must not wait for the network to be let go
            finally:
                try:
                    if control:
                        control.close()
                finally:
                    for link in links:  # before the first waits for its learner
                        link.cut()
                        link.save()
                    lost = sum([finish(link, lambda: stop.at_once) for link in links])
    if lost:
        return 1
    ended = any(link.done for link in links)
    return stop.exit_code if robot.episodes and not ended else 0  # without --episodes it has no other end


def open_control(robot: RobotConfig, moves: bool = False) -> Control | None:
    """The operator's socket; None without one, which is reported when one was wanted.

    moves: a real arm does, and starts without STOP only where that was asked for. Raises UserError.
    """
    raise_descriptor_limit()
    try:
        control = Control(bound(robot.control, robot.robot_name)) if robot.control else None
    except UserError as error:
        if moves:
            raise UserError(f"no STOP for this arm: {error}; --control '' starts it without") from None
        log.warning("no page and no teleoperation: %s", error)
        return None
    if control:
        control.running = False
        control.history.follow_log()
    return control


def connect(config: LinkConfig, robot: RobotConfig, env: gymnasium.Env, record: EnvRecord) -> list[Link]:
    """The link to the learner, and that to the reset policy's learner, if there is one. Raises UserError."""
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    if actions := action_meaning(env):
        rate = {"control_hz": robot.hz} if robot.hz else {}
        record = dataclasses.replace(record, actions={**rate, **actions})

    def link(address: str, record: EnvRecord, spool: str) -> Link:
        return Link(address, spec, robot.robot_name, record, spool, robot.spool_gb, config.insecure, config.keys)

    if not robot.reset_address:
        return [link(config.address, record, robot.spool)]
    if not getattr(env.unwrapped, "has_reset_task", False):
        raise UserError(f"robot.reset_address: --env {record.name} has no reset task; only real arms have, and fake")
    if robot.reset_address == config.address:
        raise UserError(f"robot.reset_address is the learner's own, {config.address}: the reset policy has another")
    resets = dataclasses.replace(record, options={**record.options, RESET_TASK: True})
    second = link(robot.reset_address, resets, f"{Path(robot.spool)}-reset")
    return [link(config.address, record, robot.spool), second]


def finish(link: Link, at_once: Callable[[], bool]) -> int:
    """Close the link, say what could not be delivered, and return how many episodes are lost: the spool failed too."""
    left = link.close(5.0, at_once)
    lost = link.unsaved
    if left > lost:
        kept = plural(left - lost, "episode")
        log.warning("%s not delivered: kept in %s, sent at the next start", kept, link.spool)
    if lost:
        log.error("%s LOST: neither delivered nor saved, %s cannot be written", plural(lost, "episode"), link.spool)
    return lost


if __name__ == "__main__":
    run(main)
