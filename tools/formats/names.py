"""Which of a source's names --rename and --drop mean."""

from __future__ import annotations

def check_names(path: Path, known: set[str], choices: Choices) -> None:
    """Raise UserError for a --rename or --drop of what the source does not have."""
    for name in [*choices.rename, *choices.drop]:
        if name not in known:
            raise UserError(f"{path}: no observation '{name}'; it has {', '.join(sorted(known))}")
