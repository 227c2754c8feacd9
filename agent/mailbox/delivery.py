"""Steps and outbox reports of robots: take in what is new, ask for what is missing, acknowledge what is on disk."""

from __future__ import annotations

import time
from typing import Any

from agent.mailbox.assembly import Assembly
from agent.mailbox.listener import Listener
from agent.mailbox.robots import Robot
from agent.spec import Episode, Spec
from agent.wire.messages import EpisodeKey, Message, episode_key, pack, read_step
from agent.wire.receipt import boot_secret, receipt
from agent.wire.untrusted import WireError

ASK_AGAIN_S = 0.5  # between two RESENDs or WHOs to the same robot about the same thing
MAX_ASKED = 1000  # requests remembered for that
MAX_ANSWERS = 1000  # to one outbox report; the next one gets the next


class Requests:
    """What was lately asked of robots, so that it is not asked too often."""

    def __init__(self) -> None:
        self._asked_s: dict[object, float] = {}  # the latest last

    def __len__(self) -> int:
        return len(self._asked_s)

    def due(self, request: object) -> bool:
        """Whether `request` has not been made lately; notes that it is made now."""
        now = time.monotonic()
        if now - self._asked_s.get(request, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return False
        self._asked_s.pop(request, None)
        self._asked_s[request] = now
        while len(self._asked_s) > MAX_ASKED:
            del self._asked_s[next(iter(self._asked_s))]
        return True


class Delivery:
    """Of episodes of `spec` into `assembly`, in the run `run` with its `secret`.

    over_share: names of robots whose new episodes are left with them.
    """

    def __init__(
        self, spec: Spec, run: str, secret: str, assembly: Assembly, listener: Listener, requests: Requests
    ) -> None:
        self._spec, self._run, self._secret = spec, run, secret
        self._assembly, self._listener, self._requests = assembly, listener, requests
        self.over_share: set[str] = set()

    def step(self, robot: Robot, message: Message) -> bool:
        """Take a STEP; whether it was one that was missing."""
        fields, assembly = message.fields, self._assembly
        key, step = (fields["robot"], fields["boot"], fields["episode"]), fields["step"]
        last = fields["terminated"] or fields["truncated"]
        if key[0] != robot.name:
            raise WireError(f"a step of '{key[0]}'")
        received, length = assembly.received(key), assembly.length(key)
        if step < length and key not in assembly.open:  # a duplicate
            if key in assembly.unacknowledged:
                assembly.unacknowledged[key].route = robot.route
            elif step == 0 or last:
                self._acknowledge(robot.route, key)
        elif key not in assembly.open and self._is_full(robot.name):
            pass  # its report will bring it here again
        elif step > received:
            self._ask_again(robot.route, key)
        elif step == received or last:  # otherwise a duplicate
            transition = read_step(message)
            transition.check(self._spec)
            robot.steps += step == received and step >= length
            assembly.add(key, step, transition, {**fields["meta"], "run": self._run}, robot.route)
            return True
        return False

    def report(self, robot: Robot, outbox: list[list[Any]]) -> None:
        """Answer the outbox of a HELLO or PULL."""
        route, answers, assembly, full = robot.route, 0, self._assembly, self._is_full(robot.name)
        for *names, sent in outbox:
            key = tuple(names)
            received, length = assembly.received(key), assembly.length(key)
            if received < sent and (key in assembly.open or length < sent):  # frames keep their order: those are lost
                if full and key not in assembly.open:
                    continue
                self._ask_again(route, key)
            elif key in assembly.stored and key not in assembly.open and key not in assembly.unacknowledged:
                self._acknowledge(route, key)
            else:
                continue
            answers += 1
            if answers == MAX_ANSWERS:
                return

    def acknowledge(self, episode: Episode) -> None:
        """Tell its robot to forget `episode`: it is on this machine's disk."""
        if route := self._assembly.acknowledge(episode):
            self._acknowledge(route, episode_key(episode.meta))

    def _is_full(self, robot: str) -> bool:
        """Whether no more episodes of `robot` should begin here now; it keeps them, and reports them again."""
        return robot in self.over_share or self._assembly.is_full(robot)

    def _acknowledge(self, route: bytes, key: EpisodeKey) -> None:
        (robot, boot, number), steps = key, self._assembly.stored[key]
        proof = receipt(boot_secret(self._secret, robot, boot), number, steps)
        self._listener.send(route, pack("ACK", robot=robot, boot=boot, episode=number, steps=steps, receipt=proof))

    def _ask_again(self, route: bytes, key: EpisodeKey) -> None:
        """Ask for the steps of an episode that have not come, all of them when it was cut short here and goes on."""
        if self._assembly.length(key):
            self._assembly.reopen(key)
        robot, boot, number = key
        step = self._assembly.received(key)
        if self._requests.due((route, key, step)):
            self._listener.send(route, pack("RESEND", robot=robot, boot=boot, episode=number, step=step))
