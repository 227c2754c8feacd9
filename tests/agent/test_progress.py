import pytest

from agent import progress
from agent.progress import Progress


def test_lines_have_count_rate_and_time_left(monkeypatch, logged):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(10, "collect", "episodes") as shown:
        now[0] = 5.0
        shown.show(0)
        assert logged() == []  # too early for a line
        now[0] = 10.0
        shown.show(4, "3/4 succeeded")
        assert logged() == ["collect: 4/10 episodes, 00:10, 0.4 episodes/s, 00:15 left, 3/4 succeeded"]
        shown.show(5)
    assert logged() == ["collect: 5/10 episodes, 00:10, 0.5 episodes/s, 00:10 left"]


def test_what_was_done_before_has_no_part_in_the_rate(monkeypatch, logged):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(1000, "fine-tune", "env steps") as shown:
        shown.show(900)
        now[0] = 10.0
        shown.show(910)
    assert "910/1000 env steps, 00:10, 1 env steps/s, 01:30 left" in logged()[0]


def test_an_error_has_the_last_line(logged):
    with pytest.raises(ValueError), Progress(10, "collect", "episodes") as shown:
        shown.show(3)
        raise ValueError
    assert logged() == []


def test_a_bar_on_a_terminal_ends_at_its_count(monkeypatch, capsys):
    monkeypatch.setattr("agent.logs.configured", lambda: True)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(10, "inspect", "files") as shown:
        shown.show(4, "one")
        shown.show(10, "all")
    err = capsys.readouterr().err
    assert "inspect: 100%" in err and "10/10" in err and "all" in err


def test_a_program_that_calls_our_functions_gets_no_bar(monkeypatch, capfd):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(10, "inspect", "files") as shown:
        shown.show(10)
    assert capfd.readouterr() == ("", "")
