"""A command of a learning run as a process: what of its log is printed, and that it ends with what started it."""

import sys
import threading

import pytest

from agent.spec import UserError
from tools.learning import process as learning_process
from tools.learning.process import Means, Process, Stopped

WARNS = """
import sys, time
print("2026-01-31 14:02:11 30 demonstrations\\nkernel.c:3: warning: not ours", file=sys.stderr, flush=True)
print("2026-01-31 14:02:11 arm1 warning: bfloat16 is slow here", end="", file=sys.stderr, flush=True)
time.sleep(0.5)
sys.stderr.buffer.write(b": set --bf16 off \\xff\\n")
print("2026-01-31 14:02:12 error: it ends", file=sys.stderr)
print("its result")
"""
WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("2026-01-31 14:02:12 warning: stopped", file=sys.stderr)))
print("2026-01-31 14:02:11 warning: it waits", file=sys.stderr, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """A process's words are Python code."""
    monkeypatch.setattr("tools.common.process.module_command", lambda *words: [sys.executable, "-c", *words])


def test_a_commands_warnings_and_errors_are_printed_once_and_whole_and_nothing_else(tmp_path, capsys):
    (tmp_path / "pretrain.log").write_text("2026-01-30 11:00:00 warning: of an earlier slice\n")
    said = Process(tmp_path, "pretrain", WARNS).finish(Means(threading.Event(), 1))
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    name = f"{tmp_path.name} pretrain"
    assert said == "its result\n"
    assert lines == [
        f"{name}: warning: bfloat16 is slow here: set --bf16 off \N{REPLACEMENT CHARACTER}",
        f"{name}: error: it ends",
    ]


def test_a_command_that_fails_has_printed_its_warnings(tmp_path, capsys):
    with pytest.raises(UserError, match="pretrain ended with exit code 1"):
        Process(tmp_path, "pretrain", WARNS + "sys.exit(1)").finish(Means(threading.Event(), 1))
    assert "it ends" in capsys.readouterr().out


def test_a_command_that_is_stopped_prints_what_it_warned_of_then(tmp_path, capsys):
    stop = threading.Event()
    process = Process(tmp_path, "pretrain", WAITS)
    threading.Timer(2.0, stop.set).start()
    with pytest.raises(Stopped):
        process.finish(Means(stop, 1))
    assert process.ended() and "stopped" in capsys.readouterr().out


def test_a_command_ends_when_nothing_can_be_printed(tmp_path, monkeypatch):
    def interrupted(line):
        raise KeyboardInterrupt

    process = Process(tmp_path, "pretrain", WAITS)
    with monkeypatch.context() as patched:
        patched.setattr(learning_process, "say", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.finish(Means(threading.Event(), 1))
    assert process.ended()


def test_lines_are_printed_in_whatever_encoding_the_terminal_has(tmp_path, monkeypatch):
    with open(tmp_path / "said", "w", encoding="latin-1") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        learning_process.say("5 \N{GREEK SMALL LETTER MU}s")
    assert (tmp_path / "said").read_text(encoding="latin-1").endswith(" 5 ?s\n")
