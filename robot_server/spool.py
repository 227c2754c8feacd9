"""What earlier robot servers left in the spool folder: ended episodes as files, running ones as journals."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.data.episode_file import SUFFIX, EpisodeFileError, read_episode, read_head
from agent.files import move
from agent.spec import Spec, SpecError, Transition, UserError, plural
from agent.wire.messages import SEPARATOR, episode_name, pack_step, read_step, unpack
from agent.wire.schema import NAME
from agent.wire.untrusted import WireError
from robot_server import journal
from robot_server.journal import Journal
from robot_server.outgoing import Outgoing

log = logging.getLogger(__name__)


def left_behind(folder: Path, spec: Spec, robot: str) -> Iterator[Outgoing]:
    """Episodes of `robot` in `folder`, oldest first; half ones, which have a journal only, are cut short.

    What is another robot's or does not fit stays there, what is damaged is moved away; all is logged.
    """
    before = re.compile(rf"\.{re.escape(robot)}-[0-9a-f]{{8}}-\d+{re.escape(SUFFIX)}\.\d+\.part")  # of earlier releases
    for path in folder.glob(".*.part"):
        if path.name.startswith(f".{robot}{SEPARATOR}") or before.fullmatch(path.name):
            path.unlink(missing_ok=True)  # of a robot server that was killed while it wrote
    others = 0
    for path in sorted(folder.glob(f"[!.]*{SUFFIX}"), key=_age):
        try:
            meta = read_head(path)[1]
            key = meta.pop("robot"), meta.pop("boot"), meta.pop("number")
            if NAME.fullmatch(key[0]) and key[0] != robot:
                others += 1
                continue
            episode = read_episode(path)
            episode.check(spec)
            pack_step(key, 0, episode.transitions()[0], meta)  # what could not be sent is found out here
            yield Outgoing(key, meta, file=path, length=len(episode), ended=True)
        except EpisodeFileError as error:
            if path.exists():  # robots that share a folder come and go
                move_damaged(path, error)
        except (UserError, KeyError, TypeError, ValueError) as error:
            log.warning("left in the spool: %s: %s", path, error)
    if others:
        log.warning("left in the spool: %s of other robots: %s", plural(others, "episode"), folder)
    for path in journal.abandoned(folder):
        try:
            if out := _recover(path, spec, robot):
                yield out
        except (OSError, WireError, SpecError) as error:
            log.warning("left in the spool: %s: %s", path, error)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _recover(path: Path, spec: Spec, robot: str) -> Outgoing | None:
    """The half episode in the journal of a robot server that was killed, cut short; None if it is not of `robot`."""
    messages = [unpack(frames) for frames in journal.read(path)]
    fields: dict[str, Any] = messages[0].fields if messages else {"robot": robot, "boot": "", "episode": 0, "meta": {}}
    if fields["robot"] != robot:
        return None
    name = episode_name({**fields, "number": fields["episode"]})
    if messages and path.stem not in (name, name.replace(SEPARATOR, "-")):  # the latter: of earlier releases
        move_damaged(path, f"{path.name} has steps of {name}, as after a power cut")
        return None
    steps: list[Transition] = []
    for message in messages:
        steps[message.fields["step"] :] = [read_step(message)]
    meta = {**fields["meta"], **(messages[-1].fields["meta"] if messages else {})}  # the last has a person's verdict
    out = Outgoing((robot, fields["boot"], fields["episode"]), meta)
    for step in steps:
        step.check(spec)
        out.append(step)
    if path.with_suffix(SUFFIX).exists() or not (out.ended or out.cut(None)):
        path.unlink()
        return None
    log.warning("recovered %d steps of an episode whose robot server was killed: %s", out.length, path)
    out.journal = Journal(path)
    return out


def move_damaged(path: Path, error: object) -> None:
    """Move a damaged file to the folder damaged/ beside it."""
    damaged = path.parent / "damaged"
    move(path, damaged / path.name)
    log.warning("moved to %s, not sent: %s", damaged, error)
