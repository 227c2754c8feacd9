"""Moved: python -m tools.learning."""

raise SystemExit("tools.bench.learning has moved: python -m tools.learning")
