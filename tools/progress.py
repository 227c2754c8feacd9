"""Progress of long work, on stderr: a bar on a terminal, else a line now and then, with rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Lines:
    """What tqdm's bar offers, as lines for a log file: a line every 10 seconds, and one at the end."""

    def __init__(self, total: int, label: str, unit: str, file: TextIO):
        self._total, self._label, self._unit, self._file = total, label, unit, file
        self._done, self._note = 0, ""
        self._start = self._last_line = time.monotonic()

    def update(self, n: int = 1) -> None:
        self._done += n
        if time.monotonic() - self._last_line >= LINE_EVERY_S and self._done < self._total:
            self._line()

    def set_postfix_str(self, note: str) -> None:
        self._note = note

    def close(self) -> None:
        self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        elapsed_s = self._last_line - self._start
        rate = self._done / max(elapsed_s, 1e-9)
        text = f"{self._label}: {self._done}/{self._total} {self._unit}, {tqdm.format_interval(elapsed_s)}"
        if self._done:
            left_s = (self._total - self._done) / rate
            text += f", {rate:.3g} {self._unit}/s" + (f", {tqdm.format_interval(left_s)} left" if left_s else "")
        print(text + (f", {self._note}" if self._note else ""), file=self._file, flush=True)


@contextlib.contextmanager
def progress(total: int, label: str, unit: str) -> Iterator[tqdm | Lines]:
    """Yields something with update(n) and set_postfix_str(note)."""
    if sys.stderr.isatty():
        bar: tqdm | Lines = tqdm(total=total, desc=label, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)
    else:
        bar = Lines(total, label, unit, sys.stderr)
    with contextlib.closing(bar):
        yield bar
