"""A robot server's session: wait for the learner and its policy, run episodes, hold when something is the matter."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from agent.cli import Stop, build
from agent.config import NetworkConfig
from agent.wire.bad_messages import shown
from envs.base import PacedEnv, RobotFault, paced_env
from envs.clock import Clock
from robot_server.actor import Acting, StepSink, Summary, run_episode, swap
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.link import Link
from robot_server.stepper import ObservationFault

if TYPE_CHECKING:
    import gymnasium

log = logging.getLogger(__name__)

REMIND_S = 30.0
FAULTS_IN_A_ROW = 3  # episodes of a simulation that end by NaN, after which the robot server stops
SETTLE_S = 3.0  # between two reasons to wait
AWAY_S = 10.0  # a learner not heard of for so long is away, or in a very long update


def act(env: gymnasium.Env, link: Link, robot: RobotConfig, stop: Stop, control: Control | None = None) -> None:
    """Wait for the learner and its policy, then run episodes until `stop` or the number asked for."""
    tally = Tally(robot.robot_name, link, paced_env(env))
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
        print("the learner's run is over", flush=True)
    if clock.hz:
        print(clock, flush=True)
    if tally.classified:
        print(tally.verdicts(), flush=True)


def cleared(
    fault: RobotFault, arm: PacedEnv | None, link: StepSink, control: Control | None, over: Callable[[], bool]
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
                log.info("the arm resumes")
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
    log.info("connected to the learner at %s%s", link.address, f", run {shown(link.run)}" if link.run else "")
    if not wait_until(served(link.has_weights), "waiting for the policy", stop):
        return None
    swap(policy, link)
    return policy


LINK_HEALTH = {  # name for the operator's page -> attribute of the link
    "trouble": "connection_error",
    "unkept": "unsaved",
    "reconnects": "connection.reconnects",
    "round_trip_s": "sender.round_trip_s",
    **{name: name for name in ("address", "run", "full", "backlog", "silent_s")},
}


class Tally:
    """What the operator's socket tells besides the running episode."""

    def __init__(self, name: str, link: Link, arm: PacedEnv | None = None) -> None:
        self._name, self._link, self._arm = name, link, arm
        self.episodes = self.successes = self.discarded = 0
        # episodes, by the classifier's verdict and the environment's
        self.classified: Counter[tuple[bool, bool]] = Counter()
        self._version, self._since_s = 0, time.monotonic()

    def count(self, summary: Summary) -> None:
        self.discarded += summary.ending == "discard"
        self.episodes += summary.ending != "discard"
        self.successes += summary.success and summary.ending != "discard"
        if summary.true_success is not None:
            self.classified[summary.success, summary.true_success] += 1

    def verdicts(self) -> str:
        right, wrong, missed = (self.classified[words] for words in ((True, True), (True, False), (False, True)))
        called = f"{right + wrong} of {self.classified.total()} episodes called a success, {wrong} of them wrongly"
        return f"classifier: {called}; {missed} successes missed"

    def about(self) -> dict[str, Any]:
        link = self._link
        if link.version != self._version:
            self._version, self._since_s = link.version, time.monotonic()
        health = {name: attrgetter(path)(link) for name, path in LINK_HEALTH.items()}
        return {
            "robot": self._name,
            "episodes": self.episodes,
            "successes": self.successes,
            "discarded": self.discarded,
            "policy_version": self._version,
            "policy_age_s": time.monotonic() - self._since_s,
            "lost_replies": self._arm.lost_replies if self._arm else 0,
            "motors": self._arm.motors if self._arm else {},
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
