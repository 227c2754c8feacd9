"""The robot servers that a learner knows: who may join, and what is known of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.action_meaning import ELSEWHERE
from agent.env_record import EnvRecord
from agent.spec import Spec, SpecError
from agent.wire.bad_messages import shown

LIVE_S = 10.0  # a robot not heard of for so long (Robot.age_s) is gone, if its connection has not ended before
FORGET_S = 60.0  # one not heard of for so long is asked WHO it is when it comes back
REPORTED = (  # by a robot, of itself, in every PULL
    "acting",
    "unacknowledged",
    "spooled",
    "reconnects",
    "round_trip_s",
    "steps_timed",
    "deadlines_missed",
    "late_p50_s",
    "late_p99_s",
)
MAX_ROBOTS = 1000  # then the one not heard of for longest is forgotten

log = logging.getLogger(__name__)


class Refused(Exception):
    """Why a robot may not join; `retry`: it may pass."""

    def __init__(self, reason: str, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


@dataclass
class Robot:
    """A robot server as the learner knows it.

    version: of the weights it has, acting: of those that it acts with (-1, 0: none yet). steps: received from it
    since the learner started, each once. As it reports: unacknowledged (steps), spooled (episodes), reconnects,
    round_trip_s (median, from its question to the learner's answer, which comes between two updates); of the steps
    that it made at a fixed rate: steps_timed, deadlines_missed, late_p50_s and late_p99_s (how late the newest ended).
    """

    name: str
    boot: str
    env: EnvRecord
    route: bytes = field(repr=False)
    version: int = -1
    acting: int = 0
    steps: int = 0
    unacknowledged: int = 0
    spooled: int = 0
    reconnects: int = 0
    round_trip_s: float = 0.0
    steps_timed: int = 0
    deadlines_missed: int = 0
    late_p50_s: float = 0.0
    late_p99_s: float = 0.0
    seen_s: float = 0.0  # time.monotonic() at its last message
    ask: int = field(default=-1, repr=False)  # number of its newest PULL
    answered: int = field(default=-1, repr=False)  # number of the PULL that got the last WEIGHTS
    now_s: Callable[[], float] = field(default=lambda: time.monotonic(), repr=False)

    @property
    def age_s(self) -> float:
        """Seconds from its last message to when the learner last had read all that there was.

        While the learner is busy, robots do not age: what they say meanwhile waits for it.
        """
        return max(0.0, self.now_s() - self.seen_s)

    @property
    def recent(self) -> bool:
        return self.age_s <= FORGET_S

    @property
    def live(self) -> bool:
        return self.age_s < LIVE_S


class Robots:
    """Those that see and do `spec` in `env`; other_env: in another one, too."""

    def __init__(self, spec: Spec, env: EnvRecord, other_env: bool) -> None:
        self._spec, self._env, self._other_env = spec, env, other_env
        self._by_route: dict[bytes, Robot] = {}
        self.met = False  # any so far
        self._listened_s = 0.0  # time.monotonic() when all that robots had said was last read

    def __iter__(self) -> Iterator[Robot]:
        return iter(self._by_route.values())

    def listened(self) -> None:
        """All that robots have said so far has been read."""
        self._listened_s = time.monotonic()

    def get(self, route: bytes) -> Robot | None:
        return self._by_route.get(route)

    def differences(self, spec: Mapping[str, Any], env: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """What keeps a robot of this `spec` and `env` (as it sent them) out, and what is only worth a word."""
        try:
            found = Spec.from_dict(spec).differences(self._spec)
        except (SpecError, OverflowError) as error:
            found = [str(error)]
        try:
            its = EnvRecord.from_dict(env)
        except SpecError as error:
            return [*found, str(error)], []
        options = its.differences(self._env) if self._env.name else {}
        for option in ("env", "task", "robot", "object_in_base_frame"):  # equal spaces may hide them
            if option in options and not (self._other_env and option == "env"):
                hint = " (link.other_env true allows it)" if option == "env" else ""
                found.append(f"{option}: {options[option]}{hint}")
        notes = [f"{option}: {values}" for option, values in options.items()]
        try:
            mine, theirs = its.meaning, self._env.meaning
        except SpecError as error:
            return [*found, str(error)], notes
        for name, values in mine.differences(theirs).items():
            if name == "robot" and "robot" in options:
                continue  # named already
            if name in ELSEWHERE and "env" in options and not self._other_env:
                continue  # refused for that already
            if self._other_env and name in ELSEWHERE:
                notes.append(f"actions, {name}: {values}")
            else:
                hint = " (link.other_env true allows it)" if name in ELSEWHERE else ""
                found.append(f"actions, {name}: {values}{hint}")
        if mine.kind and not theirs.kind:
            notes.append(f"actions: {mine} against not stated, so they are taken to mean the same")
        return found, notes

    def admit(
        self, route: bytes, hello: Mapping[str, Any], holder: str | None, connected: Callable[[bytes], bool]
    ) -> Robot:
        """The robot that says `hello` (its fields). holder: whose key it came with; None without. Raises Refused.

        connected: whether there still is a connection to a route.
        """
        name, boot = hello["robot"], hello["boot"]
        if holder not in (None, name):
            raise Refused(f"its key is that of robot '{holder}', its robot.robot_name is '{name}'")
        found, notes = self.differences(hello["spec"], hello["env"])
        if found:
            raise Refused(f"robot '{name}' and the learner's data differ (robot first): {'; '.join(found)}")
        steps = 0
        for other in list(self):
            if other.name != name:
                continue
            if (other.boot, other.route) != (boot, route) and other.live and connected(other.route):
                raise Refused(
                    f"a robot named '{name}' is connected already; give each robot a name of its own "
                    "(robot.robot_name). What this one has recorded is kept, and delivered when the other has left",
                    retry=True,
                )
            steps = other.steps
            if other.route != route:
                self.leave(other.route)
        if notes and route not in self._by_route:
            text = shown("; ".join(notes))
            log.warning("robot '%s' and the learner's data differ (robot first): %s", name, text)
        self._forget_some()
        made = Robot(name, boot, EnvRecord.from_dict(hello["env"]), route, steps=steps, seen_s=time.monotonic())
        made.now_s = lambda: self._listened_s
        self.met = True
        self._by_route[route] = made
        return self._by_route[route]

    def leave(self, route: bytes) -> None:
        del self._by_route[route]

    def _forget_some(self) -> None:
        """Robots that are long gone, and of more than there can be, the one that has been silent for longest."""
        for robot in [robot for robot in self if not robot.recent]:
            self.leave(robot.route)
        if len(self._by_route) >= MAX_ROBOTS:
            self.leave(min(self, key=lambda robot: robot.seen_s).route)
