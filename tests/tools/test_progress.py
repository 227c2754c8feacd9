import io

from tools import progress


def test_lines_have_count_rate_and_time_left(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 10.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    lines = progress.Lines(10, "collect", "episodes", out)
    lines.set_postfix_str("3/4 succeeded")
    lines.update(2)  # after 5 s: too early for a line
    assert out.getvalue() == ""
    lines.update(2)  # after 10 s
    assert out.getvalue() == "collect: 4/10 episodes, 00:10, 0.4 episodes/s, 00:15 left, 3/4 succeeded\n"
    lines.close()
    assert out.getvalue().count("\n") == 2


def test_progress_without_a_terminal_ends_with_a_line_on_stderr(capsys):
    with progress.progress(2, "inspect", "files") as bar:
        bar.update(2)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("inspect: 2/2 files")
