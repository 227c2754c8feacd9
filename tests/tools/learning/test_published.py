"""The tables of paired differences in docs/results.md are those that their commands print."""

import re
import shlex
from pathlib import Path

from tools.learning import report

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "results.md"
COMMAND = "python -m tools.learning.report "


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_differences_of_calibration_are_what_the_command_prints(monkeypatch, capsys):
    page = PAGE.read_text()
    part = page[page.index("## Pair by pair") :]
    words = re.search(rf"{re.escape(COMMAND)}(.*?)\n```", part, re.S)[1].replace("\\\n", " ")
    monkeypatch.chdir(ROOT)
    folders = [str(folder) for word in shlex.split(words) if "*" in word for folder in sorted(Path().glob(word))]
    report.main([*folders, *(word for word in shlex.split(words) if "*" not in word)])
    printed = {cells(line)[0].split(" (")[0]: cells(line) for line in capsys.readouterr().out.splitlines()}
    published = [cells(line) for line in part[: part.index("```")].splitlines() if line.startswith("| ")][1:]
    assert len(published) == 5
    for name, pairs, difference, interval, _, bootstrap, won, needed in published:
        told = printed[name]
        assert [pairs, difference, interval, bootstrap, won, needed] == [*told[1:4], *told[6:9]]
