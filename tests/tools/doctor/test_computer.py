"""What the doctor says of device files, disk, clock, keys and link."""

import os
import re
import sys
from types import SimpleNamespace

import pytest

from agent.config import LinkConfig
from tools import keys as make_keys
from tools import link
from tools.doctor import computer


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """Two devices that are numbered, of which one has a name that stays."""
    for name in ("video0", "video2"):
        (tmp_path / name).touch()
    by_id, by_path = tmp_path / "by-id", tmp_path / "by-path"
    by_id.mkdir()
    by_path.mkdir()
    (by_id / "usb-cam-index0").symlink_to(tmp_path / "video0")
    (by_path / "pci-1-index0").symlink_to(tmp_path / "video0")
    monkeypatch.setattr(computer, "NUMBERED", re.compile(rf"{tmp_path}/(video|tty[A-Z]+)\d+"))
    return tmp_path, [str(by_id), str(by_path)]


def test_a_number_is_reported_with_the_id_that_it_has(devices):
    folder, folders = devices
    line = computer.device("camera front", f"{folder}/video0", "cameras.front.device", folders)
    assert "after a reboot" in line.says
    assert line.remedy == f"set cameras.front.device: {folder}/by-id/usb-cam-index0"
    assert not computer.device("camera front", f"{folder}/by-id/usb-cam-index0", "d", folders).remedy


def test_a_number_without_another_name_passes(devices):
    folder, folders = devices
    line = computer.device("camera front", f"{folder}/video2", "d", folders)
    assert not line.remedy and "no other name" in line.says


def test_a_name_that_two_devices_share_is_no_help(devices):
    """Two cameras of one kind without serial numbers: one link, to either of them."""
    folder, folders = devices
    by_id, by_path = folders
    for number in (0, 2):
        (folder / "by-path" / f"pci-1-usb-0:{number}-index0").symlink_to(folder / f"video{number}")
    for path in (f"{folder}/video0", f"{by_id}/usb-cam-index0"):
        assert computer.device("camera front", path, "d", folders).remedy.startswith(f"set d: {by_path}/pci-1-")
    by_number = computer.device("camera front", f"{folder}/video2", "d", folders)
    assert by_number.remedy == f"set d: {by_path}/pci-1-usb-0:2-index0"
    assert not computer.device("camera front", f"{by_path}/pci-1-usb-0:2-index0", "d", folders).remedy
    (folder / "by-id" / "usb-other-index0").symlink_to(folder / "video2")
    assert not computer.device("camera front", f"{by_id}/usb-cam-index0", "d", folders).remedy


def test_a_device_that_is_not_there_is_reported_with_those_that_are(devices, monkeypatch):
    folder, folders = devices
    line = computer.device("port", f"{folder}/ttyACM0", "arm_options.port", folders)
    assert "is not there" in line.says and "set arm_options.port" in line.remedy and "usb-cam-index0" in line.remedy
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "-aG video" in computer.device("camera", f"{folder}/video0", "d", folders).remedy
    (folder / "ttyACM0").touch()
    assert "-aG dialout" in computer.device("port", f"{folder}/ttyACM0", "d", folders).remedy


@pytest.mark.parametrize(
    ("path", "numbered"),
    [
        ("/dev/video0", True),
        ("/dev/ttyACM0", True),
        ("/dev/ttyUSB12", True),
        ("/dev/follower", False),
        ("/dev/v4l/by-id/usb-a-video-index0", False),
    ],
)
def test_which_names_are_numbers(path, numbered):
    assert bool(computer.NUMBERED.fullmatch(path)) == numbered


def test_only_device_files_of_the_arm_are_looked_at():
    lines = computer.arm_ports({"port": "/dev/not-there", "id": "follower", "baud": 9600, "ip": "192.0.2.1"})
    assert [line.check for line in lines] == ["port"] and "arm_options.port" in lines[0].remedy


@pytest.mark.parametrize("given", [{"source": "arm"}, {"source": "mock"}, {"source": "file", "device": "x"}, {}])
def test_cameras_without_a_device_file_have_no_line(given):
    assert computer.camera_device("front", {"device": 9999, **given}) == []


def test_a_realsense_is_named_by_its_serial_number(monkeypatch):
    device = SimpleNamespace(get_info=lambda what: "1234")
    module = SimpleNamespace(
        camera_info=SimpleNamespace(serial_number=0), context=lambda: SimpleNamespace(query_devices=lambda: [device])
    )
    monkeypatch.setitem(sys.modules, "pyrealsense2", module)
    by_serial, by_number, other = (
        computer.camera_device("top", {"source": "realsense", "device": device})[0] for device in ("1234", 0, "9")
    )
    assert not by_serial.remedy and "1234" in by_serial.says
    assert "1234" in by_number.remedy and "no RealSense 9" in other.says


def test_disk(tmp_path, monkeypatch):
    free = {"bytes": 6e9}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free["bytes"]))
    line = computer.disk(tmp_path / "spool" / "deeper")
    assert not line.remedy and "6 GB free" in line.says and not (tmp_path / "spool").exists()
    free["bytes"] = 4e9
    assert "make room" in computer.disk(tmp_path).remedy
    (tmp_path / "file").touch()
    assert computer.disk(tmp_path / "file").remedy


@pytest.mark.parametrize(("drift_s", "synchronised", "good"), [(0.001, "yes", True), (0.001, "no", False)])
def test_the_clock(monkeypatch, drift_s, synchronised, good):
    monkeypatch.setattr(computer, "_synchronised", lambda: synchronised)
    assert (not computer.clock(drift_s, 4.0).remedy) == good


def test_a_clock_that_jumps(monkeypatch):
    monkeypatch.setattr(computer, "_synchronised", lambda: "")
    assert "NTP not readable" in computer.clock(0.0, 4.0).says
    for drift_s in (-0.3, 0.3):
        assert "jumped" in computer.clock(drift_s, 4.0).says and computer.clock(drift_s, 4.0).remedy


def test_keys(tmp_path):
    folder = tmp_path / "keys"
    assert computer.keys("", "arm1") == []
    assert "tools.keys --robot arm1" in computer.keys(str(folder), "arm1")[0].remedy
    make_keys.main(["--robot", "arm1", "--out", str(folder)])
    assert "learner.key" in computer.keys(str(folder), "arm1")[0].says
    (folder / "learner.key").touch()
    assert not computer.keys(str(folder), "arm1")[0].remedy
    (folder / "arm1.key_secret").chmod(0o644)
    assert computer.keys(str(folder), "arm1")[0].remedy == f"chmod 600 {folder}/arm1.key_secret"
    (folder / "arm1.key_secret").chmod(0o600)
    folder.chmod(0o777)
    assert computer.keys(str(folder), "arm1")[0].remedy == f"chmod 700 {folder}"


def test_a_learner_that_is_not_there(monkeypatch):
    monkeypatch.setattr(link, "CONNECT_S", 0.3)
    line = computer.learner(LinkConfig(address="tcp://127.0.0.1:9"), "arm1")
    assert line.remedy.startswith("start the learner")
    assert computer.learner(LinkConfig(address="tcp://192.0.2.1:5555"), "arm1").remedy  # no keys beyond this machine
