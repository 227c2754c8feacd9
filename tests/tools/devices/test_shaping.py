import numpy as np
import pytest

from tools.devices.shaping import Shaping
from tools.recording.config import CollectConfig


class Time:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def shaping(time=None, **config):
    return Shaping(CollectConfig(**{"smoothing_s": 0.0, "speed": 1.0, "rotation_speed": 1.0, **config}), time or Time())


def test_the_dead_band_is_still_and_the_motion_grows_from_its_edge():
    axes = shaping(dead_band=0.2).motion(np.array([0.2, -0.2, 0.6, -0.6, 1, -1.7]))
    assert axes.dtype == np.float32 and np.allclose(axes, [0, 0, 0.5, -0.5, 1, -1])


def test_translation_and_rotation_have_speeds_of_their_own():
    axes = shaping(speed=0.5, rotation_speed=0.25).motion(np.ones(6))
    assert np.allclose(axes, [0.5] * 3 + [0.25] * 3)


def test_the_motion_rises_with_its_time_constant_and_a_release_stops_at_once():
    time = Time()
    hand = shaping(time, smoothing_s=0.1)
    time.now_s = 0.1
    first = hand.motion(np.array([1, 1, 0, 0, 0, 0]))
    assert first[:2] == pytest.approx(1 - np.exp(-1))
    time.now_s = 0.2
    second = hand.motion(np.array([1, 0, 0, 0, 0, 0]))
    assert second[0] == pytest.approx(1 - np.exp(-2)) and second[1] == 0
