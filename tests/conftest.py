"""For all tests, and the programs that they start."""

import logging
import os
import sys
from pathlib import Path

import forked
import pytest

# One thread per process. Tiny networks gain nothing from more, and processes run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where Python may write no bytecode, each program of a test compiles all of torch anew: seconds, hundreds of times.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    cache = str(Path(__file__).parents[1] / ".pytest_cache/bytecode")
    os.environ.setdefault("PYTHONPYCACHEPREFIX", cache)
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]


REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real():
    """real("robosuite_lift_3"): the path of those data beside the repository; skips where they are not there."""

    def path(name):
        if not (REAL / name).exists():
            pytest.skip(f"no shared/data/{name} beside the repository")
        return REAL / name

    return path


@pytest.fixture
def forked_commands(monkeypatch):
    """What tools start by tools.common.process.start is forked; see tests/forked.py."""
    for module in ("tools.common.process", "tools.stress.processes"):
        monkeypatch.setattr(f"{module}.start", forked.start)


@pytest.fixture(autouse=True)
def no_log_on_stderr(monkeypatch):
    """Commands that a test runs in its own process leave its logging as it is."""
    monkeypatch.setattr("agent.logs.configure", lambda robot="": None)


@pytest.fixture
def logged(caplog):
    """logged(): the lines that our packages have logged since the last call."""
    packages = ("agent", "robot_server", "envs", "tools")
    for package in packages:
        caplog.set_level(logging.INFO, package)

    def lines():
        found = [each.getMessage() for each in caplog.records if each.name.split(".")[0] in packages]
        caplog.clear()
        return found

    return lines
