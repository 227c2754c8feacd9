"""A person moves the hand of a joint arm with a gamepad, from the stick to the recorded episode."""

import sys

import numpy as np
import pytest

from agent.data.episode_file import episode_paths, read_episode
from envs.real.env import RealEnv
from tools.collect import collect
from tools.devices import gamepad
from tools.recording.config import CollectConfig

sdl2 = pytest.importorskip("sdl2")
ARM = """
import time

import numpy as np

from envs.real.arm import State


class Servos:
    axes = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")

    def __init__(self):
        self.at = np.array([0.0, -20, 40, 50, 0, 60])

    def connect(self):
        pass

    def state(self):
        return State(self.at.copy(), time.monotonic())

    def command(self, target):
        self.at = target.copy()
        return target

    def hold(self):
        pass

    def disconnect(self):
        pass
"""
JOINT = {"low": -90, "high": 90, "speed": 90, "velocity": 150}
HOME = {"shoulder_pan": 0, "shoulder_lift": -20, "elbow_flex": 40, "wrist_flex": 50, "wrist_roll": 0}
OPTIONS = {
    "arm": "servos:Servos",
    "axes": {
        **{name: {**JOINT, "home": home} for name, home in HOME.items()},
        "gripper": {"low": 5, "high": 60, "speed": 300, "home": 60, "gripper": True, "opens": "high"},
    },
    "hand": {"description": "so101", "speed": 0.1, "rotation": ["pitch"]},
    "control_hz": 20.0,
    "watchdog_s": 1.0,  # the machine that tests may be busy
    "realtime": False,
}
LEFTY, FULL, FORWARD = 1, 32767, 12


@pytest.fixture
def pad(monkeypatch):
    """A virtual pad whose left stick is pushed away for FORWARD reads; then A, and after some more Y, are pressed.

    Reads are counted from the end of the reset: the pad is read in it, too.
    """
    gamepad.load_sdl()
    index = sdl2.SDL_JoystickAttachVirtual(sdl2.SDL_JOYSTICK_TYPE_GAMECONTROLLER, 6, 15, 0)
    stick = sdl2.SDL_JoystickOpen(index)
    read, reset, reads = gamepad.Gamepad.read, RealEnv.reset, 0

    def counting_anew(self, **given):
        nonlocal reads
        answer = reset(self, **given)
        reads = 0
        return answer

    def press(name):
        for down in (1, 0):
            number = getattr(sdl2, f"SDL_CONTROLLER_BUTTON_{name}")
            sdl2.SDL_JoystickSetVirtualButton(stick, number, down)
            sdl2.SDL_JoystickUpdate()

    def reading(self):
        nonlocal reads
        now, reads = reads, reads + 1
        sdl2.SDL_JoystickSetVirtualAxis(stick, LEFTY, -FULL if 3 < now <= 3 + FORWARD else 0)
        sdl2.SDL_JoystickUpdate()
        if now in (20, 30):
            press("A" if now == 20 else "Y")
        return read(self)

    monkeypatch.setattr(gamepad.Gamepad, "read", reading)
    monkeypatch.setattr(RealEnv, "reset", counting_anew)
    yield
    sdl2.SDL_JoystickClose(stick)
    sdl2.SDL_JoystickDetachVirtual(index)


def test_a_gamepad_records_an_episode_of_a_joint_arm(pad, tmp_path, monkeypatch, capsys):
    (tmp_path / "servos.py").write_text(ARM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the arm's process
    config = CollectConfig(episodes=1, smoothing_s=0.0, speed=0.5)
    assert collect("real", OPTIONS, "gamepad", config, tmp_path / "demos") == 0
    sys.modules.pop("servos")
    assert "not in this robot's actions: roll, turn left and right" in capsys.readouterr().err
    episode = read_episode(episode_paths([tmp_path / "demos"])[0])
    meaning = episode.meta["env"]["actions"]
    assert meaning["names"] == ["x", "y", "z", "pitch", "gripper"] and meaning["frame"] == "the robot's base"
    assert (meaning["kind"], meaning["units"], meaning["high"][0]) == ("delta", "m and rad", pytest.approx(0.005))
    actions, place = np.asarray(episode.actions), np.asarray(episode.observations["ee_pos"])
    assert actions[:, 0].sum() == pytest.approx(0.5 * FORWARD, abs=0.05)
    assert np.abs(actions[:, 1:4]).max() < 0.15 and actions[0, 4] == -1 and actions[-1, 4] == 1
    np.testing.assert_allclose(place[-1] - place[0], [0.0025 * FORWARD, 0, 0], atol=1e-3)
