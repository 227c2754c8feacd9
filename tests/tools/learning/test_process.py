"""A command of a learning run as a process: what of its log is said at the terminal of all runs."""

import sys
import threading

import pytest

from agent.spec import UserError
from tools.learning.process import Means, Process

WARNS = """
import sys, time
print("2026-01-31 14:02:11 30 demonstrations", file=sys.stderr, flush=True)
print("2026-01-31 14:02:11 arm1 warning: bfloat16 is slow here", end="", file=sys.stderr, flush=True)
time.sleep(0.5)
print(": set --bf16 off", file=sys.stderr, flush=True)
print("2026-01-31 14:02:12 warning: it ends", file=sys.stderr)
print("its result")
"""


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """A process's words are Python code."""
    monkeypatch.setattr("tools.common.process.module_command", lambda *words: [sys.executable, "-c", *words])


def test_a_commands_warnings_are_said_once_and_whole_and_its_other_lines_are_not(tmp_path, capsys):
    (tmp_path / "pretrain.log").write_text("2026-01-30 11:00:00 warning: of an earlier slice\n")
    said = Process(tmp_path, "pretrain", WARNS).finish(Means(threading.Event(), 1))
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    name = f"{tmp_path.name} pretrain"
    assert said == "its result\n"
    assert lines == [f"{name}: bfloat16 is slow here: set --bf16 off", f"{name}: it ends"]


def test_a_command_that_fails_has_said_its_warnings(tmp_path, capsys):
    with pytest.raises(UserError, match="pretrain ended with exit code 1"):
        Process(tmp_path, "pretrain", WARNS + "sys.exit(1)").finish(Means(threading.Event(), 1))
    assert "it ends" in capsys.readouterr().out
