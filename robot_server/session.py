"""A robot server's session: wait for the learner and its policy, run episodes, hold when something is the matter."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cli import Stop, build
from agent.config import NetworkConfig
from agent.wire.bad_messages import shown
from envs.base import RESET_TASK, PacedEnv, RobotFault, paced_env
from envs.clock import Clock
from envs.instructions import instruction
from robot_server.actor import Acting, Summary, run_episode, swap
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.link import Link
from robot_server.stepper import ObservationFault
from robot_server.tally import Tally
from robot_server.waiting import StepSink

if TYPE_CHECKING:
    import gymnasium

log = logging.getLogger(__name__)

REMIND_S = 30.0
FAULTS_IN_A_ROW = 3  # episodes of a simulation that end by NaN, after which the robot server stops
SETTLE_S = 3.0  # between two reasons to wait
AWAY_S = 10.0  # a learner not heard of for so long is away, or in a very long update


@dataclass
class Player:
    """A policy, the link to the learner that trains it, and what its episodes ask of the environment's reset."""

    link: Link
    policy: Acting
    reset_options: dict[str, Any] | None = None


class Session:
    """Runs episodes of `env` one after the other, and waits where something is the matter."""

    def __init__(
        self,
        env: gymnasium.Env,
        link: Link,
        robot: RobotConfig,
        over: Callable[[], bool],
        control: Control | None,
    ) -> None:
        self.env, self.robot, self.over, self.control = env, robot, over, control
        self.arm = paced_env(env)
        self.clock = self.arm.clock if self.arm else Clock(robot.hz)
        self.tally = Tally(robot.robot_name, link, self.arm)
        self.faults = 0  # episodes in a row that the observations ended
        if control:
            control.about = self.tally.about
            control.task = instruction(env)
            link.on_progress = control.history.learner_told
            self.tally.history = control.history

    def episode(self, player: Player, seed: int) -> Summary | None:
        """One episode; None for one that a fault ended. Raises ObservationFault for a simulation that keeps failing."""
        link, robot = player.link, self.robot
        try:
            summary = run_episode(
                self.env,
                player.policy,
                link,
                self.clock,
                seed,
                robot.deterministic,
                lambda: self.over() or bool(link.full),
                robot.max_backlog_steps,
                self.control,
                player.reset_options,
                self.tally.spend,
            )
        except RobotFault as fault:
            self.wait_for_release(fault, link)
            return None
        except ObservationFault as fault:
            self.faults += 1
            if self.clock.hz:  # something moves in wall-clock time: a person has to look
                if self.arm:
                    with contextlib.suppress(RobotFault):  # it is held then, too
                        self.arm.hold()
                self.wait_for_release(RobotFault(str(fault)), link)
            elif self.faults == FAULTS_IN_A_ROW:
                raise
            else:
                log.warning("the episode ends: %s", fault, extra={"kind": "stop"})
            return None
        self.faults = 0
        if summary.steps:
            prefix = "reset " if player.reset_options else ""
            log.info("%s%s", prefix, str(summary).strip(), extra={"kind": "episode"})
        return summary

    def wait_for_release(self, fault: RobotFault, link: StepSink) -> None:
        began = time.monotonic()
        cleared(fault, self.arm, link, self.control, self.over)
        if not fault.by_itself:
            self.tally.spend(time.monotonic() - began)

    def may_act(self, link: Link) -> bool:
        """See the function of that name; waiting for a release or Resume is a person's time."""
        if self.control:
            self.control.serve()  # what was pressed meanwhile
        waits = bool(self.control and self.control.hold_reason)
        began = time.monotonic()
        may = may_act(link, self.robot, self.over, self.control)
        if waits:
            self.tally.spend(time.monotonic() - began)
        return may


def act(
    env: gymnasium.Env,
    link: Link,
    robot: RobotConfig,
    stop: Stop,
    control: Control | None = None,
    reset_link: Link | None = None,
) -> None:
    """Wait for the learner and its policy, then run episodes until `stop` or the number asked for.

    reset_link: to the learner of a policy that resets the scene: after each episode that policy has one, too.
    """
    links = [link, reset_link] if reset_link else [link]
    if reset_link:
        link.beside, reset_link.beside = reset_link, link

    def over() -> bool:
        return stop() or any(each.done for each in links)

    session = Session(env, link, robot, over, control)
    players = first_policies(links, robot, over, control)
    for each in links:
        each.clock = session.clock
    if session.arm and session.arm.realtime_denied:
        log.warning("no real-time scheduling (ulimit -r): other work on this machine can make a step late")

    tally = session.tally
    first_seed = int.from_bytes(os.urandom(4), "big") >> 1 if robot.seed is None else robot.seed
    for number in range(robot.episodes) if robot.episodes else itertools.count():
        if not players or not session.may_act(link):
            break
        summary = session.episode(players[0], first_seed + number)
        if summary and summary.steps:
            tally.count(summary)
        for player in players[1:]:
            if session.may_act(player.link):
                summary = session.episode(player, first_seed + number)
                if summary and summary.steps:
                    tally.count_reset(summary)
    if any(each.done for each in links):
        print("the learner's run is over", flush=True)
    if session.clock.hz:
        print(session.clock, flush=True)
    if tally.classified:
        print(tally.verdicts(), flush=True)
    if tally.person_s or tally.resets:
        print(tally.person(), flush=True)


def first_policies(
    links: list[Link], robot: RobotConfig, over: Callable[[], bool], control: Control | None
) -> list[Player]:
    """One of each link, the second resets the scene; [] when asked to stop before all have come."""
    players = []
    for number, link in enumerate(links):
        if (policy := first_policy(link, robot, over, control)) is None:
            return []
        players.append(Player(link, policy, {RESET_TASK: True} if number else None))
    return players


def cleared(
    fault: RobotFault, arm: PacedEnv | None, link: StepSink, control: Control | None, over: Callable[[], bool]
) -> None:
    """Wait until what was the matter with the robot is over: until a person says so, unless it ends by itself.

    Raises SystemExit (code 1) where there is no page on which a person could.
    """
    while not over():
        log.warning("the arm is held: %s", fault, extra={"kind": "stop"})
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
                log.info("the arm resumes", extra={"kind": "stop"})
                if control:
                    control.fault = ""
                return


def may_act(link: Link, robot: RobotConfig, over: Callable[[], bool], control: Control | None = None) -> bool:
    """Wait while the next episode could be lost, or is not wanted; False when it is over."""

    def why_not() -> str:
        if control and control.hold_reason:
            remedy = "Release" if control.stopped else "them to come back, or for Resume"
            return f"{control.hold_reason}: waiting for {remedy}"
        away = robot.while_away == "wait" and link.silent_s > AWAY_S
        reason = link.full or ("the learner is away (robot.while_away)" if away else "")
        return reason and f"{reason}: waiting for the learner"

    def resolved() -> bool:
        serve(link, control, 1.0, lambda: not why_not())
        link.save()
        return not why_not()

    if control:
        control.serve()  # what was pressed while an episode was saved, or an arm connected
    reason = why_not()
    return not over() if not reason else wait_until(resolved, reason, over)


def serve(link: StepSink, control: Control | None, timeout_s: float, until: Callable[[], bool]) -> None:
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
    if not wait_until(served(link.connect), waiting, stop, lambda: link.connection_error):
        return None
    import torch  # slow to load: not before it is known that there is a learner to serve

    from agent.policy import Policy

    torch.set_num_threads(robot.threads)
    network = {**(link.network or {}), "encoder_weights": ""}  # they come from the learner, with all others
    policy = Policy(link.spec, build(NetworkConfig, network, "the learner's network."))
    run = f", run {shown(link.run)}" if link.run else ""
    log.info("connected to the learner at %s%s", link.address, run, extra={"kind": "link"})
    if not wait_until(served(link.has_weights), "waiting for the policy", stop):
        return None
    swap(policy, link)
    policy.warm_up()
    return policy


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
