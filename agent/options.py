"""Options as dataclasses: each field with its help and the range of what makes sense."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import field
from typing import Any


def option(default: Any, help: str, low: float | None = None, high: float | None = None, infinite: bool = False) -> Any:
    """A field with its help; `low` and `high` are the ends of what makes sense, for each number in a list too.

    infinite: inf makes sense, too.
    """
    metadata = {"help": help, "low": low, "high": high, "infinite": infinite}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known word most like `word`, or ''."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
