"""The gamepad through the real SDL, with SDL's own virtual pad in place of a real one."""

import numpy as np
import pytest

from agent.spec import UserError
from tools.devices import gamepad
from tools.recording.config import CollectConfig

sdl2 = pytest.importorskip("sdl2")
CONFIG = {"smoothing_s": 0.0, "speed": 1.0, "rotation_speed": 1.0, "dead_band": 0.1}
AXES = {"LEFTX": 0, "LEFTY": 1, "RIGHTX": 2, "RIGHTY": 3, "TRIGGERLEFT": 4, "TRIGGERRIGHT": 5}
FULL, REST = 32767, -32768  # REST: of a trigger


class Pad:
    """A pad that reports what it is told; its device is opened by `gamepad`."""

    def __init__(self, **config):
        gamepad.load_sdl()
        self.index = sdl2.SDL_JoystickAttachVirtual(sdl2.SDL_JOYSTICK_TYPE_GAMECONTROLLER, 6, 15, 0)
        assert self.index >= 0
        self.stick = sdl2.SDL_JoystickOpen(self.index)
        for trigger in ("TRIGGERLEFT", "TRIGGERRIGHT"):
            self.axis(trigger, REST)
        sdl2.SDL_JoystickUpdate()
        self.device = gamepad.Gamepad(CollectConfig(**{**CONFIG, **config}))

    def axis(self, name, value):
        assert sdl2.SDL_JoystickSetVirtualAxis(self.stick, AXES[name], value) == 0
        sdl2.SDL_JoystickUpdate()

    def button(self, name, down):
        number = getattr(sdl2, f"SDL_CONTROLLER_BUTTON_{name}")
        assert sdl2.SDL_JoystickSetVirtualButton(self.stick, number, down) == 0
        sdl2.SDL_JoystickUpdate()

    def press(self, *names):
        for name in names:
            self.button(name, 1)
            self.button(name, 0)

    def unplug(self):
        if self.index >= 0:
            sdl2.SDL_JoystickClose(self.stick)
            assert sdl2.SDL_JoystickDetachVirtual(self.index) == 0
            self.index = -1

    def close(self):
        self.device.close()
        self.unplug()


@pytest.fixture
def pad():
    made = Pad()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("stick", "value", "moves"),
    [
        ("LEFTY", REST, [1, 0, 0, 0, 0, 0]), ("LEFTX", REST, [0, 1, 0, 0, 0, 0]), ("RIGHTY", REST, [0, 0, 1, 0, 0, 0]),
        ("RIGHTX", REST, [0, 0, 0, 0, 0, 1]), ("TRIGGERRIGHT", FULL, [0, 0, 0, 1, 0, 0]),
        ("TRIGGERLEFT", FULL, [0, 0, 0, -1, 0, 0]), ("LEFTX", FULL, [0, -1, 0, 0, 0, 0]), ("LEFTX", 3000, [0] * 6),
    ],
)  # fmt: skip
def test_the_sticks(pad, stick, value, moves):
    assert pad.device.read().motion.tolist() == [0] * 6
    pad.axis(stick, value)
    assert np.allclose(pad.device.read().motion, moves, atol=1e-4)


def test_half_a_stick_is_slower(pad):
    pad.axis("LEFTX", -FULL // 2)
    assert pad.device.read().motion[1] == pytest.approx(0.4 / 0.9, abs=1e-3)  # beyond the dead band


def test_the_cross_pitches(pad):
    pad.button("DPAD_UP", 1)
    assert pad.device.read().motion.tolist() == [0, 0, 0, 0, 1, 0]


def test_a_press_between_two_commands_counts(pad):
    assert pad.device.read().gripper == -1
    pad.press("A")
    assert pad.device.read().gripper == 1
    pad.press("A", "A")
    assert pad.device.read().gripper == 1


def test_marks(pad):
    pad.press("Y", "X", "B", "START", "BACK", "BACK")
    assert pad.device.read().events == ("success", "failure", "discard", "end", "pause", "resume")
    assert pad.device.read().events == () and pad.device.read().enabled


def test_a_new_episode_has_the_gripper_as_it_is_and_is_not_paused(pad):
    for gripper in (1.0, -1.0):
        pad.press("BACK")
        assert pad.device.read().events == ("pause",)
        pad.device.reset(gripper)
        assert pad.device.read().gripper == gripper
        pad.press("A")
        assert pad.device.read().gripper == -gripper
    pad.device.reset()
    assert pad.device.read().gripper == -1


def test_with_an_enable_key_the_bumper_must_be_held():
    pad = Pad(enable_key=True)
    try:
        pad.axis("LEFTY", REST)
        command = pad.device.read()
        assert not command.enabled and not command.motion.any()
        pad.button("RIGHTSHOULDER", 1)
        command = pad.device.read()
        assert command.enabled and command.motion[0] == 1
    finally:
        pad.close()


def test_a_pad_that_goes_is_one_line(pad):
    pad.axis("LEFTY", REST)
    pad.device.read()
    pad.unplug()
    with pytest.raises(UserError, match="the gamepad is disconnected"):
        pad.device.read()


def test_another_pad_may_come_and_go(pad):
    other = sdl2.SDL_JoystickAttachVirtual(sdl2.SDL_JOYSTICK_TYPE_GAMECONTROLLER, 6, 15, 0)
    pad.device.read()
    assert sdl2.SDL_JoystickDetachVirtual(other) == 0
    pad.press("A")
    assert pad.device.read().gripper == 1


def test_no_pad_and_one_that_may_not_be_read_have_their_remedies(monkeypatch):
    monkeypatch.setattr(gamepad.glob, "glob", lambda pattern: [])
    with pytest.raises(UserError, match="no gamepad found; plug one in"):
        gamepad.Gamepad(CollectConfig())
    monkeypatch.setattr(gamepad.glob, "glob", lambda pattern: ["/dev/input/js0"] if "js" in pattern else [])
    monkeypatch.setattr(gamepad.os, "access", lambda path, mode: False)
    with pytest.raises(UserError) as refused:
        gamepad.Gamepad(CollectConfig())
    line = str(refused.value)
    assert "/dev/input/js0 may not be read" in line and gamepad.RULE in line and "\n" not in line


def test_a_joystick_that_is_no_gamepad_is_named():
    gamepad.load_sdl()
    index = sdl2.SDL_JoystickAttachVirtual(sdl2.SDL_JOYSTICK_TYPE_THROTTLE, 2, 2, 0)
    try:
        with pytest.raises(UserError, match="does not know the buttons of 'Virtual"):
            gamepad.Gamepad(CollectConfig())
    finally:
        assert sdl2.SDL_JoystickDetachVirtual(index) == 0


def test_the_key_map_fits_a_terminal(pad):
    assert max(map(len, pad.device.keys.splitlines())) <= 80
