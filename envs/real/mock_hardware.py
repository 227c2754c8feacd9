"""What the simulated arms have in common: faults for a while, scenes, and cameras as late and noisy as real ones."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from agent.options import nearest
from envs.real.mock_arm import WorldOptions
from envs.real.mock_camera_faults import spoil

LOG = "MOCK_LOG"
FAULTS = ("stall", "disconnect", "fault", "late", "swap")
CAMERA_FAULTS = ("freeze", "unplug", "move", "rotate", "dim", "cover")


class Hardware:
    """An arm, its table and its cameras. `tick` moves it on; everything else is asked by the connections' threads.

    tick_hz: how often. measured: float64 (n,). frames: camera -> number, image uint8 (size, size, 3).
    """

    tick_hz: float

    def __init__(self, options: WorldOptions) -> None:
        self.options = options
        self.rng = np.random.default_rng()
        self.measured, self.success = np.zeros(0), False
        self.thing: np.ndarray | None = None  # float64 (3,), m
        self.frames: dict[str, tuple[int, np.ndarray]] = {}
        self.changed = threading.Condition()
        self._ends: dict[str, float] = {}  # fault -> when it is over
        self._scene: int | None = None
        self._pending: deque[tuple[float, dict[str, np.ndarray]]] = deque()
        self._shot_s = 0.0
        path = os.environ.get(LOG)
        self._log = open(path, "a", buffering=1) if path else None  # noqa: SIM115

    def advance(self) -> np.ndarray:
        """One tick of the physics; sets measured, thing, success, and returns where the motors are sent."""
        raise NotImplementedError

    def rearrange(self, seed: int) -> None:
        """New places for the objects; the arm stays."""
        raise NotImplementedError

    def pictures(self) -> dict[str, np.ndarray]:
        """Of each camera, uint8 (size, size, 3)."""
        raise NotImplementedError

    def command(self, target: np.ndarray) -> None:
        """Of an arm without a bus of its own."""

    def hold(self) -> None:
        """Of an arm without a bus of its own."""

    def reply(self) -> tuple[Any, ...]:
        """To whatever the arm was asked: its error or "", what it measures, success, where the thing is."""
        return "", self.measured, self.success, self.thing

    def broken(self, fault: str) -> bool:
        return time.monotonic() < self._ends.get(fault, 0.0)

    def break_(self, fault: str, for_s: float) -> str:
        """Why there is no such fault, in one line, or ""."""
        known = [*FAULTS, *(f"{kind}:{camera}" for kind in CAMERA_FAULTS for camera in self.options.cameras)]
        if fault not in known:
            return f"{fault}: there is no such fault{nearest(fault, known)}: {', '.join(known)}"
        self._ends[fault] = time.monotonic() + for_s
        return ""

    def new_scene(self, seed: int) -> None:
        self._scene = seed

    def tick(self) -> None:
        scene, self._scene = self._scene, None
        if scene is not None:
            self.rearrange(scene)
        target = self.advance()
        if self._log:
            position, sent = self.measured.round(5).tolist(), target.round(5).tolist()
            self._log.write(json.dumps({"t": time.monotonic(), "position": position, "target": sent}) + "\n")
        self._shoot()

    def _shoot(self) -> None:
        now_s = time.monotonic()
        if now_s - self._shot_s >= 1 / self.options.fps - 0.5 / self.tick_hz:
            self._shot_s = now_s
            seen = spoil(self.pictures(), self.broken)
            self._pending.append((now_s + self.options.camera_delay_s, seen))
        while self._pending and self._pending[0][0] <= now_s:
            images = self._pending.popleft()[1]
            with self.changed:
                for name, image in images.items():
                    number, before = self.frames.get(name, (0, image))
                    frozen = self.broken(f"freeze:{name}")
                    # A sensor's noise: no two frames of a camera are the same.
                    noisy = before if frozen else np.clip(image + self.rng.integers(-2, 3, image.shape), 0, 255)
                    self.frames[name] = number + 1, noisy.astype(np.uint8)
                self.changed.notify_all()

    def close(self) -> None:
        if self._log:
            self._log.close()
