"""The robot's side of HELLO and WELCOME: which learner is at the other end, and what it told."""

from __future__ import annotations

import time
from typing import Any

from agent.spec import Spec, UserError
from agent.wire.bad_messages import shown
from agent.wire.messages import pack
from agent.wire.schema import MAX_REPORTED
from agent.wire.untrusted import WireError
from robot_server.outbox import Outbox

REFUSED_FOR_S = 15.0  # how long "that name is in use" may last: longer than the learner remembers a crashed robot


class Handshake:
    """Of this boot of `robot` with the learner at `address`; to be made anew on each connection.

    done: on this connection. network, run, secret: as the learner told; None and "" before it has. secret: this boot's
    in that run, see agent.wire.receipt. refused_s: time.monotonic() of the first refusal in a row, or None.
    """

    def __init__(self, address: str, robot: str, boot: str, spec: Spec, env: dict[str, Any]) -> None:
        self._address = address
        self._hello: dict[str, Any] = {"robot": robot, "boot": boot, "spec": spec.to_dict(), "env": env}
        self.done = False
        self.network: dict[str, Any] | None = None
        self.run = self.secret = ""
        self.refused_s: float | None = None
        self.learner_boot = ""

    def hello(self, outbox: Outbox) -> list[bytes]:
        """The HELLO, with the oldest episodes that are to be delivered."""
        episodes = [[*out.key, out.sent] for out in outbox.episodes.values()]
        return pack("HELLO", **self._hello, outbox=episodes[:MAX_REPORTED])

    def welcome(self, fields: dict[str, Any], outbox: Outbox) -> bool:
        """Take a WELCOME: `outbox` delivers to its run; whether it is from another learner process than the one before.

        After an error nothing is taken, so that the next WELCOME does all of it. Raises WireError without a run or a
        secret, and UserError when the learner came back with another network.
        """
        if not (fields["run"] and fields["secret"]):
            raise WireError("a run without a name or a secret")
        if self.network not in (None, fields["network"]):
            raise UserError(f"the learner at {self._address} came back with another network: restart the robot server")
        outbox.use_run(fields["run"])
        another = bool(fields["learner_boot"] != self.learner_boot)
        self.network, self.run, self.secret = fields["network"], fields["run"], fields["secret"]
        self.learner_boot = fields["learner_boot"]
        self.done, self.refused_s = True, None
        return another

    def refuse(self, fields: dict[str, Any]) -> None:
        """Take a REFUSE. Raises UserError when it is final."""
        self.done = False
        now = time.monotonic()
        self.refused_s = self.refused_s or now
        if not fields["retry"] or now - self.refused_s > REFUSED_FOR_S:
            raise UserError(f"the learner at {self._address} refused: {shown(fields['reason'])}")
