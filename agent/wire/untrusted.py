"""Bytes from outside: the one bounded way to unpack them, and how error messages speak of what was in them."""

from __future__ import annotations

from typing import Any

import msgpack

MAX_DEPTH = 16  # of containers in containers: an env's options may have some
MAX_ITEMS = 5000  # of one list or map

CONTAINERS = (list, tuple, dict)


class WireError(ValueError):
    """A message that is not what the protocol says."""


def unpack_untrusted(data: bytes | memoryview) -> Any:
    """What msgpack `data` hold, with text or bytes as keys of maps. Raises WireError for anything too deep or too long.

    Later code may therefore recurse into the result (repr, json), at most MAX_DEPTH levels deep.
    """
    try:
        value = msgpack.unpackb(data, strict_map_key=True, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS)
    except Exception as error:  # whatever the bytes do to a parser, it means the same
        raise WireError(f"malformed: {type(error).__name__}") from None
    if not is_shallow(value, MAX_DEPTH):
        raise WireError(f"containers nested deeper than {MAX_DEPTH}")
    return value


def is_shallow(value: object, depth: int) -> bool:
    """Whether there are at most `depth` containers in one another; without recursion."""
    level = [value] if isinstance(value, CONTAINERS) else []
    for _ in range(depth):
        level = [child for parent in level for child in _children(parent) if isinstance(child, CONTAINERS)]
        if not level:
            return True
    return not level


def _children(parent: Any) -> Any:
    return parent.values() if isinstance(parent, dict) else parent


def unpack_map(data: bytes | memoryview) -> dict[str, Any]:
    """The same, of a map with text as keys. Raises WireError for anything else."""
    value = unpack_untrusted(data)
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise WireError("not a map of names")
    return value


def kind_of(value: object) -> str:
    """`value` for an error message: numbers as they are, of all else only type and size."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"
