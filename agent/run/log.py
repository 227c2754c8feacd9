"""A run's log: one JSON object a line in `log.jsonl`, the numbers among them to TensorBoard as well."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from agent import logs
from agent.config import Changes, said
from agent.files import make_folder, try_lock
from agent.run.records import LOG_FILE, curves
from agent.spec import UserError

log = logging.getLogger(__name__)


class RunLog:
    """Appends to `<folder>/log.jsonl`; every record has its kind, env_steps, updates and time_s since the run began.

    Raises UserError when it cannot begin, or another process writes this log. From then on a full disk costs records,
    never the run.
    """

    def __init__(self, folder: Path, time_s: float = 0.0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            make_folder(folder)
            self._file = (folder / LOG_FILE).open("ab", buffering=0)  # a record is on its way when it is written
            if not try_lock(self._file):
                raise UserError(f"run folder {folder}: in use by another process")
            self._new_board, self.board = SummaryWriter, SummaryWriter(str(folder))
        except OSError as error:
            raise UserError(f"run folder {folder}: {error.strerror}") from None
        self._folder, self._failing = folder, False
        self._started = time.monotonic() - time_s

    @property
    def time_s(self) -> float:
        return time.monotonic() - self._started

    def write(self, kind: str, env_steps: int, updates: int, **values: Any) -> dict[str, Any]:
        """Returns the record. Tensors, () or (E,), are read here as float32, in one wait for the device; (E,) ones as
        their list.
        """
        tensors = {name: value.float() for name, value in values.items() if isinstance(value, torch.Tensor)}
        read = torch.cat([value.flatten() for value in tensors.values()]).cpu() if tensors else torch.empty(0)
        parts = read.split([value.numel() for value in tensors.values()])
        rows = {n: part.view_as(tensors[n]).tolist() for n, part in zip(tensors, parts, strict=True)}
        plain = {**values, **rows}
        record = {"kind": kind, "env_steps": env_steps, "updates": updates, "time_s": round(self.time_s, 3), **plain}
        try:
            self._write(record)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.error("%s: cannot write the log: %s", self._folder, error)
            self._failing = True
        self._curves(record)
        return record

    def warn(self, line: str, env_steps: int, updates: int) -> None:
        """To people, and into the log."""
        log.warning("%s", line)
        self.write("warning", env_steps, updates, line=line)

    def changes(self, changed: Changes, env_steps: int, updates: int) -> None:
        """What a resumed run has in its config that it had not before: to people, and into the log."""
        for line in said(changed):
            self.say(line)
        if changed:
            self.write("config", env_steps, updates, changed=changed)

    def _write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, default=str).encode() + b"\n"
        if self._failing:
            line = b"\n" + line  # after what there was place for
        if self._file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _curves(self, record: dict[str, Any]) -> None:
        step, found = curves(record)
        try:
            for name, value in found.items():
                self.board.add_scalar(name, value, step)
        except OSError:  # the disk is full, and the board's thread died of it
            with contextlib.suppress(OSError):
                self.board = self._new_board(str(self._folder))

    def say(self, line: str) -> None:
        """Tell people, but not the log."""
        log.info("%s", line)

    def result(self, line: str) -> None:
        """What the run has come to: a command prints it on stdout."""
        logs.result(log, line)

    def close(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self.board.close()
