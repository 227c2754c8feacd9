"""Robot server: acts with the newest policy, streams every step to the learner, pulls new weights while it runs.

  python -m robot_server --env sim --task Lift            the learner on this machine
  python -m robot_server --env fake --episodes 3          three episodes, then the end

It waits for a learner that is not there yet, and moves nothing before the policy has arrived. When the learner goes
away, it goes on with the policy it has (in simulation for --max-backlog-steps; --while-away wait: not beyond the
episode), and delivers what it collected when the learner is back. It stops acting, and waits, rather than lose data:
when the spool folder holds --spool-gb or cannot be written. --address says where the learner is, --robot-name which of
several robots this one is.

tools.panel and tools.teleop, on this computer, show what it does and let a person drive, pause and stop it (--control):
after a stop it moves nothing until a person releases it on the page.

Ctrl-C (or SIGTERM) ends the running episode after the step under way, delivers it and stops; what could not be
delivered stays in the spool folder, for the next start; so does, cut short, an episode whose robot server was killed. A
second Ctrl-C stops at once.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import contextlib
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import envs
from agent import logs
from agent.cli import Stop, build, parse, run
from agent.config import LinkConfig, NetworkConfig
from agent.files import raise_descriptor_limit
from agent.spec import Spec, UserError, plural
from envs.base import PacedEnv, RobotFault, action_meaning, paced_env
from envs.clock import Clock
from robot_server.actor import Acting, Summary, run_episode, swap
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.control_address import bound
from robot_server.link import Link
from robot_server.stepper import ObservationFault

log = logging.getLogger("robot_server")

REMIND_S = 30.0
FAULTS_IN_A_ROW = 3  # episodes of a simulation that end by NaN, after which the robot server stops
SETTLE_S = 3.0  # between two reasons to wait
AWAY_S = 10.0  # a learner not heard of for so long is away, or in a very long update


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv, __doc__, ["robot", "link"], env_options=envs.options, prog="python -m robot_server")
    robot: RobotConfig = arguments.section("robot")
    logs.configure(robot.robot_name)
    name, options = arguments.env()
    try:
        env = envs.make(name, **options)
    except ValueError as error:
        raise UserError(str(error)) from None
    try:
        link = connect(arguments.section("link"), robot, env, {"name": name, "options": options})
    except BaseException:
        env.close()
        raise
    control = None
    with Stop() as stop:
        try:
            with contextlib.suppress(KeyboardInterrupt):  # asked twice: not even what it waits for is awaited
                control = open_control(robot, moves=paced_env(env) is not None)
                act(env, link, robot, stop, control)
        finally:
            stop.closing()
            try:
                env.close()  # first: a robot must not wait for the network to be let go
            finally:
                try:
                    if control:
                        control.close()
                finally:
                    lost = finish(link, lambda: stop.at_once)
    return (
        1 if lost else stop.exit_code if robot.episodes and not link.done else 0
    )  # without --episodes it has no other end


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
    return control


def connect(config: LinkConfig, robot: RobotConfig, env: Any, description: dict) -> Link:
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    if actions := action_meaning(env):
        rate = {"control_hz": robot.hz} if robot.hz else {}
        description = {**description, "actions": {**rate, **actions}}
    return Link(
        config.address, spec, robot.robot_name, description, robot.spool, robot.spool_gb, config.insecure, config.keys
    )


def act(env: Any, link: Link, robot: RobotConfig, stop: Stop, control: Control | None = None) -> None:
    """Wait for the learner and its policy, then run episodes until `stop` or the number asked for."""
    tally = Tally(robot.robot_name, link)
    if control:
        control.about = tally.about

    def over() -> bool:
        return stop() or link.done

    policy = first_policy(link, robot, over, control)
    arm = paced_env(env)
    clock = link.clock = arm.clock if arm else Clock(robot.hz)
    if arm and arm.realtime_denied:
        log.warning("no real-time scheduling (ulimit -r): other work on this machine can make a step late")

    faults = 0  # episodes in a row that the observations ended
    first_seed = int.from_bytes(os.urandom(4), "big") >> 1 if robot.seed is None else robot.seed
    for number in range(robot.episodes) if robot.episodes else itertools.count():
        if policy is None or not may_act(link, robot, over, control):
            break
        seed = first_seed + number
        try:
            summary = run_episode(
                env,
                policy,
                link,
                clock,
                seed,
                robot.deterministic,
                lambda: over() or bool(link.full),
                robot.max_backlog_steps,
                control,
            )
        except RobotFault as fault:
            cleared(fault, arm, link, control, over)
            continue
        except ObservationFault as fault:
            faults += 1
            if clock.hz:  # something moves in wall-clock time: a person has to look
                if arm:
                    with contextlib.suppress(RobotFault):  # it is held then, too
                        arm.hold()
                cleared(RobotFault(str(fault)), arm, link, control, over)
            elif faults == FAULTS_IN_A_ROW:
                raise
            else:
                log.warning("the episode ends: %s", fault)
            continue
        faults = 0
        if summary.steps:
            tally.count(summary)
            log.info("%s", str(summary).strip())
    if link.done:
        log.info("the learner's run is over")
    if clock.hz:
        log.info("%s", str(clock).strip())
    if tally.judged:
        log.info("%s", tally.verdicts())


def cleared(
    fault: RobotFault, arm: PacedEnv | None, link: Link, control: Control | None, over: Callable[[], bool]
) -> None:
    """Wait until what was the matter with the robot is over: until a person says so, unless it ends by itself.

    Raises SystemExit (code 1) where there is no page on which a person could.
    """
    while not over():
        log.warning("the arm is held: %s", fault)
        if not fault.by_itself:
            if not control:
                raise SystemExit(1)
            log.warning("Inspect the arm, then hold Release in the panel.")
            control.latch_stop(str(fault))
            while control.stopped and not over():
                serve(link, control, 0.1, over)
        before = str(fault)
        while not over():
            try:
                if arm:
                    arm.clear()
            except RobotFault as again:
                fault = again
                if not fault.by_itself or str(fault) != before:
                    break
                serve(link, control, 0.5, over)
            else:
                log.info("the arm goes on")
                if control:
                    control.fault = ""
                return


def may_act(link: Link, robot: RobotConfig, over: Callable[[], bool], control: Control | None = None) -> bool:
    """Wait while the next episode could be lost, or is not wanted; False when it is over."""

    def why_not() -> str:
        if control and control.held:
            return f"{control.held}: waiting for {'Release' if control.stopped else 'them to come back, or for Resume'}"
        away = robot.while_away == "wait" and link.silent_s > AWAY_S
        reason = link.full or ("the learner is away (robot.while_away)" if away else "")
        return reason and f"{reason}: waiting for the learner"

    def resolved() -> bool:
        serve(link, control, 1.0, lambda: not why_not())
        link.keep()
        return not why_not()

    reason = why_not()
    return not over() if not reason else wait_until(resolved, reason, over)


def serve(link: Link, control: Control | None, timeout_s: float, until: Callable[[], bool]) -> None:
    """Serve both, for so long at most."""
    end_s = time.monotonic() + timeout_s
    while (left_s := end_s - time.monotonic()) > 0 and not until():
        link.wait(min(left_s, 0.02 if control else left_s))
        if control:
            control.serve()


def first_policy(
    link: Link, robot: RobotConfig, stop: Callable[[], bool], control: Control | None = None
) -> Acting | None:
    """The policy, with the first weights loaded; None when asked to stop before they came."""

    def served(done: Callable[[float], bool]) -> Callable[[], bool]:
        def turn() -> bool:
            if control:
                control.serve()
            return done(0.1)

        return turn

    waiting = f"waiting for a learner at {link.address}"
    if not wait_until(served(link.connect), waiting, stop, lambda: link.trouble):
        return None
    import torch  # slow to load: not before it is known that there is a learner to serve

    from agent.policy import Policy

    torch.set_num_threads(robot.threads)
    network = {**(link.network or {}), "encoder_weights": ""}  # they come from the learner, with all others
    policy = Policy(link.spec, build(NetworkConfig, network, "the learner's network."))
    log.info("connected to the learner at %s%s", link.address, f", run {link.run}" if link.run else "")
    if not wait_until(served(link.has_weights), "waiting for the policy", stop):
        return None
    swap(policy, link)
    return policy


LINK_HEALTH = (
    "address",
    "run",
    "trouble",
    "full",
    "reconnects",
    "backlog",
    "unkept",
    "round_trip_s",
    "silent_s",
)


class Tally:
    """What the operator's socket tells besides the running episode."""

    def __init__(self, name: str, link: Link) -> None:
        self._name, self._link = name, link
        self.episodes = self.successes = self.discarded = 0
        self.judged: Counter[tuple[bool, bool]] = Counter()  # episodes, by the classifier's word and the environment's
        self._version, self._since_s = 0, time.monotonic()

    def count(self, summary: Summary) -> None:
        self.discarded += summary.word == "discard"
        self.episodes += summary.word != "discard"
        self.successes += summary.success and summary.word != "discard"
        if summary.true_success is not None:
            self.judged[summary.success, summary.true_success] += 1

    def verdicts(self) -> str:
        right, wrong, missed = (self.judged[words] for words in ((True, True), (True, False), (False, True)))
        called = f"{right + wrong} of {self.judged.total()} episodes called a success, {wrong} of them wrongly"
        return f"classifier: {called}; {missed} successes missed"

    def about(self) -> dict[str, Any]:
        link = self._link
        if link.version != self._version:
            self._version, self._since_s = link.version, time.monotonic()
        health = {name: getattr(link, name) for name in LINK_HEALTH}
        return {
            "robot": self._name,
            "episodes": self.episodes,
            "successes": self.successes,
            "discarded": self.discarded,
            "policy_version": self._version,
            "policy_age_s": time.monotonic() - self._since_s,
            "link": health,
        }


def wait_until(
    done: Callable[[], bool], what: str, stop: Callable[[], bool], why: Callable[[], str] = lambda: ""
) -> bool:
    """Call `done` until it is true; False when asked to stop. Says now and then what it waits for, and why."""
    said, said_s = "", -REMIND_S
    while not stop():
        if done():
            return True
        reason = why()
        line = f"{what}: {reason}" if reason else what
        if time.monotonic() - said_s > (REMIND_S if line == said else SETTLE_S):
            log.info("%s ...", line)
            said, said_s = line, time.monotonic()
    return False


def finish(link: Link, at_once: Callable[[], bool]) -> int:
    """Close the link, say what could not be delivered, and return how many episodes are lost: the spool failed too."""
    left = link.close(5.0, at_once)
    lost = link.unkept
    if left > lost:
        kept = plural(left - lost, "episode")
        log.warning("%s not delivered: kept in %s, sent at the next start", kept, link.spool)
    if lost:
        log.error("%s LOST: neither delivered nor kept, %s cannot be written", plural(lost, "episode"), link.spool)
    return lost


if __name__ == "__main__":
    run(main)
