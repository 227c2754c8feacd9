"""Tab completion, by argcomplete: a command's flags, every config field as a flag, their choices, and files."""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

from agent import cli, yaml_file
from agent.config import section_class
from agent.spec import UserError

ENVS = ("sim", "fake", "mock", "real", "gym:", "lerobot:")


def typed() -> tuple[list[str], str]:
    """The words of the command line before the cursor, from the program on, and the start of the one under it."""
    _, prefix, _, words, _ = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    return words, prefix


def answer(
    parser: argparse.ArgumentParser, sections: Sequence[str], env_options: Callable[[str], type] | None
) -> typing.NoReturn:
    """Tell the shell what may follow, and end the process. The arguments are those of agent.cli.parse."""
    words, prefix = typed()
    actions = {flag: action for action in parser._actions for flag in action.option_strings}
    _suggest(actions.get("--config"), _configs)
    _suggest(actions.get("--env"), lambda **_: ENVS)
    fields = []
    for name, hint, field in _fields(sections, _env(words, env_options)):
        flag = f"--{name.replace('_', '-')}"
        if flag not in actions:
            fields.append(flag)
            text = str(field.metadata.get("help", "")).replace("%", "%%")
            choices = field.metadata.get("choices") or _choices(hint)
            alone = hint is bool and words[-1] != flag  # it has its value, or does without
            added = parser.add_argument(flag, nargs="?" if alone else None, help=text)
            if choices:
                _suggest(added, lambda choices=choices, **_: map(str, choices))
    argcomplete.autocomplete(
        parser,
        always_complete_options=all(action.option_strings for action in parser._actions),
        exclude=[] if prefix else fields,  # a command's own flags first: the fields are many
    )
    raise SystemExit(1)  # argcomplete ends the process before


def _suggest(action: argparse.Action | None, names: Callable[..., Any]) -> None:
    if action and not hasattr(action, "completer"):
        action.completer = names  # type: ignore[attr-defined]


def _configs(prefix: str, **_: Any) -> list[str]:
    """YAML files, and where the folder has no configs/ of its own, those of the project, which are found anyway."""
    found: list[str] = FilesCompleter(("yaml", "yml"))(prefix)
    if not Path("configs").exists():
        found += [
            str(Path("configs", path.relative_to(yaml_file.CONFIGS))) for path in yaml_file.CONFIGS.rglob("*.yaml")
        ]
    return found


def _env(words: Sequence[str], env_options: Callable[[str], type] | None) -> type | None:
    """The options of the environment that the words so far ask for."""
    if env_options is None:
        return None
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--env", nargs="?")
    asked.add_argument("--config", action="append", nargs="?", default=[])
    flags, _ = asked.parse_known_args(words)
    name = "sim"
    try:
        for path in filter(None, flags.config):
            name = str(cli.read_yaml(path).get("env", {}).get("name", name))
        return env_options(flags.env or name)
    except (UserError, ValueError):
        return None


def _fields(sections: Sequence[str], env: type | None) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Name, type and field of all, by the name that is a flag: with the section's where two have a field of a name."""
    kinds = {**{name: section_class(name) for name in sections}, **({"env": env} if env else {})}
    count = Counter(field.name for kind in kinds.values() for field in dataclasses.fields(kind))
    for section, kind in kinds.items():
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            name = field.name if count[field.name] == 1 else f"{section}.{field.name}"
            yield name, hints[field.name], field


def _choices(hint: Any) -> tuple[Any, ...]:
    if hint is bool:
        return "true", "false"
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return args
    return tuple(choice for arg in args for choice in _choices(arg)) if type(None) in args else ()
