"""What learning runs and their data are made of, written down beside them: nothing goes on with other settings."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agent import cli
from agent.config import OTHER_SECTIONS, REMOVED, SECTIONS, section_class
from agent.files import written
from agent.spec import UserError
from tools.common.rollout import env_options

MADE_OF = "made_of.json"


def config_words(configs: Sequence[str]) -> list[str]:
    return [word for path in configs for word in ("--config", path)]


def settings(configs: Sequence[str]) -> dict[str, Any]:
    """section -> its dataclass, as the commands will read it; "env" -> its name and options. Raises UserError."""
    names = [*SECTIONS, *OTHER_SECTIONS]
    arguments = cli.parse(config_words(configs), "", names, env_options=env_options)
    return {name: arguments.section(name) for name in names} | {"env": arguments.env()}


def made_of(configs: Sequence[str], sections: Sequence[str], **more: Any) -> dict[str, Any]:
    """As plain JSON, what something depends on: these sections of its configs, and `more`."""
    found = settings(configs)
    return dict(plain({**{name: found[name] for name in sections}, **more}))


def plain(value: Any) -> Any:
    """As JSON has it, which knows finite numbers only: others become words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def beside(data: Path) -> Path:
    """The folder in which the demonstrations in `data` are made; what they are made of is there."""
    return data.with_name(f"{data.name}-work")


def pinned(folder: Path) -> dict[str, Any]:
    """What `folder` is made of, as `pin` wrote it down; empty if it did not."""
    return read(folder / MADE_OF)


def pin(folder: Path, parts: dict[str, Any]) -> None:
    """Write down what `folder` is made of, the first time. Raises UserError if it was begun with other settings."""
    path = folder / MADE_OF
    if path.exists():
        same(path, read(path), parts)
    else:
        write(path, parts)


NO_MATTER = ("robot.control", "learner.robot_gb", "learner.mode")  # settings that change no result


def same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError naming the first setting in which they differ."""
    for key, (then, new) in differences(before, now).items():
        raise UserError(
            f"{path}: made with other settings ({key}: {then!r}, now {new!r}); "
            "give another --out, or delete what is there"
        )


def differences(one: dict[str, Any], two: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """'section.field' -> the value in each, of settings that change results, in their order. One that is missing is
    newer than that, and had what is its default now.
    """
    flat, other = (dict(_leaves(parts, "")) for parts in (one, two))
    keys = [key for key in sorted(flat.keys() | other.keys()) if key not in NO_MATTER]
    found = {key: (flat.get(key), other.get(key)) for key in keys if flat.get(key) != other.get(key)}
    newer = {key for key in found if flat.get(key, _default(key)) == other.get(key, _default(key))}
    return {key: values for key, values in found.items() if key not in newer}


def not_default(parts: dict[str, Any]) -> dict[str, Any]:
    """'section.field' -> value, of what is not as by default: without settings that are newer than a folder."""
    return {key: value for key, value in _leaves(parts, "") if key not in NO_MATTER and value != _default(key)}


def _default(key: str) -> Any:
    """Of 'section.field'; an option of an environment, which is not known here, is off."""
    section, _, field = key.partition(".")
    if section not in {*SECTIONS, *OTHER_SECTIONS}:
        return False
    return plain(getattr(section_class(section)(), field, REMOVED.get(section, {}).get(field)))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _leaves({str(number): inner for number, inner in enumerate(value)}, name)  # env: name, options
    else:
        yield name, value


def write(path: Path, content: dict[str, Any]) -> None:
    put(path, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def put(path: Path, text: str) -> None:
    """A file that appears whole, in a folder that is made: runs of another call may be reading it."""
    with written(path) as file:
        file.write(text.encode())


def read(path: Path) -> dict[str, Any]:
    """Empty if it is not there. Raises UserError if it is damaged."""
    try:
        return dict(json.loads(path.read_text(), parse_constant=str)) if path.exists() else {}  # a bare Infinity, too
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not what tools.learning writes: {error}; delete it to recreate it") from None
