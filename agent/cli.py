"""Command lines: YAML files and flags into config sections; one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

from agent import yaml_file
from agent.commands import retyped
from agent.config import OTHER_SECTIONS, SECTIONS, section_class
from agent.env_record import EnvRecord
from agent.options import build as checked
from agent.options import converted
from agent.options import nearest as nearest
from agent.signals import Stop as Stop
from agent.signals import run as run
from agent.spec import UserError

T = TypeVar("T")
Settings = dict[str, dict[str, Any]]  # section -> field -> value


class Typed(str):
    """The text of a flag: read as YAML unless a text is wanted."""


def coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` (from YAML or a flag) as the annotated type `hint`. Raises UserError naming `where`."""
    try:
        return converted(_read(value, hint, where), hint, where)
    except ValueError as error:
        raise UserError(str(error)) from None


def _read(value: Any, hint: Any, where: str) -> Any:
    """What a text stands for where `hint` is wanted: flags are texts, and so are 1e-4 and the like in YAML 1.1."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        if isinstance(value, Typed) and value in ("", "null", "none") and type(None) in args:
            return None
        return _read(value, next(arg for arg in args if arg is not type(None)), where)
    if typing.get_origin(hint) in (list, tuple) and typing.get_origin(args[0]) is not dict:
        items = _split(value) if isinstance(value, str) else value
        return [_read(item, args[0], where) for item in items] if isinstance(items, (list, tuple)) else items
    if isinstance(value, Typed):
        if hint in (str, Any) or (args and all(isinstance(arg, str) for arg in args)):
            return str(value)
        try:
            value = yaml_file.loads(value, where)
        except UserError as error:
            if "not YAML" not in str(error):
                raise
            return str(value)
    if hint in (int, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _split(text: str) -> list[Typed]:
    """The items of a list in a flag: `a, b` or `[a, b]`; one with a comma stands in quotes: `'a,b', c`."""
    text = text.strip()
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    items = (item.strip() for item in re.findall(r"""(?:"[^"]*"|'[^']*'|[^,])+""", inside))
    return [Typed(item[1:-1] if re.fullmatch(r""""[^"]*"|'[^']*'""", item) else item) for item in items if item]


def read_yaml(path: str | Path) -> Settings:
    """Sections of a YAML file, the user's or one of configs/. Raises UserError naming the file."""
    data = yaml_file.load(yaml_file.shipped(path)) or {}
    if isinstance(data, dict) and (empty := [name for name, section in data.items() if section is None]):
        raise UserError(f"{path}: section '{empty[0]}' is empty: remove it, or write its `key: value` lines below it")
    if not isinstance(data, dict) or not all(isinstance(section, dict) for section in data.values()):
        raise UserError(f"{path}: expected sections of keys, such as 'calql: {{gamma: 0.99}}'")
    return {str(section): {str(key): value for key, value in values.items()} for section, values in data.items()}


def build(kind: type[T], settings: Mapping[str, Any], where: str = "") -> T:
    """agent.options.build of what flags and YAML files say. Raises UserError."""
    if isinstance(settings, Mapping):
        hints = typing.get_type_hints(kind)
        settings = {key: _read(value, hints.get(key), f"{where}{key}") for key, value in settings.items()}
    try:
        return checked(kind, settings, where)
    except ValueError as error:
        raise UserError(str(error)) from None


class Arguments:
    """What the person asked for: `flags` (the command's own), and `settings` (config fields, from files and flags).

    recorded: the environment that a checkpoint remembers.
    """

    def __init__(
        self,
        flags: argparse.Namespace,
        settings: Settings,
        env_options: Callable[[str], type] | None,
        recorded: EnvRecord,
    ):
        self.flags, self.settings, self._env_options, self.recorded = flags, settings, env_options, recorded

    def section(self, name: str, base: Mapping[str, Any] | None = None) -> Any:
        """The section's dataclass: its defaults, under `base` (a checkpoint's), under files, under flags."""
        return build(section_class(name), {**(base or {}), **self.settings.get(name, {})}, f"{name}.")

    def env(self, base: EnvRecord | None = None) -> tuple[str, dict[str, Any]]:
        """Name and complete options of the environment; `base` is a recorded one, or self.recorded.

        Raises UserError for a recorded one that has to be named by the person: see EnvRecord.usable.
        """
        asked = dict(self.settings.get("env", {}))
        recorded = (base or self.recorded).usable(asked.get("name"))
        name = str(asked.pop("name", recorded.name or "sim"))
        options = recorded.options if name == recorded.name else {}
        assert self._env_options is not None
        kind = _options(self._env_options, name)
        return name, dataclasses.asdict(build(kind, {**options, **asked}, f"env ({name}) option "))


def parse(
    argv: list[str] | None,
    description: str,
    sections: Iterable[str],
    add_flags: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    env_options: Callable[[str], type] | None = None,
    prog: str | None = None,
    recorded: Callable[[argparse.Namespace], EnvRecord] = lambda flags: EnvRecord(),
    often: Sequence[str] = (),
) -> Arguments:
    """Read the command line. `sections` are those that the command uses; `env_options` (envs.options) adds `env`.

    often: the flags that people use most, without dashes: --help has them before everything else.
    recorded: gives the environment that a checkpoint among the command's own flags remembers; its options are flags.
    Raises UserError for whatever is wrong with it.
    """
    used = list(sections)
    parser = _Parser(
        prog=retyped(prog) if prog else None,
        description=retyped(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Every config field is a flag too, as --section.field VALUE or --field VALUE; --help-config lists them.",
    )
    parser.add_argument("--config", action="append", default=[], metavar="FILE.yaml", help="settings; may be repeated")
    if env_options:
        parser.add_argument(
            "--env",
            metavar="NAME",
            help="sim, fake, gym:<id>, mock, real, lerobot:<type>; its options are flags too (--task Lift)",
        )
    parser.add_argument("--help-config", action="store_true", help="list every config field and its default")
    add_flags(parser)
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may follow: see tools.completion
        from agent import completion

        completion.answer(parser, used, env_options)
    if often:
        first, _, more = retyped(description).partition("\n")
        parser.description = f"{first}\n\nUsed most:\n{_used_most(parser, used, often)}\n{more}"
    flags, rest = parser.parse_known_args(argv)
    settings: Settings = {}
    for path in flags.config:
        for name, values in read_yaml(path).items():
            if name != "env":
                build(section_class(name, f"{path}: "), values, f"{path}: {name}.")
            merged = settings.setdefault(name, {})
            current = merged.get("name", "sim")
            if name == "env" and values.get("name", current) != current:
                merged.clear()
            merged.update(values)
    env = settings.setdefault("env", {})
    if env_options and flags.env and flags.env != env.get("name", "sim"):
        env.clear()
    if env_options and flags.env:
        env["name"] = flags.env
    known = EnvRecord() if flags.help_config else recorded(flags).usable(env.get("name"))
    name = str(env.get("name", known.name or "sim"))
    options = typing.get_type_hints(_options(env_options, name)) if env_options else {}
    for key, value in _pairs(rest):
        section, field = _resolve(key, used, options, [a for a in parser._option_string_actions])
        settings.setdefault(section, {})[field] = value
    arguments = Arguments(flags, settings, env_options, known)
    if flags.help_config:
        _print_config(arguments, used, env_options)
        raise SystemExit(0)
    for name in used:
        arguments.section(name)  # wrong values are reported before anything starts
    return arguments


def _options(env_options: Callable[[str], type], name: str) -> type:
    try:
        return env_options(name)
    except ValueError as error:
        raise UserError(str(error)) from None


def _used_most(parser: argparse.ArgumentParser, used: list[str], names: Sequence[str]) -> str:
    """A line for each flag: its name, meaning, choices and default."""
    lines = []
    for name in names:
        action = parser._option_string_actions.get(f"--{name}")
        if action:
            value, text = action.metavar or "", parser._get_formatter()._expand_help(action)
        else:
            section, leaf = _resolve(name.replace("-", "_"), used, {}, [])
            kind = section_class(section)
            field = next(field for field in dataclasses.fields(kind) if field.name == leaf)
            hint = typing.get_type_hints(kind)[leaf]
            choices = ", ".join(map(str, typing.get_args(hint))) if typing.get_origin(hint) is typing.Literal else ""
            value = leaf.split("_")[-1].upper()
            default = "" if field.default in ("", dataclasses.MISSING) else f" (default {field.default})"
            text = field.metadata.get("help", "") + (f"; {choices}" if choices else "") + default
        start = f"  --{name + ' ' + str(value):24} "
        lines += textwrap.wrap(start + text, 118, subsequent_indent=" " * len(start))
    return "\n".join(lines) + "\n"


def suggest(action: argparse.Action, values: Iterable[str]) -> None:
    """Offer `values` where tab completes `action`, which takes others, too."""
    action.completer = lambda **_: values  # type: ignore[attr-defined]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message)


def _pairs(rest: list[str]) -> Iterable[tuple[str, Any]]:
    """('gamma', 0.99) from ['--gamma', '0.99'] or ['--gamma=0.99']; a flag alone is True."""
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if not word.startswith("--"):
            raise UserError(f"unexpected argument '{word}'")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if position == len(rest) or rest[position].startswith("--"):
                yield key.replace("-", "_"), True
                continue
            text = rest[position]
            position += 1
        yield key.replace("-", "_"), Typed(text)


def _resolve(key: str, used: list[str], options: Mapping[str, Any], own: list[str]) -> tuple[str, str]:
    """(section, field) that the flag `key` means."""
    fields = {name: [f.name for f in dataclasses.fields(section_class(name))] for name in used}
    if options:
        fields["env"] = list(options)
    section, dot, leaf = key.partition(".")
    if dot:
        if section in fields and leaf in fields[section]:
            return section, leaf
        if section in (*SECTIONS, *OTHER_SECTIONS) and section not in fields:
            raise UserError(f"--{key}: this command does not use section '{section}'")
        raise _unknown_flag(key, [f"{s}.{f}" for s in fields for f in fields[s]])
    found = [name for name, names in fields.items() if key in names]
    if len(found) == 1:
        return found[0], key
    if found:
        raise UserError(f"--{key} could be {' or '.join(f'--{name}.{key}' for name in found)}")
    known = [f for names in fields.values() for f in names] + [flag.lstrip("-") for flag in own]
    raise _unknown_flag(key, known)


def _unknown_flag(key: str, known: Iterable[str]) -> UserError:
    """As flags are typed: with dashes."""
    word, *flags = (name.replace("_", "-") for name in (key, *known))
    return UserError(f"unknown flag --{word}{nearest(word, flags, prefix='--')}")


def _print_config(arguments: Arguments, used: list[str], env_options: Callable[[str], type] | None) -> None:
    sections = {name: arguments.section(name) for name in used}
    if env_options:
        name, values = arguments.env()
        sections[f"env ({name})"] = env_options(name)(**values)
    for name, section in sections.items():
        print(f"\n{name}:")
        for f in dataclasses.fields(section):
            print(f"  {f.name + ':':22}{getattr(section, f.name)!s:24} # {f.metadata.get('help', '')}")
