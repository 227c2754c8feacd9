"""The keyboard on a pseudo-terminal, with a clock of the test's own."""

import fcntl
import os
import pty
import sys
import termios
import time

import numpy as np
import pytest

from agent.spec import UserError
from tools.devices.keyboard import FASTER, HOLD_S, Keyboard
from tools.devices.terminal import ONCE_S
from tools.recording.config import CollectConfig

CONFIG = {"smoothing_s": 0.0, "speed": 1.0, "rotation_speed": 1.0, "dead_band": 0.0}


class Keys:
    """A keyboard; press() writes what a terminal would send, and waits until it can be read."""

    def __init__(self, monkeypatch, **config):
        self.terminal, self.theirs = pty.openpty()
        self.stdin = os.fdopen(os.dup(self.theirs))
        monkeypatch.setattr(sys, "stdin", self.stdin)
        self.now_s = 0.0
        self.device = Keyboard(CollectConfig(**{**CONFIG, **config}), lambda: self.now_s)

    def press(self, text):
        count = os.write(self.terminal, text.encode())
        while int.from_bytes(fcntl.ioctl(self.theirs, termios.FIONREAD, bytes(4)), sys.byteorder) < count:
            time.sleep(0.001)

    def read(self, after_s=0.0):
        self.now_s += after_s
        return self.device.read()

    def motion(self, after_s=0.0):
        return self.read(after_s).motion.tolist()

    def close(self):
        self.device.close()
        self.stdin.close()
        for end in (self.terminal, self.theirs):
            os.close(end)


@pytest.fixture
def keys(monkeypatch):
    made = Keys(monkeypatch)
    yield made
    made.close()


def axes(**values):
    return [values.get(name, 0) for name in "xyzabc"]


def test_a_tap_moves_for_one_command(keys):
    keys.press("w")
    assert keys.motion() == axes(x=1)
    assert keys.motion(0.01) == axes()


def test_a_key_that_repeats_moves_until_it_has_not_repeated_for_a_while(keys):
    for _ in range(3):
        keys.press("d")
        keys.motion(HOLD_S / 3)
    for _ in range(2):  # a repeat that is late
        assert keys.motion(HOLD_S / 3) == axes(y=-1)
    assert keys.motion(HOLD_S / 3) == axes()


def test_a_key_that_is_let_go_of_stops_the_hand_within_a_few_tenths_of_a_second(keys):
    """In seconds: a usual keyboard repeats each 25 to 40 ms, and a repeat may be late."""
    for _ in range(5):
        keys.press("w")
        keys.read(after_s=0.04)
    assert keys.motion(after_s=0.08) == axes(x=1)
    assert keys.motion(after_s=0.22) == axes()


def test_the_delay_before_the_first_repeat_is_not_filled(keys):
    keys.press("r")
    assert keys.motion() == axes(z=1)
    assert keys.motion(0.25) == axes()
    keys.press("r")
    assert keys.motion(0.25) == axes(z=1)
    assert keys.motion(0.03) == axes()  # one repeat may be a second tap
    keys.press("r")
    assert keys.motion(0.03) == axes(z=1) and keys.motion(0.03) == axes(z=1)


def test_repeats_between_two_commands_are_a_hold(keys):
    keys.press("fff")
    assert keys.motion() == axes(z=-1) and keys.motion(HOLD_S / 2) == axes(z=-1)


@pytest.mark.parametrize(
    ("pressed", "moves"),
    [
        ("w", axes(x=1)), ("s", axes(x=-1)), ("a", axes(y=1)), ("d", axes(y=-1)), ("r", axes(z=1)), ("f", axes(z=-1)),
        ("u", axes(c=1)), ("o", axes(c=-1)), ("i", axes(b=1)), ("k", axes(b=-1)), ("l", axes(a=1)), ("j", axes(a=-1)),
        ("\x1b[A", axes(x=1)), ("\x1bOB", axes(x=-1)), ("\x1b[D", axes(y=1)), ("\x1b[C", axes(y=-1)),
        ("wa", axes(x=1, y=1)), ("ws", axes()), ("\x1b[1;5A", axes()), ("\x1b[3~", axes()), ("é", axes()),
    ],
)  # fmt: skip
def test_the_key_map(keys, pressed, moves):
    keys.press(pressed)
    assert keys.motion() == moves


def test_an_arrow_in_two_pieces_is_an_arrow_and_a_lone_escape_is_nothing(keys):
    keys.press("\x1b[")
    assert keys.motion() == axes()
    keys.press("A")
    assert keys.motion() == axes(x=1)
    keys.press("\x1b")
    keys.read(), keys.read()
    keys.press("w")
    assert keys.motion() == axes(x=1)


def test_the_gripper_toggles(keys):
    assert keys.read().gripper == -1
    keys.press(" ")
    assert keys.read().gripper == 1 and keys.read().gripper == 1
    keys.press(" ")
    assert keys.read(ONCE_S).gripper == -1


def test_a_key_that_is_held_switches_over_once(monkeypatch):
    keys = Keys(monkeypatch, enable_key=True)
    try:
        keys.press(" ep")
        command = keys.read()
        assert command.gripper == 1 and command.enabled and command.events == ("pause",)
        for after_s in (0.9 * ONCE_S, 0.03, 0.03, 0.03):  # the keyboard's delay, then its rate
            keys.press(" ep")
            command = keys.read(after_s)
            assert command.gripper == 1 and command.enabled and command.events == ()
        keys.press(" ep")
        command = keys.read(1.1 * ONCE_S)
        assert command.gripper == -1 and not command.enabled and command.events == ("resume",)
    finally:
        keys.close()


def test_marks(keys):
    keys.press("\ryn\x7fq")
    command = keys.read()
    assert command.events == ("end", "success", "failure", "discard", "stop") and command.enabled
    assert keys.read().events == ()
    keys.press("p")
    assert keys.read().events == ("pause",)
    keys.press("p")
    assert keys.read(ONCE_S).events == ("resume",)


def test_a_new_episode_is_not_paused(keys):
    keys.press("p\x7f")
    assert keys.read().events == ("pause", "discard")
    keys.press("p")
    assert keys.read(ONCE_S).events == ("pause",)


def test_a_new_episode_has_the_gripper_as_it_is(keys):
    for gripper in (1.0, -1.0):
        keys.press("p")
        assert keys.read(2 * ONCE_S).events == ("pause",)
        keys.device.reset(gripper)
        assert keys.read().gripper == gripper
        keys.press(" ")
        assert keys.read().gripper == -gripper
    keys.device.reset()
    assert keys.read().gripper == -1


def test_slower_and_faster(keys):
    keys.press("-w")
    assert keys.motion() == pytest.approx(axes(x=1 / FASTER))
    keys.press("+++w")
    assert keys.motion() == axes(x=1)


def test_with_an_enable_key_nothing_drives_before_it(monkeypatch):
    keys = Keys(monkeypatch, enable_key=True)
    try:
        keys.press("w")
        assert not keys.read().enabled
        keys.press("e")
        assert keys.read().enabled and "e   " in keys.device.keys
        keys.press("e")
        assert not keys.read(ONCE_S).enabled
    finally:
        keys.close()


def test_the_terminal_is_as_before_and_what_was_not_read_is_dropped(keys):
    fresh, theirs = pty.openpty()
    wanted = termios.tcgetattr(theirs)
    during = termios.tcgetattr(keys.theirs)
    assert not during[3] & (termios.ICANON | termios.ECHO) and during[3] & termios.ISIG
    assert not during[0] & termios.IXON
    keys.press("www\n")
    keys.device.close()
    assert termios.tcgetattr(keys.theirs) == wanted
    os.set_blocking(keys.theirs, False)
    with pytest.raises(BlockingIOError):
        os.read(keys.theirs, 10)
    os.close(fresh), os.close(theirs)


def test_a_terminal_that_goes_is_one_line(monkeypatch):
    keys = Keys(monkeypatch)
    try:
        os.close(keys.terminal)
        with pytest.raises(UserError, match="the terminal was closed"):
            keys.read()
    finally:
        keys.device.close()
        keys.stdin.close()
        os.close(keys.theirs)


def test_the_key_map_fits_a_terminal(keys):
    assert max(map(len, keys.device.keys.splitlines())) <= 80


def test_motion_is_what_a_command_wants(keys):
    keys.press("w")
    motion = keys.read().motion
    assert motion.dtype == np.float32 and motion.shape == (6,)
