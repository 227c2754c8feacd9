"""A folder of demonstrations from the fake environment, and the commands as a person runs them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess]:
    """command("inspect", folder, "--json"): `python -m tools.inspect`, run from the repository's root."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", f"tools.{tool}", *map(str, arguments)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="session")
def refused(command) -> Callable[..., str]:
    """The line with which a command refuses: exactly one on stderr, exit code 2, nothing on stdout."""

    def run(tool: str, *arguments: object) -> str:
        done = command(tool, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done
        lines = done.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        return lines[0]

    return run


@pytest.fixture(scope="session")
def demos(tmp_path_factory) -> Path:
    """Six demonstrations, some of them spoilt; not to be changed."""
    from tools.collect import collect
    from tools.recording.config import CollectConfig

    folder = tmp_path_factory.mktemp("demos")
    collect("fake", {}, "scripted", CollectConfig(episodes=6, noise=0.3, failure_rate=0.5, seed=7), folder)
    return folder
