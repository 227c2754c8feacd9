"""The operator's socket of a robot server: there a person sees what it does, drives it, pauses it and stops it.

For programs of its own user on the robot's computer (tools.panel serves others): libzmq takes no message from whoever
does not have the key of this start (control_address). One ROUTER; a message is a msgpack map, and behind it, in an
answer to "frames", all camera images in one piece (agent.wire.arrays). Nothing is unpickled. Everything happens in
`read` and `serve`, which the control loop calls at every step; they never block.

ask     more                          answer
state   -                             state: what the robot does, and what Control.about adds
frames  have: number of the last one  state, number, at_s, and the observation, unless it is that one
history since, boot: of the newest    what came after it, see robot_server.history
        entry that is known
event   event: of teleop.EVENTS,      done, or ignored (with why): the event; stopped, paused
        stop, pause, seen_s
drive   motion, gripper, enabled      refused: why, when another operator is driving; else there is none
        (gripper nil: as it is), place

A stop and a pause are latched. Each new one gets a number, one more than the last, which the state tells (stop, pause).
Only "release" lifts a stop and only "resume" a pause, and each must carry the number of what it lifts and the time of
the state that the person saw (seen_s: its at_s). What was latched again meanwhile, or seen too long ago, stays latched.

A question has "sent_s", time.monotonic() of this computer: what comes late does not drive. An answer repeats the "id"
of its question, if it had one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import zmq

from agent.spec import Observation
from agent.wire.arrays import declare
from agent.wire.bad_messages import Faults
from agent.wire.frames import Frames
from agent.wire.untrusted import WireError
from robot_server.command import ENDINGS, EVENTS, LATCHES, STILL, Command, Device, gripper_of
from robot_server.control_address import bind
from robot_server.control_client import plain, read_map
from robot_server.driving import Watch, read_drive, read_place
from robot_server.history import History

HELD_S = 0.2  # dead man's switch: the arm is held so long after a driver's last command, the step under way included
LEAST_S = 0.05  # a command counts for so long however long a step is
LATE_S = 2.0  # what else a person asked, or saw, so long ago, other than to stop, meant something that has passed
AGAIN = {
    "stop": "Someone pressed STOP again. Inspect the arm, then release.",
    "pause": "Someone paused again. Look at the arm, then resume.",
}
DRIVES_S = 2.0  # and so long, or until it is given back, nobody else can drive
ASKS = ("state", "frames", "history", "event", "drive")
MAX_BYTES = 4096  # of a frame
HANDSHAKE_S = 3.0
FORGET_S = 0.5  # against a flood that never ends
SERVE_S = 0.002  # answering takes at most this much of a control step


class Control(Device):
    """Binds `address`, of this computer. A Device for those who may drive, with the state that a stop leaves behind.

    stopped, paused: latched until "release" and "resume". numbers: of the newest stop and pause. about: adds to what
    "state" answers. step_s: of the control loop that calls `read`. running: there is an episode that a verdict can end.
    fault: of the robot, which "release" acknowledges. prompt: what a reset asks a person to do. task: of the episode,
    in words. history: what the page shows of the past. drivable: whether a page or a device can move this robot. Raises
    UserError for an address that is taken, impossible, or beyond this computer.
    """

    latches = True

    def __init__(self, address: str, about: Callable[[], Mapping[str, Any]] = dict) -> None:
        self.about = about
        self.stopped = self.paused = False
        self.numbers = {"stop": 0, "pause": 0}
        self.running, self.fault = True, ""
        self.prompt, self.task, self.drivable = "", "", True
        self.history = History()
        self._watch = Watch(self.history)
        self.faults = Faults()
        self._events: list[str] = []
        self._driver = b""  # route of who drives, or drove last
        self.command, self.commanded_s = Command(), -math.inf
        self._observation: Observation = {}
        self._status: Mapping[str, Any] = {}
        self._number, self._at_s = 0, 0.0  # of the observation
        self._frames = Frames()
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 10), (zmq.RCVHWM, 1000), (zmq.MAXMSGSIZE, MAX_BYTES)):
            self.socket.setsockopt(option, value)
        self.socket.handshake_ivl = int(1000 * HANDSHAKE_S)
        try:
            self.address, self._claim = bind(self.socket, address)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    @property
    def hold_reason(self) -> str:
        """Why there are to be no steps now; empty: there may be. One that holds the arm comes first, see `read`."""
        if self.stopped or self.paused:
            return "stopped by a person" if self.stopped else "paused by a person"
        return "the person who drives sends no commands" if self.command.enabled and not self.fresh else ""

    def latch_stop(self, fault: str = "") -> None:
        """A new stop, because of `fault` or of a person."""
        self.numbers["stop"] += 1
        self.stopped, self.fault = True, fault or self.fault
        self.history.event("stop", f"stopped: {fault}" if fault else "STOP pressed", warning=True)

    def latch_pause(self, prompt: str = "") -> None:
        """A new pause, of a person or of a reset that asks one for something."""
        self.numbers["pause"] += 1
        self.paused, self.prompt = True, prompt or self.prompt
        if not prompt:  # that is logged
            self.history.event("stop", "paused")

    def read(self) -> Command:
        """What the person asks for now; events are given once.

        Dead man's switch: a driver whose commands stop coming holds the arm (no motion, the gripper as it is) until he
        comes back, gives it back (enabled false), or "resume" or "release" gives it to the policy.
        """
        self.serve()
        events, self._events = tuple(self._events), []
        command = self.command
        if self.hold_reason:
            command = dataclasses.replace(command, motion=STILL, place=None)
        return dataclasses.replace(command, events=events)

    @property
    def waiting(self) -> bool:
        """Whether `read` has events to give."""
        return bool(self._events)

    @property
    def fresh(self) -> bool:
        """Whether the newest command of a driver still holds."""
        return time.monotonic() - self.commanded_s <= max(LEAST_S, HELD_S - self.step_s)

    def show(self, observation: Observation, status: Mapping[str, Any]) -> None:
        """What is seen and done now. Keeps `observation`, whose arrays must not change any more."""
        self._observation, self._status = observation, status
        self._number, self._at_s = self._number + 1, time.time()
        if not self.command.enabled and (gripper := gripper_of(status.get("action"), self.layout)) is not None:
            self.reset(gripper)

    def reset(self, gripper: float = -1.0) -> None:
        """The gripper is there, whatever who drives had asked for."""
        self.command = dataclasses.replace(self.command, gripper=gripper)

    def serve(self) -> None:
        """Answer what has been asked, for two milliseconds at most."""
        self._watch.look(self.command.enabled, time.monotonic() - self.commanded_s)
        end_s = time.monotonic() + SERVE_S
        while time.monotonic() < end_s:
            try:
                if (message := self._frames.read(self.socket)) is None:
                    continue
            except zmq.Again:
                return
            route, *frames = message
            kind = "malformed"
            try:
                question = read_map(frames)
                kind = next((each for each in ASKS if each == question.get("ask")), "unknown")
                self.answer(route, question)
            except zmq.ZMQError:  # it has gone, or does not read
                pass
            except WireError as error:
                self.faults.note(kind, self.address, error)
            except Exception as error:  # one message ends nothing
                self.faults.note(kind, self.address, type(error).__name__)

    def drop_events(self) -> None:
        """Drop all events so far, also those that wait behind more than `serve` takes at once: they were meant for what
        has ended. What a driver asks for stays.
        """
        end_s = time.monotonic() + FORGET_S
        while self.socket.poll(0) and time.monotonic() < end_s:
            self.serve()
        self._events.clear()

    def wait(self, timeout_s: float) -> None:
        """Serve, and return when something has been asked or the time is over."""
        self.serve()
        if self.socket.poll(max(0, int(timeout_s * 1000))):
            self.serve()

    def close(self) -> None:
        self.history.close()
        self._context.destroy(linger=0)
        self._claim.close()

    def answer(self, route: bytes, question: dict[str, Any]) -> None:
        ask, body = question.get("ask"), []
        age_s = time.monotonic() - sent_s if isinstance(sent_s := question.get("sent_s"), float) else math.nan
        given: dict[str, Any]
        if ask == "drive":
            if self._drive(route, question, age_s):
                return
            given = {"refused": "another operator is driving"}
        elif ask == "event":
            why = self._event(question, age_s)
            given = {"ignored" if why else "done": question["event"], "stopped": self.stopped, "paused": self.paused}
            given |= {"why": why} if why else {}
        elif ask == "state":
            given = {"state": self.state()}
        elif ask == "history":
            since, boot = question.get("since"), question.get("boot")
            given = self.history.answer(since if type(since) is int else 0, str(boot))
        elif ask == "frames":
            arrays = self._observation if question.get("have") != self._number else {}
            layout = declare(arrays)
            given = {"number": self._number, "arrays": layout.declared, "at_s": self._at_s, "state": self.state()}
            body = [layout.join(arrays)] if arrays else []
        else:
            raise WireError("unknown request")
        if type(question.get("id")) is int:
            given["id"] = question["id"]
        self.socket.send_multipart([route, msgpack.packb(given, default=plain), *body], zmq.NOBLOCK)

    def _event(self, question: dict[str, Any], age_s: float) -> str:
        """Act on it. Why not, when it is ignored."""
        event = question.get("event")
        if event not in EVENTS:
            raise WireError("unknown event")
        if event == "stop":
            self.latch_stop()
        elif event == "pause":
            self.latch_pause()
        elif why := self._refusal(event, question, age_s):
            return why
        elif event in LATCHES:
            self._lift(event)
        if event == "release":
            return ""
        if event in ENDINGS and event != "stop" and not self.running:
            return "Too late or too early: no episode is running."
        if len(self._events) < 100:
            self._events.append(event)
        return ""

    def _refusal(self, event: str, question: dict[str, Any], age_s: float) -> str:
        """Why `event` is not done: it is late, or there is a newer stop or pause than the one that it lifts."""
        seen_s, latch = question.get("seen_s"), LATCHES.get(event)
        ages_s = [age_s]
        if isinstance(seen_s, (int, float)):
            ages_s.append(time.monotonic() - seen_s)
        elif latch:
            return f"A '{event}' must carry the time of the state that the person saw."
        if late := [each for each in ages_s if not 0 <= each <= LATE_S]:
            return f"It came {late[0]:.1f} s after what you saw. Look again, then repeat it."
        if latch and question.get(latch) != self.numbers[latch]:
            return AGAIN[latch]
        return ""

    def _lift(self, event: str) -> None:
        if event == "release":
            self.stopped = False
        else:
            self.paused, self.prompt = False, ""
        self.history.event("stop", "released" if event == "release" else "resumed")
        if not self.fresh:
            self.command = Command(gripper=self.command.gripper)

    def _drive(self, route: bytes, question: dict[str, Any], age_s: float) -> bool:
        """Whether `route` may. What was under way, or waited for a long step, for too long is not followed."""
        numbers = read_drive(question, self.command.gripper)
        if math.isnan(age_s):
            raise WireError("drive: not dated")
        now = time.monotonic()
        if route != self._driver and self.command.enabled and now - self.commanded_s < DRIVES_S:
            return False
        if 0 <= age_s <= HELD_S:
            self._driver, self.commanded_s = route, now - age_s
            place = read_place(question.get("place"))
            enabled = question.get("enabled") is True
            self.command = Command(numbers[:6], float(numbers[6]), enabled, place=place)
        return True

    def state(self) -> dict[str, Any]:
        driven = "" if not self.command.enabled else "driven" if self.fresh else "held"
        return {
            **self._status,
            **self.numbers,
            "at_s": time.monotonic(),
            "stopped": self.stopped,
            "paused": self.paused,
            "fault": self.fault,
            "prompt": self.prompt,
            "task": self.task,
            "drivable": self.drivable,
            "boot": self.history.boot,
            "news": self.history.number,
            "driven": driven,
            "motions": self.layout,
            "gripper": self.command.gripper,
            **self.about(),
        }
