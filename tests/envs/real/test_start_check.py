"""The short check of an arm's environment: what is logged, what refuses, and that it is made once."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from real_env import real_env, sleeping
from remembering_arm import Arm

from envs.real.arm import ArmError, State
from envs.real.camera_reference import Reference, References, save
from envs.real.camera_set import CameraSet
from envs.real.mock_camera_faults import moved
from envs.real.options import Axis, RealOptions
from envs.real.start_check import StartCheck, outside
from envs.real.view_change import corners

rng = np.random.default_rng(0)
SCENE = np.kron(rng.integers(30, 220, (12, 12, 1)), np.ones((10, 10, 3))).astype(np.uint8)
AXES = {"x": Axis(low=0.0, high=1.0), "y": Axis(low=-1.0, high=1.0)}


def state():
    return State(np.zeros(2), time.monotonic(), images={"top": SCENE})


@pytest.fixture
def options(tmp_path):
    path = tmp_path / "reference.npz"
    with open(path, "wb") as file:
        save(file, References({"front": Reference(SCENE, corners(SCENE))}))
    return lambda **more: RealOptions(cameras={"front": {"source": "arm"}}, **{"camera_reference": str(path), **more})


class Shows:
    """A set of cameras of which `front` shows `image`."""

    def __init__(self, image):
        self.image = image

    def look(self, state, wait):
        return {"front": self.image}


def test_what_is_as_it_was_is_not_logged(options, logged):
    check = StartCheck(options())
    assert check.due
    check.at_home(Shows(SCENE), state, time.sleep)
    assert not check.due and logged() == []


def test_what_has_changed_is_a_line_and_the_arm_starts(options, logged):
    check = StartCheck(options())
    check.at_home(Shows(moved(SCENE, right=6.0)), state, time.sleep)
    (line,) = logged()
    assert line.startswith("camera 'front': has moved: its picture is 6.0 px to the right") and "put it back" in line
    assert not check.due


def test_refuse_holds_the_arm_until_it_is_put_right(options, logged):
    check = StartCheck(options(camera_check="refuse"))
    for _ in range(2):
        with pytest.raises(ArmError, match=r"camera 'front': has moved.*\(camera_check refuse\)"):
            check.at_home(Shows(moved(SCENE, right=6.0)), state, time.sleep)
        assert check.due
    check.at_home(Shows(SCENE), state, time.sleep)
    assert not check.due


def test_without_a_reference(options, logged, tmp_path):
    missing = str(tmp_path / "none.npz")
    assert not StartCheck(options(camera_reference=missing)).due
    assert logged() == ["no reference pictures of the cameras, so they are not compared: tools.doctor --save-reference"]
    with pytest.raises(ValueError, match=r"camera_check refuse: there is no .*none\.npz"):
        StartCheck(options(camera_reference=missing, camera_check="refuse"))
    assert not StartCheck(options(camera_check="ignore")).due and logged() == []
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    assert not StartCheck(options(camera_reference=str(tmp_path / "damaged.npz"))).due
    assert "not a file of reference pictures" in logged()[0]
    with pytest.raises(ValueError, match="not a file of reference pictures"):
        StartCheck(options(camera_reference=str(tmp_path / "damaged.npz"), camera_check="refuse"))


def test_a_first_state_outside_of_the_limits(options, logged):
    place = np.array([0.5, -1.2])
    assert [says for says, _ in outside(AXES, place)] == ["axis 'y' stands at -1.2, outside of its limits -1 to 1"]
    assert outside(AXES, np.array([1.01, -1.02])) == []  # it sags, and measures with noise
    StartCheck(options()).first_state(AXES, place)
    assert len(logged()) == 1
    with pytest.raises(ValueError, match="axis 'y'"):
        StartCheck(options(camera_check="refuse")).first_state(AXES, place)
    StartCheck(options(camera_check="ignore")).first_state(AXES, place)
    assert logged() == []


def test_a_look_is_the_mean_of_new_frames(monkeypatch):
    cameras = CameraSet(RealOptions(cameras={"top": {"source": "arm"}}))
    frames = iter(range(100))

    class Reader:
        number = 0

        def view(self):
            self.number += next(frames) % 2  # every other one is new
            return self.number, np.full((4, 6, 3), 10 * self.number, np.uint8)

    cameras.readers["front"], cameras._given["front"] = Reader(), {}
    waited = []
    seen = cameras.look(state, waited.append, frames=3)
    assert seen["front"].shape == (4, 6, 3) and seen["front"][0, 0, 0] == 10  # of 0, 10, 20
    assert np.array_equal(seen["top"], SCENE) and waited[0] == pytest.approx(0.25, abs=0.05)
    with pytest.raises(ArmError, match=r"camera 'top': the arm's driver has none of that name"):
        cameras.look(lambda: State(np.zeros(2), 0.0), waited.append)


def test_a_camera_that_sends_too_few_frames_is_not_waited_for():
    cameras = CameraSet(RealOptions())
    cameras.readers["slow"] = SimpleNamespace(view=lambda: (1, np.full((2, 2, 3), 9, np.uint8)))
    cameras._given["slow"] = {}
    begun_s = time.monotonic()
    assert cameras.look(state, time.sleep)["slow"].max() == 9
    assert time.monotonic() - begun_s > 0.5


class Slow(Arm):
    """Its gripper, y, is under way for a second."""

    def command(self, target):
        sent = super().command(target)
        self.at = np.array([sent[0], self.now.now_s - 100.0 if self.now.now_s < 101.0 else sent[1]])
        return sent


def test_the_cameras_are_compared_when_gripper_and_arm_stand(options, monkeypatch):
    now = sleeping(monkeypatch)
    axes = {"x": {"low": -1, "high": 1, "speed": 5}, "y": {"low": 0, "high": 1, "speed": 9, "home": 1, "gripper": True}}
    given = options(axes=axes, realtime=False)
    given.cameras = {}
    env = real_env(given, Slow(now), now, monkeypatch)
    stood = []
    env._start_check = SimpleNamespace(
        due=True, at_home=lambda cameras, state, wait: stood.append((now.now_s, state().position.tolist()))
    )
    env.reset(seed=0)
    assert len(stood) == 1 and 101.0 < stood[0][0] < 102.0 and stood[0][1] == pytest.approx([0.0, 1.0])
