"""Importing robosuite, which needs OpenGL and, for numba, a folder to write to."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from envs.rendering import no_opengl
from envs.runtime import runtime_folder


def import_robosuite() -> Any:
    """Raises ValueError when a library of the system is missing."""
    _give_numba_a_folder()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns about things that nobody here uses, at import and at each make
    try:
        import robosuite

        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise no_opengl(error) or error from None
    finally:
        logging.disable(before)
    return robosuite


def _give_numba_a_folder() -> None:
    """Set NUMBA_CACHE_DIR where numba, which robosuite compiles with, could write neither beside robosuite nor in HOME.

    It refuses to work then. Before its import. Raises ValueError when the temporary folder cannot be written either.
    """
    found = importlib.util.find_spec("robosuite")
    if "NUMBA_CACHE_DIR" in os.environ or found is None:
        return
    beside = [Path(place, "utils", "__pycache__") for place in found.submodule_search_locations or []]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "numba")
    if any(map(_writable, [*beside, home])):
        return
    try:
        os.environ["NUMBA_CACHE_DIR"] = str(runtime_folder() / "numba")
    except OSError as error:
        raise ValueError(f"no folder for numba's cache ({error}): set NUMBA_CACHE_DIR to one") from None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, RuntimeError):
        return False
