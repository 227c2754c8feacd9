"""Which of a source's names --rename and --drop mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from agent.spec import UserError
from tools.formats.common.foreign import Choices

ACTIONS = ("action", "actions")  # as a new name: the source's actions, and no observation
PREFIXES = ("observations.", "observation.", "obs.", "images.")


def action_name(choices: Choices, usual: str) -> str:
    """The source's name of the actions: --rename NAME=actions says it, else it is the format's `usual` one."""
    return next((source for source, name in choices.rename.items() if name in ACTIONS), usual)


def resolved(path: Path, known: Iterable[str], choices: Choices) -> Choices:
    """`choices` with --rename and --drop in the source's own names; "observation/x" and "obs.x" mean "x", too.

    Raises UserError for a name that the source does not have.
    """
    names = set(known)

    def own(name: str) -> str:
        found = name
        for prefix in ("", *PREFIXES):
            found = found.replace("/", ".").removeprefix(prefix)
            if name in names or found in names:
                return name if name in names else found
        raise UserError(f"{path}: no observation '{name}'; it has {', '.join(sorted(names))}")

    rename = {own(source): name for source, name in choices.rename.items() if name not in ACTIONS}
    return dataclasses.replace(choices, rename=rename, drop=[own(name) for name in choices.drop])
