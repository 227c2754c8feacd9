"""Options as dataclasses, and the one check of their values: type, choices, range, known names.

A field made by `option` carries its help and what makes sense for it; its annotation is its type. `build` makes the
dataclass from plain values. Every mistake is a ValueError of one line, `<name> is <value>; it must be <what>`.
envs and agent share this module, so it imports nothing of either.
"""

from __future__ import annotations

import copy
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from typing import Any, Literal, TypeVar, Union

BOOLEAN = " (yes, no, on, off, true and false are booleans in YAML: put the text in quotes)"
QUOTE = " (put it in quotes)"
WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list",
    dict: "`key: value` lines", type(None): "empty",
}  # fmt: skip
T = TypeVar("T")


def option(
    default: Any,
    help: str,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    infinite: bool = False,
    choices: Iterable[str] = (),
) -> Any:
    """A dataclass field: what it is for, and which values make sense.

    low, high, above: of a number, and of each in a list. infinite: inf makes sense, too. choices: of a text, where a
    Literal cannot list them.
    """
    limits = {"low": low, "high": high, "above": above, "infinite": infinite}
    metadata = {"help": help, "limits": limits, "choices": tuple(choices)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def build(kind: type[T], given: Mapping[str, Any], where: str = "") -> T:
    """The dataclass `kind` from plain values. where: of names in errors, such as "calql." or "camera 'wrist': "."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where.rstrip(' .:')}: expected `key: value` lines, not {given!r}")
    hints, known = typing.get_type_hints(kind), {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in given.items():
        name = f"{where}{key}"
        if key not in known:
            near = nearest(key, known) or f"; there are {', '.join(known)}"
            raise ValueError(f"{name}: no such option{near}")
        values[key] = converted(value, hints[key], name)
        about = known[key].metadata
        if about.get("choices"):
            _choose(values[key], about["choices"], name)
        check_range(name, values[key], **about.get("limits", {}))
    return kind(**values)


def converted(value: Any, hint: Any, name: str) -> Any:
    """`value` as the annotated type `hint`: 2 as 2.0 or 2.0 as 2, a single value as a list. Raises ValueError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    kind = origin or hint
    if kind in (Union, types.UnionType):
        return _one_of(value, args, name)
    if kind is Literal:
        return _choose(value, args, name)
    if kind in (list, tuple) and args:
        items = value if isinstance(value, (list, tuple)) else [value]
        return kind(converted(item, args[0], f"{name}[{place}]") for place, item in enumerate(items))
    if kind is dict and isinstance(value, Mapping):
        return dict(value)
    if kind is Any or (kind in (list, bool) and isinstance(value, kind)):
        return value
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and (isinstance(value, numbers.Integral) or float(value).is_integer()):
        return int(value)
    if kind is str and not isinstance(value, (bool, float, list, dict, type(None))):
        return str(value)
    note = {bool: BOOLEAN, float: QUOTE}.get(type(value), "") if kind is str else ""
    raise _wrong(name, value, WORDS.get(kind, str(kind)), note)


def _one_of(value: Any, kinds: tuple[Any, ...], name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        try:
            return converted(value, kind, name)
        except ValueError:
            continue
    raise _wrong(name, value, " or ".join(WORDS.get(kind, str(kind)) for kind in kinds))


def _choose(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    if value not in choices:
        note = BOOLEAN if isinstance(value, bool) else nearest(str(value), choices)
        raise _wrong(name, value, f"one of {', '.join(map(str, choices))}", note)
    return value


def check_range(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    infinite: bool = False,
) -> None:
    """Raise ValueError naming `name` unless `value`, or each number in a list, is finite and within the ends."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            inside = low <= number <= high and (number > above or above == -math.inf)
            if not inside or (isinstance(number, float) and math.isinf(number) and not infinite):
                ends = [f"above {above:.10g}"] * math.isfinite(above) + [f"{low:.10g} or more"] * math.isfinite(low)
                ends += [f"{high:.10g} or less"] * math.isfinite(high)
                raise _wrong(name, value, " and ".join(ends) if ends and not inside else "a finite number")


def nearest(word: str, known: Iterable[object], prefix: str = "") -> str:
    """' (did you mean 'X'?)' for the known word most like `word`, or ''. prefix: shown before it, as a flag's --."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{prefix}{match[0]}'?)" if match else ""


def _wrong(name: str, value: object, wanted: str, note: str = "") -> ValueError:
    shown = f"{value:.10g}" if isinstance(value, float) else repr(value)
    return ValueError(f"{name} is {shown}; it must be {wanted}{note}")
