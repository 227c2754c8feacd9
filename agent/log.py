"""A run's log: one JSON object a line in `log.jsonl`, the numbers among them to TensorBoard as well."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from agent.spec import UserError


class RunLog:
    """Appends to `<folder>/log.jsonl`; every record has its kind, env_steps, updates and time_s since the run began."""

    def __init__(self, folder: Path, time_s: float = 0.0, quiet: bool = False) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "log.jsonl").open("a", buffering=1)  # a record is on its way when it is written
            self._board = SummaryWriter(str(folder))
        except OSError as error:
            raise UserError(f"run folder {folder}: {error.strerror}") from None
        self._started = time.monotonic() - time_s
        self.quiet = quiet

    @property
    def time_s(self) -> float:
        return time.monotonic() - self._started

    def write(self, kind: str, env_steps: int, updates: int, **values: Any) -> None:
        """Tensors, () or (E,), are read here as float32, in one wait for the device; (E,) ones as their list."""
        tensors = {name: value.float() for name, value in values.items() if isinstance(value, torch.Tensor)}
        read = torch.cat([value.flatten() for value in tensors.values()]).cpu() if tensors else torch.empty(0)
        parts = read.split([value.numel() for value in tensors.values()])
        rows = {n: part.view_as(tensors[n]).tolist() for n, part in zip(tensors, parts, strict=True)}
        plain = {**values, **rows}
        record = {"kind": kind, "env_steps": env_steps, "updates": updates, "time_s": round(self.time_s, 3), **plain}
        self._file.write(json.dumps(record, default=str) + "\n")
        step = env_steps if kind == "episode" else updates
        for name, value in plain.items():
            if isinstance(value, list) and value and isinstance(value[0], float):
                value = sum(value) / len(value)
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, line: str) -> None:
        if not self.quiet:
            print(line, flush=True)

    def close(self) -> None:
        self._file.close()
        self._board.close()
