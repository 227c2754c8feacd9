"""Device `browser`: the operator's page (tools.panel), in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from agent.config import CollectConfig
from agent.spec import Observation, UserError
from robot_server.control import Control
from robot_server.teleop import Command


class Browser:
    """Opens the page at collect.listen. Raises UserError when it cannot be there."""

    def __init__(self, config: CollectConfig) -> None:
        self._control = Control("tcp://127.0.0.1:*")
        command = [sys.executable, "-m", "tools.panel", "--robot", self._control.address, "--listen", config.listen]
        self._panel = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._panel.stdout and self._panel.stderr
        line = self._panel.stdout.readline()
        if not line:
            self._control.close()
            reason = self._panel.stderr.read().strip().rpartition("error: ")[2]
            raise UserError(f"device 'browser': {reason or 'tools.panel does not start'}")
        self.keys = f"browser: open {line.strip().removeprefix('page: ')}\n  Ctrl-C here   stop recording"

    def read(self) -> Command:
        return self._control.read()

    def show(self, observation: Observation, status: Mapping[str, Any]) -> None:
        self._control.show(observation, status)

    def close(self) -> None:
        self._panel.terminate()
        self._panel.communicate()
        self._control.close()
