"""The end of a run: robots end their episode, deliver what they have, and leave; nothing of theirs is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.mailbox.mailbox import Mailbox

WAIT_S = 0.05
LEAVE_S = 15.0  # how long robots may take to leave when the run is over
COME_S = 6.0  # how long robots may take to reconnect after a learner's restart


def see_robots_off(mailbox: Mailbox, take_in: Callable[[], None], began_s: float) -> None:
    """Tell all robots that are known, and those that come back meanwhile, that the run is over; wait until they leave.

    take_in: takes in what has arrived. began_s: time.monotonic() when the learner began.
    """
    deadline_s = time.monotonic() + LEAVE_S

    def expected() -> bool:
        recent = any(robot.recent for robot in mailbox.known)
        return recent or (not mailbox.met and time.monotonic() < began_s + COME_S)

    take_in()  # robots that spoke during the last update are known, and those that have left are not
    while expected() and time.monotonic() < deadline_s:
        mailbox.done()
        mailbox.wait(WAIT_S)
        take_in()
