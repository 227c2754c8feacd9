"""What is known of each recorded episode: figures for the list, flags once it has been examined.

Figures are read first, in the background, then flags, while somebody looks at the page; both are kept in the user's
cache (XDG_CACHE_HOME), so that a folder is read once. An episode whose file has changed is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.episode_file import SUFFIX
from agent.files import written
from agent.spec import UserError
from tools.common.originals import ORIGINALS, State, state_of
from tools.common.quality import duplicates
from tools.panel.episode_reader import OWN
from tools.panel.episode_version import version
from tools.panel.episode_worker import Busy, Worker

INDEX_VERSION = 1  # of what is kept in the cache
WATCHED_S = 15.0  # after the page has asked for the list
LOOK_S = 5.0  # between two looks at a folder that nobody asks about
SAVE_S = 20.0
BATCH = 50  # episodes whose figures are asked for at once
MOST_INDICES = 50  # folders in the cache


class Catalogue:
    """place, kind: of episode_reader.kind_of. figures and flags are read by `worker` and `examiner`."""

    def __init__(self, place: Path, kind: str, worker: Worker, examiner: Worker) -> None:
        self.own, self.trouble = kind == OWN, ""
        self._place, self._kind = place, kind
        self._worker, self._examiner = worker, examiner
        self._entries: dict[str, dict[str, Any]] = {}  # what the page is told
        self._states: dict[str, State] = {}
        self._signatures: dict[str, np.ndarray] = {}  # float32
        self._stamp, self._boot = 0, str(time.time_ns())
        self._watched_s = -WATCHED_S
        self._wanted = asyncio.Event()
        self._scanning = asyncio.Lock()
        self._unsaved, self._saved_s, self._compared = False, time.monotonic(), True
        self._index = cache_folder() / f"{hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:32]}.json"
        self._kept: dict[str, Any] = _read_index(self._index)

    async def listed(self, since: int, boot: str) -> dict[str, Any]:
        """What has changed since the stamp `since` of this server's start `boot`; everything for another one."""
        if time.monotonic() - self._watched_s > WATCHED_S:
            self._wanted.set()
        self._watched_s = time.monotonic()
        gone = await self._scan()
        anew = boot != self._boot or gone or since > self._stamp
        changed = [entry for entry in self._entries.values() if anew or entry["changed"] > since]
        return {
            "source": {"name": str(self._place.name), "kind": self._kind, "editable": self.own},
            "boot": self._boot,
            "stamp": self._stamp,
            "anew": anew,
            "episodes": changed,
            "pending": sum(map(self._unread, self._entries)),
            "unexamined": sum(self._unexamined(name) for name in self._entries),
            "trouble": self.trouble,
        }

    def known(self, name: str) -> str:
        """`name`, of an episode that is there. Raises UserError."""
        if name not in self._entries:
            raise UserError(f"{self._place}: no episode is called '{name[:100]}'")
        return name

    async def refresh(self, names: list[str]) -> list[dict[str, Any]]:
        """The entries of episodes that have just been edited, read anew."""
        await self._scan()
        with contextlib.suppress(UserError):  # they have been edited all the same; the list tells the figures later
            while missing := [name for name in map(self.known, names) if self._unread(name)]:
                self._take_figures(await self._worker.ask("figures", missing))
        return [self._entries[name] for name in names if name in self._entries]

    async def run(self) -> None:
        """Fill in what is missing; for ever."""
        try:
            with contextlib.suppress(UserError):  # it is said below
                await self._worker.ask("ready")
            while True:
                self._wanted.clear()
                try:
                    await self._scan()
                    self.trouble = ""
                    await self._fill()
                except (UserError, OSError) as error:
                    self.trouble = str(error)
                await self._save()
                waiting = asyncio.create_task(self._wanted.wait())  # wait_for would swallow a cancellation now and then
                try:
                    await asyncio.wait([waiting], timeout=LOOK_S)
                finally:
                    waiting.cancel()
        finally:
            if self._unsaved:
                self._write_index(self._to_keep())

    async def _fill(self) -> None:
        while True:
            missing = [name for name in self._entries if self._unread(name)]
            if missing:
                self._take_figures(await self._figures(missing[:BATCH]))
                continue
            if time.monotonic() - self._watched_s > WATCHED_S:
                return
            name = next((name for name in self._entries if self._unexamined(name)), "")
            if not name:
                await self._compare()
                return
            await self._examine(name)
            if time.monotonic() - self._saved_s > SAVE_S:
                await self._compare()
                await self._save()

    async def _figures(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """Of some of `names`. A file that ends the process that reads it costs itself only."""
        try:
            found: dict[str, dict[str, Any]] = await self._worker.ask("figures", names)
            return found
        except Busy:
            raise
        except UserError as error:
            if len(names) == 1:
                return {names[0]: {"error": str(error)}}
            return await self._figures(names[: len(names) // 2])

    def _unread(self, name: str) -> bool:
        return not self._entries[name].keys() & {"steps", "error"}

    def _unexamined(self, name: str) -> bool:
        entry = self._entries[name]
        return entry.get("flags") is None and "error" not in entry

    async def _examine(self, name: str) -> None:
        state = self._states[name]
        try:
            found = await self._examiner.ask("examine", name)
        except UserError as error:
            found = {"flags": [], "signature": [], "error": str(error)}
        if self._states.get(name) == state:  # not edited meanwhile
            self._signatures[name] = np.asarray(found.pop("signature"), np.float32)
            self._change(name, **found)
            self._unsaved, self._compared = True, False

    def _take_figures(self, found: dict[str, dict[str, Any]]) -> None:
        for name, figures in found.items():
            if name in self._entries:
                self._change(name, **figures)
                self._unsaved = True

    def _change(self, name: str, **more: Any) -> None:
        self._stamp += 1
        self._entries[name].update(more, changed=self._stamp)

    async def _compare(self) -> None:
        """Which are near duplicates of earlier ones; all of them are compared again."""
        if self._compared:
            return
        self._compared = True
        signed = {
            name: (entry["steps"], self._signatures[name])
            for name, entry in self._entries.items()
            if not entry["dropped"] and len(self._signatures.get(name, ())) and "steps" in entry
        }
        found = await asyncio.to_thread(duplicates, signed)
        for name, entry in self._entries.items():
            if entry.get("twin", "") != (twin := found.get(name, "")):
                self._change(name, twin=twin)

    async def _scan(self) -> bool:
        """Look for new, changed and vanished episodes; whether any has vanished."""
        async with self._scanning:
            if self.own:
                there = await asyncio.to_thread(files_of, self._place)
            elif self._entries:
                return False
            else:
                there = {name: ({}, ()) for name in await self._worker.ask("names")}
        gone = self._entries.keys() - there.keys()
        for name in gone:
            del self._entries[name], self._states[name]
            self._signatures.pop(name, None)
            self._compared = False
        for name, (about, state) in there.items():
            if self._states.get(name) != state or name not in self._entries:
                self._enter(name, about, state)
            elif any(self._entries[name][key] != value for key, value in about.items()):
                self._change(name, **about)
        if list(self._entries) != list(there):
            self._entries = {name: self._entries[name] for name in there}
        return bool(gone)

    def _enter(self, name: str, about: dict[str, Any], state: State) -> None:
        self._entries[name] = {
            "name": name,
            "edited": False,
            "dropped": False,
            "version": "",
            **about,
            "flags": None,
        }
        self._states[name] = state
        self._signatures.pop(name, None)
        self._compared = False
        kept = self._kept.get(name)
        if self.own and isinstance(kept, dict) and kept.get("state") == list(state):
            self._entries[name].update(kept["entry"])
            self._signatures[name] = np.asarray(kept["signature"], np.float32)
        self._change(name)
        self._wanted.set()

    async def _save(self) -> None:
        if self._unsaved and time.monotonic() - self._saved_s > SAVE_S:
            await asyncio.to_thread(self._write_index, self._to_keep())

    def _to_keep(self) -> list[tuple[str, State, dict[str, Any], np.ndarray]]:
        """As it is now: name, state, entry and signature of each episode."""
        self._saved_s, self._unsaved = time.monotonic(), False
        return [
            (name, self._states[name], dict(entry), self._signatures.get(name, np.empty(0)))
            for name, entry in self._entries.items()
            if "steps" in entry
        ]

    def _write_index(self, kept: list[tuple[str, State, dict[str, Any], np.ndarray]]) -> None:
        """A cache: without it everything is read again. Line by line: json.dumps of all would stop every thread."""
        if not self.own:
            return
        leave = ("name", "edited", "dropped", "version", "changed", "twin")
        with contextlib.suppress(OSError):
            self._index.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with written(self._index) as file:
                file.write(f'{{"version": {INDEX_VERSION}, "episodes": {{'.encode())
                for number, (name, state, entry, signature) in enumerate(kept):
                    told = {
                        "state": state,
                        "entry": {key: value for key, value in entry.items() if key not in leave},
                        "signature": [round(each, 4) for each in signature.tolist()],
                    }
                    file.write(f"{',' if number else ''}\n{json.dumps(name)}: {json.dumps(told)}".encode())
                file.write(b"}}")
            others = sorted(self._index.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in others[:-MOST_INDICES]:
                old.unlink(missing_ok=True)


def files_of(folder: Path) -> dict[str, tuple[dict[str, Any], State]]:
    """Name -> what is known without reading it, and its state; of every episode, also those that were dropped."""
    there, originals = (_files(place) for place in (folder, folder / ORIGINALS))
    found = {}
    for name in sorted({*there, *originals}):
        state, edited, dropped = there.get(name) or originals[name], name in originals, name not in there
        about = {"edited": edited, "dropped": dropped, "version": version(state, edited, dropped)}
        found[name] = (about, state)
    return found


def _files(folder: Path) -> dict[str, State]:
    found: dict[str, State] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for each in entries:
            if each.name.endswith(SUFFIX) and not each.name.startswith(".") and each.name.isprintable():
                with contextlib.suppress(OSError):  # it has just gone
                    found[each.name] = state_of(each.stat())
    return found


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calql" / "episodes"


def _read_index(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
        episodes = told["episodes"] if told["version"] == INDEX_VERSION else {}
        return {name: each for name, each in episodes.items() if {"state", "entry", "signature"} <= each.keys()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
