"""Device `browser`: the operator's page (tools.panel), in a process of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.spec import Observation, UserError
from envs.start import module_command
from robot_server.command import Command, Device
from robot_server.control import Control
from robot_server.control_address import AUTO, bound
from tools.recording.config import CollectConfig


class Browser(Device):
    """Opens the page at collect.listen. Raises UserError when it cannot be there.

    recordings: the folder for its page of recorded episodes, which need not exist yet. names: of the numbers of an
    action and of each observed vector. task: in words.
    """

    latches = True

    def __init__(
        self, config: CollectConfig, recordings: Path, names: Mapping[str, Iterable[str]], task: str = ""
    ) -> None:
        self._control = Control(bound(AUTO, f"collect-{os.getpid()}"))
        self._control.history.name(names)
        self._control.task = task
        words = ["--robot", self._control.address, "--listen", config.listen, "--attached"]
        words += ["--episodes", str(recordings.resolve())]
        with tempfile.TemporaryFile("w+") as errors:  # not a pipe: nobody would empty it
            self._panel = subprocess.Popen(
                module_command("tools.panel", *words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert self._panel.stdout
            line = self._panel.stdout.readline()
            if not line:
                self._control.close()
                errors.seek(0)
                reason = errors.read().strip().rpartition("error: ")[2]
                raise UserError(f"device 'browser': {reason or 'tools.panel does not start'}")
        self.keys = f"browser: open {line.strip().removeprefix('page: ')}\n  Ctrl-C here   stop recording"

    @property
    def hold_reason(self) -> str:
        return self._control.hold_reason

    @property
    def step_s(self) -> float:
        return self._control.step_s

    @step_s.setter
    def step_s(self, seconds: float) -> None:
        self._control.step_s = seconds

    @property
    def layout(self) -> tuple[int, ...]:
        return self._control.layout

    @layout.setter
    def layout(self, layout: tuple[int, ...]) -> None:
        self._control.layout = layout

    def read(self) -> Command:
        if self._panel.poll() is not None:
            raise UserError("device 'browser': the page's process has exited")
        return self._control.read()

    def drop_events(self) -> None:
        self._control.drop_events()

    def reset(self, gripper: float = -1.0) -> None:
        self._control.reset(gripper)

    def show(self, observation: Observation, status: Mapping[str, Any]) -> None:
        self._control.show(observation, status)

    def close(self) -> None:
        self._panel.terminate()
        self._panel.communicate()
        self._control.close()
