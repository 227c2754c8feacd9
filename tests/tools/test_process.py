"""A command as a process: what it says is in files, and how it failed is one line."""

import pytest

from agent.spec import UserError
from tools.common.process import Process


def test_the_output_of_a_command_and_the_last_line_of_one_that_failed(tmp_path, monkeypatch):
    (tmp_path / "told.py").write_text(
        "import sys; print('out'); print('first', file=sys.stderr); sys.exit(sys.argv[1] if sys.argv[1:] else 0)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert Process(tmp_path / "new", "well", "told").output() == "out\n"
    with pytest.raises(UserError, match=r"badly ended with exit code 1: no such thing \(.*badly\.log\)"):
        Process(tmp_path, "badly", "told", "no such thing").output()


def test_a_command_is_ended_with_the_one_that_waits_for_it(tmp_path, monkeypatch):
    (tmp_path / "waits.py").write_text("import time; time.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = Process(tmp_path, "waits", "waits")
    real = command.process.wait
    monkeypatch.setattr(command.process, "wait", lambda *timeout: real(*timeout) if timeout else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.output()
    assert command.ended()
