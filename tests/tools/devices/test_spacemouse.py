"""The SpaceMouse from its HID reports, as its models send them; hidapi's place is taken by a list of reports."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from agent.spec import UserError
from tools.devices.spacemouse import RULE, STALE_S, Reports, SpaceMouse
from tools.recording.config import CollectConfig

CONFIG = {"smoothing_s": 0.0, "speed": 1.0, "rotation_speed": 1.0, "dead_band": 0.0}
COMPACT, WIRELESS, RECEIVER, NAVIGATOR = (0x256F, 0xC635), (0x256F, 0xC63A), (0x256F, 0xC652), (0x046D, 0xC626)


def axes_reports(model, *axes):
    """x right, y to the person, z down, and the rotations about them, -350 to 350."""
    if model in (WIRELESS, RECEIVER):
        return [b"\x01" + struct.pack("<6h", *axes)]
    return [b"\x01" + struct.pack("<3h", *axes[:3]), b"\x02" + struct.pack("<3h", *axes[3:])]


class Hid:
    """In hidapi's place: the models that are plugged in, and the reports that the first of them has sent."""

    def __init__(self, *models, refuses=False, usage=(1, 8)):
        self.reports, self.models, self.refuses, self.usage = [], models, refuses, usage
        self.opened, self.gone, self.closed = None, False, False

    def enumerate(self):
        return [
            {"vendor_id": v, "product_id": p, "path": f"/dev/hidraw{n}".encode(), "usage_page": u[0], "usage": u[1]}
            for n, ((v, p), u) in enumerate((model, u) for model in self.models for u in {(1, 2): 0, self.usage: 0})
        ]

    def device(self):
        return self

    def open_path(self, path):
        if self.refuses:
            raise OSError("open failed")
        self.opened = path

    def set_nonblocking(self, on):
        assert on

    def read(self, length):
        if self.gone:
            raise OSError("read error")
        return list(self.reports.pop(0)) if self.reports else []

    def close(self):
        self.closed = True


def mouse(hid, **config):
    time = SimpleNamespace(now_s=0.0)
    return SpaceMouse(CollectConfig(**{**CONFIG, **config}), hid, lambda: time.now_s), time


@pytest.mark.parametrize("model", [COMPACT, WIRELESS, RECEIVER, NAVIGATOR])
@pytest.mark.parametrize(
    ("axes", "moves"),
    [
        ((350, 0, 0, 0, 0, 0), (0, -1, 0, 0, 0, 0)),  # pushed to the right
        ((0, -350, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0)),  # away from the person
        ((0, 0, -350, 0, 0, 0), (0, 0, 1, 0, 0, 0)),  # lifted
        ((0, 0, 0, 0, 0, -350), (0, 0, 0, 0, 0, 1)),  # turned to the left, seen from above
        ((0, 0, 0, -350, 0, 0), (0, 0, 0, 0, 1, 0)),  # tipped away from the person
        ((0, 0, 0, 0, -350, 0), (0, 0, 0, 1, 0, 0)),  # tipped to the right
        ((175, -700, 0, 0, 0, 0), (1, -0.5, 0, 0, 0, 0)),
    ],
)
def test_both_kinds_of_report_move_the_hand(model, axes, moves):
    hid = Hid(model)
    device, _ = mouse(hid)
    hid.reports = axes_reports(model, *axes)
    assert np.allclose(device.read().motion, moves)


def test_the_newest_report_counts_and_a_release_stops():
    hid = Hid(COMPACT)
    device, _ = mouse(hid)
    hid.reports = axes_reports(COMPACT, 0, -100, 0, 0, 0, 0) + axes_reports(COMPACT, 0, -350, 0, 0, 0, 0)
    assert device.read().motion[0] == 1 and device.read().motion[0] == 1
    hid.reports = axes_reports(COMPACT, 0, 0, 0, 0, 0, 0)
    assert not device.read().motion.any()


def test_a_mouse_that_is_silent_while_deflected_has_lost_its_radio():
    hid = Hid(RECEIVER)
    device, time = mouse(hid)
    hid.reports = axes_reports(RECEIVER, 0, -350, 0, 0, 0, 0)
    assert device.read().motion[0] == 1
    time.now_s = STALE_S
    assert device.read().motion[0] == 1
    hid.reports = [b"\x17\x40"]  # the battery's charge: not of the axes
    time.now_s = 1.1 * STALE_S
    assert not device.read().motion.any()


def test_a_radio_that_is_lost_stops_the_hand_within_a_few_tenths_of_a_second():
    hid = Hid(RECEIVER)
    device, time = mouse(hid)
    hid.reports = axes_reports(RECEIVER, 0, -350, 0, 0, 0, 0)
    assert device.read().motion[0] == 1
    time.now_s = 0.1  # several of its reports
    assert device.read().motion[0] == 1
    time.now_s = 0.4
    assert not device.read().motion.any()
    hid.reports = axes_reports(RECEIVER, 0, -350, 0, 0, 0, 0)
    assert device.read().motion[0] == 1  # and back


def test_a_new_episode_has_the_gripper_as_it_is_and_is_not_paused():
    hid = Hid(COMPACT)
    device, _ = mouse(hid)
    typed = []
    device._terminal = SimpleNamespace(keys=lambda: [typed.pop()] if typed else [])
    for gripper in (1.0, -1.0):
        typed.append("p")
        assert device.read().events == ("pause",)
        device.reset(gripper)
        assert device.read().gripper == gripper
        hid.reports = [b"\x03\x01\x00", b"\x03\x00\x00"]
        assert device.read().gripper == -gripper
    typed.append("p")
    device.reset()
    assert device.read().events == ("pause",) and device.read().gripper == -1


def test_buttons_toggle_the_gripper_and_end_the_episode_also_between_two_commands():
    hid = Hid(COMPACT)
    device, _ = mouse(hid)
    assert device.read().gripper == -1
    hid.reports = [b"\x03\x01\x00", b"\x03\x00\x00"]
    assert device.read().gripper == 1
    hid.reports = [b"\x03\x01\x00"]
    assert device.read().gripper == -1 and device.read().gripper == -1  # held
    hid.reports = [b"\x03\x03\x00"]
    command = device.read()
    assert command.events == ("end",) and command.gripper == -1
    assert device.read().events == ()


def test_with_an_enable_key_the_right_button_must_be_held():
    hid = Hid(WIRELESS)
    device, _ = mouse(hid, enable_key=True)
    hid.reports = axes_reports(WIRELESS, 0, -350, 0, 0, 0, 0)
    command = device.read()
    assert not command.enabled and not command.motion.any()
    hid.reports = [b"\x03\x02\x00"]
    command = device.read()
    assert command.enabled and command.motion[0] == 1 and command.events == ()


@pytest.mark.parametrize(
    "report", [b"", b"\x01", b"\x01\x10\x00\x20", b"\x03", b"\x63" * 64, b"\x02" + b"\xff" * 5, b"\x03" + bytes(12)]
)
def test_a_strange_report_is_passed_over(report):
    reports = Reports()
    reports.take(report)
    assert not reports.axes.any() and not reports.buttons


def test_only_its_multi_axis_interface_is_opened():
    hid = Hid((0x046D, 0xC52B), RECEIVER)  # an ordinary mouse's receiver first
    mouse(hid)
    assert hid.opened == b"/dev/hidraw3"


def test_a_backend_that_knows_no_usages_will_do():
    hid = Hid(COMPACT, usage=(0, 0))
    mouse(hid)
    assert hid.opened == b"/dev/hidraw0"


def test_none_and_one_that_may_not_be_read_have_their_remedies():
    with pytest.raises(UserError, match="no SpaceMouse found"):
        mouse(Hid((0x046D, 0xC52B)))
    with pytest.raises(UserError) as refused:
        mouse(Hid(COMPACT, refuses=True))
    line = str(refused.value)
    assert "/dev/hidraw1 may not be read" in line and RULE in line and "\n" not in line


def test_a_mouse_that_goes_is_one_line():
    hid = Hid(COMPACT)
    device, _ = mouse(hid)
    hid.gone = True
    with pytest.raises(UserError, match="the SpaceMouse is disconnected"):
        device.read()
    device.close()
    assert hid.closed


def test_the_key_map_fits_a_terminal():
    device, _ = mouse(Hid(COMPACT))
    assert max(map(len, device.keys.splitlines())) <= 80 and "end the episode, as Enter" in device.keys
