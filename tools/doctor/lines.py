"""What the doctor reports: a line for each check, green or red, or all of them as JSON."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

GREEN, RED, PLAIN = "\x1b[32m", "\x1b[1;31m", "\x1b[0m"
WIDTH = 16  # of a check's name


@dataclass(frozen=True)
class Line:
    """remedy: what to do; empty when the check is good."""

    check: str
    says: str
    remedy: str = ""


class Screen:
    """Shows each line at once; as_json: only at the end."""

    def __init__(self, as_json: bool) -> None:
        self.lines: list[Line] = []
        self._json = as_json
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def add(self, *lines: Line) -> None:
        self.lines += lines
        if not self._json:
            for line in lines:
                print(self._text(line), flush=True)

    @property
    def good(self) -> bool:
        return not any(line.remedy for line in self.lines)

    def finish(self) -> int:
        """Print what is left. Returns the exit code."""
        if self._json:
            checks = [{**asdict(line), "ok": not line.remedy} for line in self.lines]
            print(json.dumps({"ok": self.good, "checks": checks}, indent=2))
        else:
            bad = sum(bool(line.remedy) for line in self.lines)
            print("all is well" if self.good else f"{bad} of {len(self.lines)} checks failed")
        return 0 if self.good else 1

    def _text(self, line: Line) -> str:
        word = f"{'FAIL' if line.remedy else 'ok':5}"
        if self._colour:
            word = f"{RED if line.remedy else GREEN}{word}{PLAIN}"
        text = f"{word}{line.check:{WIDTH}} {line.says}"
        return f"{text}\n{'':5}-> {line.remedy}" if line.remedy else text
