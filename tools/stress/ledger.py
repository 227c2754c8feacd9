"""Every step that the fake environment really made, held against the episodes that a learner has on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.spec import Episode
from envs.fake import checksum


@dataclass
class Made:
    """An episode as the environment made it: its reset, then its steps. `seed` is unique among all that are compared.

    whole: its end came through, so that no step of it may be missing. Only a robot server that was killed has others:
    the one under way, also where the kill hit between the environment's last step and its next reset.
    """

    robot: str
    seed: int
    crc32: list[int]  # of the observations, one more than steps
    steps: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = True


def read_log(path: Path, robot: str, killed: bool) -> list[Made]:
    """The episodes of one life of a robot server, from the log of its environment (envs.fake.LOG)."""
    made: list[Made] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        if "seed" in record:
            made.append(Made(robot, record["seed"], [record["crc32"]]))
        else:
            made[-1].steps.append(record)
            made[-1].crc32.append(record["crc32"])
    if made and killed:
        made[-1].whole = False
    return [episode for episode in made if episode.steps]


@dataclass
class Tally:
    """What became of the steps made. lost: of whole episodes only. changed: also what was never made.

    halves: episodes that were under way when their robot server was killed. errors: one line for each thing wrong.
    """

    episodes: int = 0  # whole ones
    steps: int = 0  # of whole ones
    lost: int = 0
    twice: int = 0
    changed: int = 0
    halves: int = 0
    halves_ended: int = 0  # in the environment; the kill came before the robot server had their file
    halves_missing: int = 0  # of two steps or more, and nothing of them came
    half_steps: int = 0
    half_steps_received: int = 0
    errors: list[str] = field(default_factory=list)


def compare(made: Iterable[Made], received: Iterable[Episode]) -> Tally:
    """Hold every step that was made against every step that was received."""
    tally = Tally()
    copies: dict[tuple[str, int], list[Episode]] = {}
    for episode in received:
        copies.setdefault((episode.meta["robot"], episode.meta["seed"]), []).append(episode)
    for one in made:
        name, count = f"robot {one.robot}, seed {one.seed}", len(one.steps)
        found = copies.pop((one.robot, one.seed), [])
        got = len(found[0]) if found else 0
        if one.whole:
            tally.episodes += 1
            tally.steps += count
            if got < count:
                tally.lost += count - got
                tally.errors.append(f"{name}: {count - got} of {count} steps lost")
        else:
            tally.halves += 1
            tally.halves_ended += one.steps[-1]["terminated"] or one.steps[-1]["truncated"]
            tally.half_steps += count
            tally.half_steps_received += min(got, count)
            tally.halves_missing += not found and count > 1
        for again in found[1:]:
            tally.twice += len(again)
            tally.errors.append(f"{name}: there {len(found)} times")
        for episode in found[:1]:
            if wrong := differing(one, episode):
                tally.changed += len(wrong)
                tally.errors.append(f"{name}: steps {wrong[:10]} are not as they were made")
    for (robot, seed), episodes in copies.items():
        tally.changed += sum(len(episode) for episode in episodes)
        tally.errors.append(f"robot {robot}, seed {seed}: never made")
    return tally


def differing(made: Made, episode: Episode) -> list[int]:
    """Numbers of the steps in `episode` that are not, bit for bit, those that were made.

    The last may be truncated where the environment went on: then the robot server was stopped or killed there.
    """
    wrong = []
    seen = [checksum({key: rows[t] for key, rows in episode.observations.items()}) for t in range(len(episode) + 1)]
    for t in range(len(episode)):
        if t >= len(made.steps):
            wrong.append(t)
            continue
        step, cut = made.steps[t], t == len(episode) - 1 and not made.steps[t]["terminated"]
        same = (
            seen[t : t + 2] == made.crc32[t : t + 2]
            and np.array_equal(episode.actions[t], np.array(step["action"], np.float32))
            and episode.rewards[t] == np.float32(step["reward"])
            and episode.terminated[t] == step["terminated"]
            and episode.truncated[t] == (step["truncated"] or cut)
        )
        if not same:
            wrong.append(t)
    return wrong
