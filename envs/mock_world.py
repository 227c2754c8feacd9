"""Moved: python -m envs.real.mock_world."""

raise SystemExit("envs.mock_world has moved: python -m envs.real.mock_world")
