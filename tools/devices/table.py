"""What can move the robot, by name. A device's libraries are loaded when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.spec import UserError
from envs.base import names_of_numbers
from envs.instructions import instruction
from robot_server.command import Device
from tools.devices.scripted import Scripted
from tools.recording.config import CollectConfig

if TYPE_CHECKING:
    import gymnasium

BY_A_PERSON = ("keyboard", "gamepad", "spacemouse")  # those of tools.teleop
DEVICES = ("scripted", *BY_A_PERSON, "browser")
LEROBOT = "lerobot:"  # and a type of teleoperator


def known(name: str) -> bool:
    return name in DEVICES or name.startswith(LEROBOT)


def opened(name: str, env: gymnasium.Env, config: CollectConfig, out: Path) -> Device | Scripted:
    """The device `name` for `env`. out: where the recordings will be. Raises UserError when it is not there."""
    if name == "scripted":
        return Scripted(env, config)
    if name == "browser":
        from tools.devices.browser import Browser

        return Browser(config, out, names_of_numbers(env), instruction(env))
    return opened_for_a_person(name, config)


def opened_for_a_person(name: str, config: CollectConfig) -> Device:
    """The device `name`, which moves any environment. Raises UserError when it is not there."""
    if name.startswith(LEROBOT):
        from tools.devices.leader import Leader

        return Leader(name.removeprefix(LEROBOT), config)
    if name == "keyboard":
        from tools.devices.keyboard import Keyboard

        return Keyboard(config)
    if name == "gamepad":
        from tools.devices.gamepad import Gamepad

        return Gamepad(config)
    if name == "spacemouse":
        from tools.devices.spacemouse import SpaceMouse

        return SpaceMouse(config)
    raise UserError(f"unknown device '{name}'")
