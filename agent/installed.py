"""Imported first by every command: a Python that lacks the project's packages is one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType

OURS = ("agent", "envs", "robot_server", "tools")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook: as ever, but for a package that is not installed."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in OURS:
        sys.__excepthook__(kind, error, trace)
        return
    ours = os.path.realpath(sys.prefix) == os.path.realpath(VENV)
    remedy = f"install it: uv pip install {package}" if ours else "use .venv/bin/python, which `make setup` makes"
    print(f"error: {sys.executable} has no package '{package}': {remedy}", file=sys.stderr)


def _working_directory_last() -> None:
    """In `python -m` of ours: a folder `envs` or `tools` in the working directory is not to stand in front of ours."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec and spec.name.partition(".")[0] in OURS and sys.path[0] == os.getcwd() != ROOT:
        sys.path.append(sys.path.pop(0))


sys.excepthook = _explain
_working_directory_last()
