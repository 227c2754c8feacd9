"""Device `spacemouse`: 3Dconnexion's six-axis mice, by cable, receiver or Bluetooth, from their HID reports.

hidapi because its wheel brings the library (pyspacemouse, which would parse the reports as well, wants it from the
system). Reports, by their first byte: 1 is the translation, followed in the same report by the rotation (SpaceMouse
Wireless, the receivers) or not (SpaceMouse Compact, SpaceNavigator: then 2 is the rotation); 3 is the buttons.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.spec import UserError
from robot_server.command import Command, Device
from tools.devices.shaping import Shaping
from tools.devices.terminal import Marks, terminal_if_any
from tools.recording.config import CollectConfig

RULE = 'KERNEL=="hidraw*", KERNELS=="*:256F:*|*:046D:C62*", MODE="0666"'
VENDOR, OLD_VENDOR = 0x256F, 0x046D  # 3Dconnexion; Logitech, which sold the older ones
OLD_PRODUCTS = range(0xC623, 0xC62C)
MULTI_AXIS = (1, 8)  # HID usage page and usage
FULL = 350.0  # a full deflection
STALE_S = 0.2  # a mouse that is deflected says so all the time: one that is silent has lost its radio
LEFT, RIGHT = 1, 2  # buttons


class Reports:
    """What the reports so far say. axes: (6,) in [-1, 1], x y z of the robot's base and the rotations about them for
    somebody who looks from the base outwards. buttons: a bit each.
    """

    def __init__(self) -> None:
        self.axes, self.buttons = np.zeros(6), 0
        self.pressed = 0  # buttons that went down; whoever takes notice sets it to 0

    def take(self, report: bytes) -> bool:
        """Whether it was of the axes. What is unknown or cut short is passed over."""
        kind, body = report[0] if report else 0, bytes(report[1:])
        if kind == 3 and body:
            buttons = int.from_bytes(body, "little")
            self.pressed |= buttons & ~self.buttons
            self.buttons = buttons
        if kind not in (1, 2) or len(body) < 6:
            return False
        triples = [body[:6], body[6:12]] if kind == 1 and len(body) >= 12 else [body[:6]]
        for number, triple in enumerate(triples, start=kind - 1):
            right, back, down = np.array(struct.unpack("<3h", triple)) / FULL
            self.axes[3 * number : 3 * number + 3] = np.clip([-back, -right, -down], -1, 1)
        return True


class SpaceMouse(Device):
    """The first one that is there. Raises UserError, with the remedy, when there is none or it may not be read."""

    keys = f"""\
spacemouse:
  cap           push, lift, turn it: the hand follows, seen from the base
  left button   close / open the gripper
{{right}}
and in the terminal:
{Marks.keys}"""

    def __init__(self, config: CollectConfig, hid: Any = None, now: Callable[[], float] = time.monotonic) -> None:
        self._hid = _open(hid or _hidraw())
        self._reports, self._shaping, self._now = Reports(), Shaping(config, now), now
        self._heard_s, self._gripper, self._enable_key = now(), -1.0, config.enable_key
        self._terminal, self._marks = terminal_if_any(), Marks()
        right = "hold it: the arm follows only then" if self._enable_key else "end the episode, as Enter"
        self.keys = self.keys.format(right=f"  right button  {right}")

    def read(self) -> Command:
        reports = self._reports
        try:
            while report := self._hid.read(64):
                if reports.take(bytes(report)):
                    self._heard_s = self._now()
        except OSError:
            raise UserError("device 'spacemouse': the SpaceMouse is disconnected (unplugged or out of reach)") from None
        events = self._marks.events(self._terminal.keys()) if self._terminal else ()
        if reports.pressed & LEFT:
            self._gripper = -self._gripper
        if reports.pressed & RIGHT and not self._enable_key:
            events += self._marks.events(["enter"])
        reports.pressed = 0
        if self._now() - self._heard_s > STALE_S:
            reports.axes[:] = 0
        enabled = not self._enable_key or bool(reports.buttons & RIGHT)
        return Command(self._shaping.motion(reports.axes * enabled), self._gripper, enabled, events)

    def reset(self, gripper: float = -1.0) -> None:
        self._gripper = gripper
        self._marks.reset()

    def close(self) -> None:
        self._hid.close()
        if self._terminal:
            self._terminal.close()


def _hidraw() -> Any:
    try:
        import hidraw
    except ImportError:
        raise UserError("device 'spacemouse' needs the extra [record]: pip install hidapi") from None
    return hidraw


def _open(hid: Any) -> Any:
    """hid: the module. An open device that does not block."""
    found = [
        entry
        for entry in hid.enumerate()
        if entry["vendor_id"] == VENDOR or (entry["vendor_id"] == OLD_VENDOR and entry["product_id"] in OLD_PRODUCTS)
    ]
    found = [entry for entry in found if (entry["usage_page"], entry["usage"]) == MULTI_AXIS] or found
    if not found:
        raise UserError("device 'spacemouse': no SpaceMouse found; plug it, or its receiver, in (lsusb shows 256f:)")
    device, path = hid.device(), found[0]["path"]
    try:
        device.open_path(path)
    except OSError:
        raise UserError(
            f"device 'spacemouse': {path.decode()} may not be read; put  {RULE}  into "
            "/etc/udev/rules.d/70-spacemouse.rules, run  sudo udevadm control --reload  and plug it in again"
        ) from None
    device.set_nonblocking(1)
    return device
