"""Which state of a recorded episode somebody has seen: an edit names it, and is made of no other state."""

from __future__ import annotations

from pathlib import Path

from agent.spec import UserError
from tools.common.originals import State, named, original_of, state_of


def version(state: State, edited: bool, dropped: bool) -> str:
    """state: of the episode's file, of a dropped one its original's.

    A file and its original can be the same file: what lies where counts, too.
    """
    return "-".join(map(str, (*state, int(edited), int(dropped))))


def version_now(path: Path) -> str:
    """Of the episode `path`. Raises UserError where neither it nor its original is there."""
    original = original_of(path)
    with named(path):
        edited, dropped = original.exists(), not path.exists()
        return version(state_of((original if dropped else path).stat()), edited, dropped)


def check_seen(paths: list[Path], versions: list[str]) -> None:
    """Raise UserError unless each episode still has the version that somebody saw."""
    changed = [path.name for path, seen in zip(paths, versions, strict=True) if version_now(path) != seen]
    if changed:
        listed = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        raise UserError(f"{listed}: changed since this page showed it; nothing was done. Look again, then repeat it.")
