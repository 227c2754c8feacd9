"""How commands are typed: `python -m MODULE`, or `calql NAME` where a person typed that."""

from __future__ import annotations

import re
import shlex

names: dict[str, str] = {}  # module -> NAME; filled by tools.calql, empty in `python -m`


def typed(module: str, *words: object) -> str:
    """A command of this project as a person types it: `python -m agent.learner --resume runs/lift`, quoted."""
    start = ["calql", *names[module].split()] if module in names else ["python", "-m", module]
    return shlex.join([*start, *map(str, words)])


def retyped(text: str) -> str:
    """`text` with its `python -m MODULE` as `calql NAME`, where a person typed that."""
    return re.sub(r"python -m ([\w.]+\w)", lambda found: typed(found[1]), text)
