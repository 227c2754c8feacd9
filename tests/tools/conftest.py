"""A folder of demonstrations from the fake environment, and the commands as a person runs them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Program


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """command("inspect", folder, "--json"): `python -m tools.inspect`, run from the repository's root."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess:
        words, folder = ["-m", f"tools.{tool}", *map(str, arguments)], tmp_path_factory.mktemp("command")
        program = Program(*words, out=folder / "out", err=folder / "err")
        try:
            code = program.wait(120)
        finally:
            program.kill()
        return subprocess.CompletedProcess(words, code, program.said(), (folder / "err").read_text())

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
