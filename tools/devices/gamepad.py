"""Device `gamepad`: any pad that SDL knows (Xbox, PlayStation, Switch, and most others), wired or not.

SDL because it names the buttons of all of them alike; its wheel (pysdl2-dll) brings the library, and reads
/dev/input without a window system.
"""

from __future__ import annotations

import glob
import os
import warnings
from typing import Any

import numpy as np

from agent.spec import UserError
from robot_server.command import Command, Device
from tools.devices.shaping import Shaping
from tools.devices.terminal import Marks, terminal_if_any
from tools.recording.config import CollectConfig

RULE = 'SUBSYSTEM=="input", ENV{ID_INPUT_JOYSTICK}=="1", MODE="0666"'
MARKS = {"y": "y", "x": "n", "b": "backspace", "start": "enter", "back": "p"}  # button -> key of Marks


def load_sdl() -> Any:
    """The library, with its pads. Raises UserError where it is not installed."""
    os.environ["SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS"] = "1"
    os.environ["SDL_NO_SIGNAL_HANDLERS"] = "1"  # Ctrl-C stays Python's
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # which says where the library comes from
            import sdl2
    except ImportError:
        raise UserError("device 'gamepad' needs the extra [record]: pip install pysdl2 pysdl2-dll") from None
    if sdl2.SDL_Init(sdl2.SDL_INIT_GAMECONTROLLER):
        raise UserError(f"device 'gamepad': {sdl2.SDL_GetError().decode()}")
    return sdl2


class Gamepad(Device):
    """The first pad that is there. Raises UserError, with the remedy, when there is none or it may not be read."""

    keys = f"""\
gamepad: (its buttons as on an Xbox pad)
  left stick    away from the robot's base and back, left and right
  right stick   up and down, turn left and right
  triggers      roll left / right              cross       pitch forward / back
  A             close / open the gripper       Back        pause, go on
  Y / X / B     end the episode: success / failure / discard it
  Start         end it, kept as the environment judges it
and in the terminal:
{Marks.keys}"""
    ENABLE = "\n  right bumper  hold it: the arm follows the sticks only then"

    def __init__(self, config: CollectConfig) -> None:
        self._sdl = sdl = load_sdl()
        found = [i for i in range(sdl.SDL_NumJoysticks()) if sdl.SDL_IsGameController(i)]
        self._pad = sdl.SDL_GameControllerOpen(found[0]) if found else None
        if not self._pad:
            raise UserError(_remedy([sdl.SDL_JoystickNameForIndex(i).decode() for i in range(sdl.SDL_NumJoysticks())]))
        self._id = sdl.SDL_JoystickInstanceID(sdl.SDL_GameControllerGetJoystick(self._pad))
        self._shaping, self._enable_key = Shaping(config), config.enable_key
        self._gripper, self._paused = -1.0, False
        self._terminal, self._marks = terminal_if_any(), Marks()
        self._buttons = {getattr(sdl, f"SDL_CONTROLLER_BUTTON_{name.upper()}"): name for name in ("a", *MARKS)}
        if config.enable_key:
            self.keys += self.ENABLE

    def read(self) -> Command:
        events = self._marks.events(self._terminal.keys()) if self._terminal else ()
        for name in self._pressed():
            if name == "a":
                self._gripper = -self._gripper
            else:
                events += self._marks.events([MARKS[name]])
        axis, button = self._axis, self._button
        raw = np.array(
            [
                -axis("LEFTY"),
                -axis("LEFTX"),
                -axis("RIGHTY"),
                axis("TRIGGERRIGHT") - axis("TRIGGERLEFT"),
                button("DPAD_UP") - button("DPAD_DOWN"),
                -axis("RIGHTX"),
            ]
        )
        enabled = not self._enable_key or bool(button("RIGHTSHOULDER"))
        return Command(self._shaping.motion(raw * enabled), self._gripper, enabled, events)

    def _pressed(self) -> list[str]:
        """Buttons pressed since the last call, in order, also those already let go of."""
        sdl, event, found = self._sdl, self._sdl.SDL_Event(), []
        while sdl.SDL_PollEvent(event):
            if event.type == sdl.SDL_CONTROLLERBUTTONDOWN:  # of this pad: no other is open
                found += [self._buttons[event.cbutton.button]] if event.cbutton.button in self._buttons else []
            if event.type == sdl.SDL_CONTROLLERDEVICEREMOVED and event.cdevice.which == self._id:
                raise UserError("device 'gamepad': the gamepad is disconnected (unplugged, asleep or out of reach)")
        return found

    def _axis(self, name: str) -> float:
        code = getattr(self._sdl, f"SDL_CONTROLLER_AXIS_{name}")
        return int(self._sdl.SDL_GameControllerGetAxis(self._pad, code)) / 32767

    def _button(self, name: str) -> int:
        code = getattr(self._sdl, f"SDL_CONTROLLER_BUTTON_{name}")
        return int(self._sdl.SDL_GameControllerGetButton(self._pad, code))

    def reset(self, gripper: float = -1.0) -> None:
        self._gripper = gripper
        self._marks.reset()

    def close(self) -> None:
        if self._pad:
            self._sdl.SDL_GameControllerClose(self._pad)
            self._pad = None
            self._sdl.SDL_QuitSubSystem(self._sdl.SDL_INIT_GAMECONTROLLER)
        if self._terminal:
            self._terminal.close()


def _remedy(joysticks: list[str]) -> str:
    if joysticks:
        return f"device 'gamepad': SDL does not know the buttons of '{joysticks[0]}'; set SDL_GAMECONTROLLERCONFIG"
    nodes = glob.glob("/dev/input/by-id/*-event-joystick") + glob.glob("/dev/input/js*")  # Bluetooth has no by-id
    shut = [path for path in nodes if not os.access(path, os.R_OK)]
    if not shut:
        return "device 'gamepad': no gamepad found; plug one in, or pair it, and press one of its buttons"
    return (
        f"device 'gamepad': {shut[0]} may not be read; put  {RULE}  into /etc/udev/rules.d/70-gamepad.rules, "
        "run  sudo udevadm control --reload  and plug it in again"
    )
