"""What can move the robot, by name. A device's libraries are loaded when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from robot_server.command import Device
from tools.devices.scripted import Scripted
from tools.recording.config import CollectConfig


def _keyboard(env: gymnasium.Env | None, config: CollectConfig) -> Device:
    from tools.devices.keyboard import Keyboard

    return Keyboard(config)


def _gamepad(env: gymnasium.Env | None, config: CollectConfig) -> Device:
    from tools.devices.gamepad import Gamepad

    return Gamepad(config)


def _spacemouse(env: gymnasium.Env | None, config: CollectConfig) -> Device:
    from tools.devices.spacemouse import SpaceMouse

    return SpaceMouse(config)


def _browser(env: gymnasium.Env | None, config: CollectConfig) -> Device:
    from tools.devices.browser import Browser

    return Browser(config)


# name -> opens it for an environment; all but `scripted` are robot_server.command.Device, and may have two more
# methods:
# show(observation, status: dict), called after each step and while the device is waited for; and reset(gripper): a new
# episode begins, or the person takes over.
DEVICES: dict[str, Callable[[Any, CollectConfig], Device | Scripted]] = {
    "scripted": Scripted,
    "keyboard": _keyboard,
    "gamepad": _gamepad,
    "spacemouse": _spacemouse,
    "browser": _browser,
}
LEROBOT = "lerobot:"  # and a type of teleoperator
BY_A_PERSON = [name for name in DEVICES if name not in ("scripted", "browser")]  # those of tools.teleop


def known(name: str) -> bool:
    return name in DEVICES or name.startswith(LEROBOT)


def opened(name: str, env: gymnasium.Env | None, config: CollectConfig) -> Any:
    """The device `name` for `env`. Raises UserError when it is not there."""
    if name.startswith(LEROBOT):
        from tools.devices.leader import Leader

        return Leader(name.removeprefix(LEROBOT), config)
    return DEVICES[name](env, config)
