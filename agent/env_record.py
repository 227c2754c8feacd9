"""The environment that episodes, checkpoints and robots name, with its options and what its actions mean.

In files and messages it is a dict {"name", "options", "actions"}. Its author may be anybody: it must not choose code to
run.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.action_meaning import ActionMeaning, different
from agent.spec import SpecError, UserError

# Options that change nothing in the steps that are recorded: around an episode, not in it.
GUARDS = ("camera_check", "camera_reference", "instruction", "park", "prompt", "ready", "realtime", "release_s")
PLAIN = re.compile(r"sim|fake|gym:(gymnasium_robotics:)?[^:]+")  # imports nothing that the name chooses


@dataclass(frozen=True)
class EnvRecord:
    """name: empty where none is known. options: as plain JSON, so that records compare equal wherever they come from.

    actions: ActionMeaning.to_dict(), not checked before `meaning`.
    """

    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    actions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("options", "actions"):
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))

    @classmethod
    def from_dict(cls, data: object) -> EnvRecord:
        """The inverse of to_dict. What is missing is not known; other keys are passed over. Raises SpecError."""
        if not isinstance(data, Mapping):
            return cls()
        name, options = data.get("name") or "", data.get("options") or {}
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise SpecError(f"the record of environment '{name!s:.100}' is malformed")
        return cls(name, options, data.get("actions") or {})

    @classmethod
    def of_episode(cls, meta: Mapping[str, Any]) -> EnvRecord:
        """The one in an episode's meta. Raises SpecError."""
        return cls.from_dict(meta.get("env"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without what is not known."""
        named = {"name": self.name, "options": dict(self.options)} if self.name else {}
        return {**named, **({"actions": self.actions} if self.actions else {})}

    @property
    def meaning(self) -> ActionMeaning:
        """What the actions mean. Raises SpecError for nonsense."""
        return ActionMeaning.from_dict(self.actions)

    def differences(self, other: EnvRecord) -> dict[str, str]:
        """Option -> "mine against theirs"; or "env" alone, for another environment.

        A switch that one of them lacks is newer than that record, and was off.
        """
        if self.name != other.name:
            return {"env": f"{self.name or None} against {other.name or None}"}
        switches = {key: False for each in (self, other) for key, value in each.options.items() if value is False}
        mine, theirs = {**switches, **self.options}, {**switches, **other.options}
        return {
            key: f"{mine.get(key)} against {theirs.get(key)}"
            for key in sorted({*mine, *theirs}.difference(GUARDS))
            if mine.get(key) != theirs.get(key)
        }

    def usable(self, typed: str | None) -> EnvRecord:
        """What may be taken from a record in a file.

        typed: the environment that the person named. Without one, only an environment that imports no module of the
        file's choice is taken. The options of an arm (real, lerobot:<type>, mock) name code and limits: they are never
        taken from a file. Raises UserError.
        """
        if self.name and not typed and not PLAIN.fullmatch(self.name):
            raise UserError(
                f"the file names the environment '{self.name:.100}', which runs code or moves an arm: "
                f"if you trust it, repeat its name, --env {shlex.quote(self.name)}"
            )
        plain = self.name.startswith("gym:") or PLAIN.fullmatch(self.name)
        return EnvRecord(self.name, self.options if plain else {})


def meaning_of_episode(meta: Mapping[str, Any]) -> ActionMeaning:
    """What the actions of an episode with this meta mean; of a file that an older release converted, its range, rate
    and robot. Raises SpecError.
    """
    known = EnvRecord.of_episode(meta).meaning
    if known != ActionMeaning() or not isinstance(meta.get("source"), Mapping):
        return known
    low, high = meta.get("action_range") or ((), ())
    return ActionMeaning.from_dict(
        {"low": low, "high": high, "control_hz": meta.get("fps") or 0.0, "robot": str(meta.get("robot") or "")}
    )


def compare(mine: tuple[str, EnvRecord], theirs: tuple[str, EnvRecord]) -> None:
    """Raise UserError unless the actions of two (what it is, its record) mean the same."""
    if found := mine[1].meaning.differences(theirs[1].meaning):
        raise UserError(f"{mine[0]} and {theirs[0]}: {different(found)}")


def agreed(episodes: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[ActionMeaning, list[str]]:
    """What the actions of all `episodes` (where it is, meta) mean, and warnings, each of one line.

    Raises UserError, naming two of them, where they mean different things.
    """
    known: list[tuple[str, ActionMeaning]] = []
    envs: list[tuple[str, EnvRecord]] = []
    silent, count = [], 0
    for where, meta in episodes:
        count += 1
        try:
            env, meaning = EnvRecord.of_episode(meta), meaning_of_episode(meta)
        except (SpecError, TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}") from None
        if not meaning.kind:
            silent.append(where)
        if all(meaning != other for _, other in known):
            for first, other in known:
                if found := meaning.differences(other):
                    advice = "train on one of them, or convert both alike (tools.convert --action-range FOLDER)"
                    raise UserError(f"{where} and {first}: {different(found)}; {advice}")
            known.append((where, meaning))
        if env.name and all(env.differences(other) for _, other in envs):
            envs.append((where, env))
    warnings = []
    for where, env in envs[1:4]:
        differences = "; ".join(f"{name}: {what}" for name, what in env.differences(envs[0][1]).items())
        warnings.append(f"{where} and {envs[0][0]} are of different environments: {differences}")
    if silent:
        taken = "the same as the others'" if len(silent) < count else "what the robot's actions mean"
        warnings.append(
            f"{len(silent)} of {count} episodes ({silent[0]}{', ...' if len(silent) > 1 else ''}) do not say what "
            f"their actions mean: they are taken to mean {taken}"
        )
    stated = [meaning for _, meaning in known if meaning.kind] or [meaning for _, meaning in known]
    return (stated or [ActionMeaning()])[0], warnings
