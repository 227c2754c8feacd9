"""The doctor and the short check at a start, on the mock arm: real processes, its cameras, wall-clock time."""

import contextlib
import io
import json
import logging
import time
from pathlib import Path

import pytest
from classifier_file import write

import envs
from agent.spec import UserError
from envs.base import RobotFault
from envs.real.camera_reference import load
from envs.real.mock_arm import MockArmOptions, MockCamera, start_world
from envs.real.mock_world import send_fault
from envs.real.options import MOCK_AXES
from tools.doctor import __main__ as doctor

CAMERAS = {
    name: {"source": "mock", "size": 32, "fps": 20, "warmup_frames": 1, "max_age_s": 2.0, "frozen_s": 0.0}
    for name in ("agentview", "robot0_eye_in_hand")
}


@pytest.fixture(scope="module")
def hardware(tmp_path_factory):
    """Options of the mock arm, which runs; the file of its reference is not there yet."""
    folder = tmp_path_factory.mktemp("world")
    arm = {"socket": str(folder / "mock.sock")}
    start_world({**vars(MockArmOptions()), **arm})
    someone = MockCamera("agentview", arm["socket"], 128)
    someone.open()  # the world ends when nobody is there
    yield {
        "arm_options": arm,
        "cameras": CAMERAS,
        "camera_reference": str(folder / "reference.npz"),
        "watchdog_s": 1.0,  # this machine may be busy
        "realtime": False,
    }
    someone.close()


def examined(options, *flags):
    """Exit code and lines (by check) of the doctor."""
    words = ["--env", "mock", "--json", *flags]
    for key, value in options.items():
        words += [f"--{key.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)]
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as quick:
        for module, name, less in ((doctor, "WATCH_S", 0.5), (doctor.arm, "SETTLE_S", 0.4), (doctor.arm, "JOGS", 2)):
            quick.setattr(module, name, less)
        code = doctor.main(words)
    told = json.loads(out.getvalue())
    assert (code == 0) == told["ok"] == all(line["ok"] for line in told["checks"])
    assert all(bool(line["remedy"]) != line["ok"] for line in told["checks"])
    return code, {line["check"]: line for line in told["checks"]}


@pytest.fixture(scope="module")
def saved(hardware):
    """The doctor's lines when it has saved the reference."""
    return examined(hardware, "--save-reference")[1]


@pytest.fixture
def world(hardware, saved):
    """Options of the mock arm, whose reference is saved."""
    return hardware


@pytest.fixture
def broken(hardware):
    """broken(fault): until the end of the test."""
    made = []

    def make(fault):
        made.append(fault)
        send_fault(hardware["arm_options"]["socket"], fault, 600.0)
        time.sleep(0.3)

    yield make
    for fault in made:
        send_fault(hardware["arm_options"]["socket"], fault, 0.0)


def test_the_reference_is_made_with_what_stands_still(world, saved):
    known = load(Path(world["camera_reference"]))
    assert {name: each.image.shape for name, each in known.cameras.items()} == dict.fromkeys(CAMERAS, (128, 128, 3))
    assert all(len(each.corners) >= 12 for each in known.cameras.values()) and set(known.lag) == {"x", "y", "z"}
    beside = Path(world["camera_reference"]).with_suffix(".png")
    assert beside.read_bytes().startswith(b"\x89PNG") and str(beside) in saved["cameras"]["says"]
    for name in ("camera agentview", "camera robot0_eye_in_hand", "axes", "arm", "bus", "clock", "disk"):
        assert saved[name]["ok"], saved[name]


def test_without_a_reference_the_doctor_says_how_to_make_one(hardware, tmp_path):
    code, lines = examined({**hardware, "camera_reference": str(tmp_path / "none.npz")}, "--no-motion")
    assert code == 1 and "no reference pictures" in lines["cameras"]["says"] and "axes" not in lines


def test_without_motion_an_arm_elsewhere_is_not_compared(world, broken):
    broken("swap")
    elsewhere = {name: {**axis, "home": axis["high"] - axis.get("start", 0)} for name, axis in MOCK_AXES.items()}
    _, lines = examined({**world, "axes": elsewhere}, "--no-motion")
    assert "not compared" in lines["camera agentview"]["says"] and "not compared" in lines["cameras"]["says"]


@pytest.mark.parametrize(
    ("fault", "camera", "says"),
    [
        ("move:agentview", "agentview", "has moved"),
        ("swap", "agentview", "swapped"),
    ],
)
def test_what_happened_to_a_camera_is_found(world, broken, fault, camera, says):
    broken(fault)
    code, lines = examined(world)
    assert code == 1 and says in lines[f"camera {camera}"]["says"], lines
    other = next(name for name in CAMERAS if name != camera)
    assert lines[f"camera {other}"]["ok"] == (fault != "swap")


def test_a_start_warns_once(world, broken, caplog):
    caplog.set_level(logging.INFO, "envs")
    broken("move:agentview")
    env = envs.make("mock", **world)
    try:
        for seed in (0, 1):
            env.reset(seed=seed)
        lines = [record.getMessage() for record in caplog.records if record.name == "envs.real.start_check"]
        assert len(lines) == 1 and lines[0].startswith("camera 'agentview': has moved: its picture is ")
    finally:
        env.close()


def test_a_start_that_refuses_goes_on_when_the_camera_is_put_back(world, broken, logged):
    broken("cover:agentview")
    env = envs.make("mock", **world, camera_check="refuse")
    try:
        with pytest.raises(RobotFault, match=r"camera 'agentview': is black or covered") as caught:
            env.reset(seed=0)
        assert not caught.value.by_itself  # a person has to look
        env.clear()
        with pytest.raises(RobotFault, match="covered"):
            env.reset(seed=0)
        send_fault(world["arm_options"]["socket"], "cover:agentview", 0.0)
        time.sleep(0.3)
        env.clear()
        logged()
        env.reset(seed=0)
        assert logged() == []
    finally:
        env.close()


def test_what_a_session_asks_or_learns_is_left_out(world, saved, tmp_path):
    """A reset that asks a person, that waits for a classifier, or that leaves the arm where it is."""
    ready = write(tmp_path / "never.pt", -9.0, {"agentview": (32, 32, 3)})
    _, lines = examined({**world, "ready": ready, "prompt": "put the cube back", "reset_task": "true"})
    assert lines["arm"]["ok"] and lines["axes"]["ok"] and lines["camera agentview"]["ok"], lines


def test_a_picture_that_cannot_be_written_is_a_line(world, saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.cameras, "draw", full)
    code, lines = examined(world)
    assert code == 1 and "No space left" in lines["cameras"]["says"] and lines["axes"]["ok"]


def test_an_arm_that_stops_on_its_way_does_not_hide_the_cameras(world, saved, monkeypatch):
    def stuck(*_, **__):
        raise RobotFault("axis 'x' has stood still")

    monkeypatch.setattr(doctor.arm, "go", stuck)
    code, lines = examined(world)
    assert code == 1 and "stood still" in lines["arm"]["says"] and "not compared" in lines["camera agentview"]["says"]


def test_an_arm_that_fails_does_not_hide_the_cameras(hardware, broken):
    broken("fault")
    code, lines = examined(hardware)
    assert code == 1 and "motor 3 overloaded" in lines["arm"]["says"]
    assert "sends frames" in lines["camera agentview"]["says"] and lines["disk"]["ok"]


def test_what_is_no_arm_or_no_sense_is_a_usage_error():
    for words in (
        ["--env", "fake"],
        ["--env", "real"],
        ["--env", "mock", "--axes", "{x: {low: 0, high: 1, home: 2}}"],
        ["--env", "mock", "--cameras", "{front: {sise: 3}}"],
        ["--env", "mock", "--save-reference", "--no-motion"],
        ["--env", "mock", "--data", "no/such/folder"],
        ["--env", "mock", "--hand", "{description: so101}"],  # its axes are none of the joints
    ):
        with pytest.raises(UserError):
            doctor.main(words)
