"""Progress of long work: a command shows a bar on a terminal, else a log line now and then, with rate and time left."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from agent import logs

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 10.0

log = logging.getLogger(__name__)


class Progress:
    """Counts to `total`. Leaving its `with` block by an exception says nothing more: the error has the last line."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        self.total, self.label, self.unit = total, label, unit
        self._bar: tqdm | None = None
        self._start = self._last_line = time.monotonic()
        self._first: int | None = None  # where this process began: what is done already has no rate
        self._done, self._note = 0, ""

    def show(self, done: int, note: str = "") -> None:
        """`done` of the total are done by now."""
        if self._first is None:
            self._first = done
            if sys.stderr.isatty() and logs.configured():
                from tqdm import tqdm

                self._bar = tqdm(
                    total=self.total, initial=done, desc=self.label, unit=f" {self.unit}", file=sys.stderr,
                    dynamic_ncols=True,
                )  # fmt: skip
        self._done, self._note = done, note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S and done < self.total:
            self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self._first is not None:
            self._line()

    def _line(self) -> None:
        from tqdm import tqdm

        self._last_line = time.monotonic()
        elapsed_s = self._last_line - self._start
        rate = (self._done - (self._first or 0)) / max(elapsed_s, 1e-9)
        text = f"{self.label}: {self._done}/{self.total} {self.unit}, {tqdm.format_interval(elapsed_s)}"
        if rate > 0:
            left_s = (self.total - self._done) / rate
            text += f", {rate:.3g} {self.unit}/s" + (f", {tqdm.format_interval(left_s)} left" if left_s > 0 else "")
        log.info("%s", text + (f", {self._note}" if self._note else ""))
