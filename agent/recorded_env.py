"""The environment that a checkpoint or an episode names. Its author may be anybody: it must not choose code to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from agent.spec import UserError

PLAIN = re.compile(r"sim|fake|gym:(gymnasium_robotics:)?[^:]+")  # imports nothing that the name chooses


def usable(record: Any, typed: str | None) -> dict[str, Any]:
    """{"name", "options"} of what a file recorded; {} where it names none.

    typed: the environment that the person named. Without one, only an environment that imports no module of the
    file's choice is taken. The options of an arm (real, lerobot:<type>, mock) name code and limits: they are never
    taken from a file. Raises UserError.
    """
    if not isinstance(record, Mapping) or not record.get("name"):
        return {}
    name, options = str(record["name"]), record.get("options") or {}
    if not typed and not PLAIN.fullmatch(name):
        raise UserError(
            f"the file names the environment '{name:.100}', which runs code or moves an arm: "
            f"if you trust it, repeat its name, --env {shlex.quote(name)}"
        )
    if not isinstance(options, Mapping):
        raise UserError(f"the file's options of environment '{name:.100}' are malformed; name it with --env")
    return {"name": name, "options": dict(options) if name.startswith("gym:") or PLAIN.fullmatch(name) else {}}
