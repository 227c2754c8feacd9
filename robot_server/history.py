"""What the operator's page shows of the past: episodes, events, and the learner's figures. Bounded, in memory.

Everything is an entry with a running `number`, so that a page asks only for what it has not seen:

type     what is in it
episode  time_s, episode, outcome (of OUTCOMES), steps, by_hand, return
event    time_s, kind (of KINDS), text, warning
figures  updates, env_steps, and the learner's figures by name
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from agent.wire.bad_messages import shown

KINDS = ("stop", "drive", "link", "log")
OUTCOMES = ("success", "failure", "discarded", "reset")
LIMITS = {"episode": 1000, "event": 500, "figures": 400}  # entries kept of each type
ANSWER = 100  # entries in one answer: a fraction of a millisecond
LINK = "robot_server.link"  # logs what happens to the link to the learner
LOGGERS = ("robot_server", "envs")

Entry = dict[str, Any]


class History:
    """Of one robot server. boot: drawn at its start. number: of the newest entry, or change of learner or names.

    learner: its newest progress (agent.wire.schema, PROGRESS), {} before. names: of the numbers of an action and of
    each observed vector, as far as they are known.
    """

    def __init__(self, boot: str = "") -> None:
        self.boot = boot or secrets.token_hex(4)
        self.number = 0
        self.learner: dict[str, Any] = {}
        self.names: dict[str, list[str]] = {}
        self._entries: dict[str, deque[Entry]] = {kind: deque() for kind in LIMITS}
        self._lock = threading.Lock()  # what is logged may come from another thread
        self._handler: _Handler | None = None

    def event(self, kind: str, text: str, warning: bool = False) -> None:
        """kind: of KINDS. text: may have come from a stranger; it is cut and made printable here."""
        self._add({"type": "event", "time_s": time.time(), "kind": kind, "text": shown(text), "warning": warning})

    def episode(self, episode: int, outcome: str, steps: int, by_hand: int, episode_return: float) -> None:
        figures = {"steps": steps, "by_hand": by_hand, "return": episode_return}
        self._add({"type": "episode", "time_s": time.time(), "episode": episode, "outcome": outcome, **figures})

    def name(self, names: Mapping[str, Iterable[str]]) -> None:
        """What the numbers of an action and of each observed vector are called; cut and made printable here."""
        given = {shown(key): [shown(each)[:40] for each in itertools.islice(some, 100)] for key, some in names.items()}
        if given != self.names:
            with self._lock:
                self.names, self.number = given, self.number + 1

    def learner_told(self, progress: Mapping[str, Any]) -> None:
        """Take a PROGRESS; its figures become an entry when they are of other updates than those before."""
        before, self.learner = self.learner.get("figures", {}), {**progress, "told_s": time.monotonic()}
        figures = progress["figures"]
        if figures and figures != before:
            self._add({"type": "figures", "env_steps": progress["env_steps"], **figures})
        else:
            with self._lock:
                self.number += 1

    def answer(self, since: int, boot: str) -> dict[str, Any]:
        """The oldest of the entries after number `since`; all of them for another boot."""
        since = since if boot == self.boot else 0
        with self._lock:
            number = self.number
            found: list[Entry] = []
            for entries in self._entries.values():
                found += itertools.takewhile(lambda entry: entry["number"] > since, reversed(entries))
        found.sort(key=lambda entry: int(entry["number"]))
        more = found[ANSWER:]
        learner = {name: value for name, value in self.learner.items() if name != "told_s"}
        if learner:
            learner["age_s"] = time.monotonic() - self.learner["told_s"]
        number = found[ANSWER - 1]["number"] if more else number
        told = {"learner": learner, "names": self.names}
        return {"boot": self.boot, "number": number, "entries": found[:ANSWER], **told}

    def mirror(self, told: Mapping[str, Any]) -> None:
        """Take what `answer` of another History gave; its entries replace those of another boot."""
        if told["boot"] != self.boot:
            self.boot = told["boot"]
            for entries in self._entries.values():
                entries.clear()
        for entry in told["entries"]:
            self._keep(entry)
        self.number, self.learner, self.names = told["number"], told["learner"], told["names"]

    def entries(self, since: int = 0) -> list[Entry]:
        """All after number `since`, in order."""
        found = itertools.chain.from_iterable(self._entries.values())
        return sorted((entry for entry in found if entry["number"] > since), key=lambda entry: int(entry["number"]))

    def follow_log(self) -> None:
        """Everything that this process logs from now on is an event, too; until `close`."""
        self._handler = _Handler(self)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self._handler)

    def close(self) -> None:
        for name in LOGGERS if self._handler else ():
            logging.getLogger(name).removeHandler(self._handler)  # type: ignore[arg-type]

    def _add(self, entry: Entry) -> None:
        with self._lock:
            self.number += 1
            self._keep({"number": self.number, **entry})

    def _keep(self, entry: Entry) -> None:
        entries = self._entries[entry["type"]]
        if entry["type"] == "figures":  # of a learner that went back, or of another run: what was after it is void
            while entries and entries[-1]["updates"] >= entry["updates"]:
                entries.pop()
        entries.append(entry)
        if len(entries) <= LIMITS[entry["type"]]:
            return
        if entry["type"] == "figures":  # of the whole run, half as dense
            thinned = list(entries)[::2]
            entries.clear()
            entries.extend(thinned)
        else:
            entries.popleft()


class _Handler(logging.Handler):
    def __init__(self, history: History) -> None:
        super().__init__(logging.INFO)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        kind = getattr(record, "kind", "link" if record.name == LINK else "log")
        if kind == "episode":  # that is an entry of its own
            return
        try:
            self._history.event(kind, record.getMessage(), record.levelno >= logging.WARNING)
        except Exception:  # an odd argument may not stop what is logged
            self.handleError(record)
