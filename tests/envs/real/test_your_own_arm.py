"""The guide's arm works as it stands there, at a serial port that only remembers."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import envs
from envs.real.arm import ArmError, make_arm

GUIDE = (Path(__file__).parents[3] / "docs" / "your_own_arm.md").read_text()
SERIAL = """
import os

class Serial:
    def __init__(self, port, baud, timeout):
        if port != "/dev/ttyUSB0":
            raise OSError(f"could not open port {port}")
        self.at, self.enabled, self.answer = "0 45 -40 0", False, b""
        self.log = open(os.environ["SERIAL_LOG"], "a", buffering=1)

    def write(self, line):
        word, _, rest = line.decode().strip().partition(" ")
        self.log.write(word + "\\n")
        self.enabled = {"ENABLE": True, "DISABLE": False}.get(word, self.enabled)
        if word == "GO" and self.enabled:
            self.at = rest
        self.answer = b"OK " + self.at.encode() if self.enabled or word == "DISABLE" else b"NOT ENABLED"

    def readline(self):
        return self.answer + b"\\n"

    def close(self):
        self.log.close()
"""


def block(language):
    return re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[1]


@pytest.fixture
def log(tmp_path, monkeypatch):
    (tmp_path / "desk_arm.py").write_text(block("python"))
    (tmp_path / "serial.py").write_text(SERIAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")  # of the arm's process
    monkeypatch.setenv("SERIAL_LOG", str(tmp_path / "log"))
    yield tmp_path / "log"
    for name in ("desk_arm", "serial"):
        sys.modules.pop(name, None)


def test_it_is_as_short_as_it_says():
    assert len(block("python").splitlines()) <= 50


def test_it_is_an_environment_with_all_that_goes_with_it(log):
    given = yaml.safe_load(block("yaml"))["env"]
    assert given.pop("name") == "real" and given.pop("cameras") and given.pop("prompt")
    env = envs.make("real", **given, realtime=False, watchdog_s=1.0)
    try:
        observation, _ = env.reset(seed=0)
        assert observation["proprio"] == pytest.approx([observation["proprio"][0], 45, -40, 0], abs=0.1)
        for _ in range(8):
            observation, _, _, _, info = env.step(np.array([1, 0, -1, 1], np.float32))
        assert info["action"] == pytest.approx([1, 0, -1, 1], abs=0.01) and observation["proprio"][0] > 10
    finally:
        env.close()
    said = log.read_text().splitlines()
    assert said[0] == "ENABLE" and said[-2:] == ["STOP", "DISABLE"]
    assert said.count("GO") > 3 * 8  # on the way to each target


def test_what_it_says_when_there_is_no_power(log):
    arm = make_arm("desk_arm:DeskArm", {})
    arm.connect()
    arm.ask("DISABLE")
    with pytest.raises(ArmError, match=r"/dev/ttyUSB0: WHERE was answered by 'NOT ENABLED'; has it power\?"):
        arm.state()


def test_a_port_that_is_not_there_is_one_line(log):
    given = yaml.safe_load(block("yaml"))["env"]
    with pytest.raises(ValueError, match=r"arm 'desk_arm:DeskArm': could not open port /dev/ttyUSB7"):
        envs.make("real", arm=given["arm"], axes=given["axes"], arm_options={"port": "/dev/ttyUSB7"}, realtime=False)
