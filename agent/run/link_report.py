"""The link as people see it: once a minute a line for each robot, a record of the run's log, and curves."""

from __future__ import annotations

import time
from collections import Counter

from agent.mailbox.mailbox import Mailbox
from agent.mailbox.robots import REPORTED, Robot
from agent.run.log import RunLog
from agent.spec import plural

EVERY_S = 60.0


class LinkReport:
    """Of `mailbox` to `log`; `tell` may be called at every turn of a loop."""

    def __init__(self, mailbox: Mailbox, log: RunLog) -> None:
        self._mailbox, self._log = mailbox, log
        self._due_s = time.monotonic() + EVERY_S
        self._told: Counter[str] = Counter()  # bad messages by sender

    def tell(self, env_steps: int, updates: int) -> None:
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + EVERY_S
        for robot in self._mailbox.known:
            age_s = self._mailbox.policy_age_s(robot)
            self._log.say(line(robot, age_s))
            self._log.write(
                "robot",
                env_steps,
                updates,
                robot=robot.name,
                steps=robot.steps,
                **{name: getattr(robot, name) for name in REPORTED if name != "acting"},
                policy_version=robot.acting,
                policy_age_s=age_s,
                silent_s=robot.age_s,
            )
        senders = self._mailbox.faults.senders
        if new := senders - self._told:
            self._told = Counter(senders)
            worst = ", ".join(f"{count} from {sender}" for sender, count in new.most_common(3))
            self._log.say(f"{new.total()} bad messages in the last minute: {worst}")


def line(robot: Robot, policy_age_s: float) -> str:
    if not robot.live:
        return f"robot {robot.name}: not heard of for {robot.age_s:.0f} s"
    timing = ""
    if robot.steps_timed:
        timing = f", {robot.deadlines_missed} of {robot.steps_timed} deadlines missed"
        timing += f", late {1000 * robot.late_p50_s:.1f} ms (median; p99 {1000 * robot.late_p99_s:.1f})"
    return (
        f"robot {robot.name}: {plural(robot.steps, 'step')} received, {robot.unacknowledged} unacknowledged, "
        f"{plural(robot.spooled, 'episode')} spooled, {plural(robot.reconnects, 'reconnect')}, round trip "
        f"{1000 * robot.round_trip_s:.0f} ms, policy {robot.acting} ({policy_age_s:.0f} s old){timing}"
    )
