"""Imported first by every command: a Python that lacks the project's packages is one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType

OURS = ("agent", "envs", "robot_server", "tools")
VENV = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".venv")


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook: as ever, but for a package that is not installed."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in OURS:
        sys.__excepthook__(kind, error, trace)
        return
    ours = os.path.realpath(sys.prefix) == os.path.realpath(VENV)
    remedy = f"install it: uv pip install {package}" if ours else "use .venv/bin/python, which `make setup` makes"
    print(f"error: {sys.executable} has no package '{package}': {remedy}", file=sys.stderr)


sys.excepthook = _explain
