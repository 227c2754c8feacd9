"""Checks of the robot's computer: device files, disk, clock, link and keys."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from agent import files
from agent.config import LinkConfig
from agent.spec import UserError
from agent.wire.messages import check_address
from envs.real.camera_options import CameraOptions, parse
from tools import link
from tools.doctor.lines import Line

STABLE = ("/dev/v4l/by-id", "/dev/v4l/by-path", "/dev/serial/by-id", "/dev/serial/by-path")  # the best first
NUMBERED = re.compile(r"/dev/(video|tty[A-Z]+)\d+")
JUMP_S = 0.05


def stable_path(path: str, folders: Collection[str] = STABLE) -> str:
    """The link to a device that stays the same after a reboot; empty where there is none."""
    for folder in folders:
        for name in [] if _shared(folder) else sorted(glob.glob(f"{folder}/*")):
            if os.path.realpath(name) == os.path.realpath(path):
                return name
    return ""


def _shared(folder: str) -> bool:
    """Whether devices share a name in by-id: two of one kind without serial numbers do, and one of them has none."""
    if os.path.basename(folder) != "by-id":
        return False
    named = {os.path.realpath(name) for name in glob.glob(f"{folder}/*")}
    return any(os.path.realpath(name) not in named for name in glob.glob(f"{os.path.dirname(folder)}/by-path/*usb*"))


def device(check: str, path: str, key: str, folders: Collection[str] = STABLE) -> Line:
    """Whether the device file `path`, given as `key` in the config, is there, may be used, and stays after a reboot."""
    if not os.path.exists(path):
        there = sorted(name for folder in folders for name in glob.glob(f"{folder}/*"))
        return Line(check, f"{path} is not there", f"plug it in; set {key} (there is {', '.join(there) or 'none'})")
    if not os.access(path, os.R_OK | os.W_OK):
        group = "video" if "video" in os.path.realpath(path) else "dialout"
        return Line(check, f"no permission for {path}", f"sudo usermod -aG {group} $USER, and log in again")
    stays = stable_path(path, folders)
    if NUMBERED.fullmatch(path) and stays:
        return Line(check, f"{path} may be another device after a reboot", f"set {key}: {stays}")
    if os.path.dirname(path) in folders and stays and stays != path and _shared(os.path.dirname(path)):
        return Line(check, f"{path} may be the name of two devices", f"set {key}: {stays}")
    return Line(check, f"{path} is there" + ("" if stays or not NUMBERED.fullmatch(path) else ", it has no other name"))


def arm_ports(options: Mapping[str, Any]) -> list[Line]:
    """A line for each device file among `arm_options`."""
    return [
        device("port", value, f"arm_options.{key}")
        for key, value in options.items()
        if isinstance(value, str) and value.startswith("/dev/")
    ]


def camera_device(name: str, given: Mapping[str, Any]) -> list[Line]:
    """Of the camera `name`; none where its source has no device file. Raises ValueError for bad options."""
    if given.get("source") in ("arm", "mock"):
        return []
    options = parse(name, given)
    check, key = f"camera {name}", f"cameras.{name}.device"
    if options.source == "realsense":
        return [_realsense(check, options)]
    if options.source != "v4l2":
        return []
    number = str(options.device)
    path = f"/dev/video{number}" if number.isdigit() else number
    return [device(check, path, key)] if os.access(path, os.R_OK | os.W_OK) else []  # else its start reports that


def _realsense(check: str, options: CameraOptions) -> Line:
    try:
        import pyrealsense2 as rs
    except ImportError:
        return Line(check, "source realsense without its package", "pip install pyrealsense2")
    there = [str(each.get_info(rs.camera_info.serial_number)) for each in rs.context().query_devices()]
    if str(options.device) in there:
        return Line(check, f"RealSense {options.device} is there")
    remedy = f"set device to one of {', '.join(there)}" if there else "plug it in (rs-enumerate-devices)"
    return Line(check, f"no RealSense {options.device}" if options.device else "RealSense by no serial number", remedy)


def disk(folder: Path) -> Line:
    """Free space where `folder` is, or would be."""
    try:
        files.check_writable(folder)
        free = shutil.disk_usage(files.existing(folder)).free
    except OSError as error:
        return Line("disk", f"{folder}: {error.strerror}", "choose another folder, or change its permissions")
    least = f"make room: at least {files.LEAST_FREE / 1e9:.0f} GB"
    return Line("disk", f"{free / 1e9:.0f} GB free for {folder}", least if files.low_space(folder) else "")


def clock(drift_s: float, watched_s: float) -> Line:
    """drift_s: by how much the wall clock went ahead of the monotonic one in `watched_s`."""
    says = f"{1e3 * drift_s:+.1f} ms against the monotonic clock in {watched_s:.0f} s"
    if abs(drift_s) > JUMP_S:
        return Line("clock", f"the wall clock jumped: {says}", "wait until it is set, or stop what sets it")
    synchronised = _synchronised()
    if synchronised == "no":
        return Line("clock", f"{says}; not synchronised", "sudo timedatectl set-ntp true")
    return Line("clock", f"{says}; NTP {'synchronised' if synchronised == 'yes' else 'not readable here'}")


def _synchronised() -> str:
    """ "yes", "no", or empty where systemd does not tell."""
    try:
        words = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        return subprocess.run(words, capture_output=True, text=True, timeout=3, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def keys(folder: str, robot: str) -> list[Line]:
    """Whether others may read a secret key; none without keys."""
    if not folder:
        return []
    secret, learner = Path(folder, f"{robot}.key_secret"), Path(folder, "learner.key")
    for path, remedy in ((secret, f"python -m tools.keys --robot {robot}"), (learner, "copy it from the learner")):
        if not path.is_file():
            return [Line("keys", f"{path} is not there", remedy)]
    loose = [path for path in (Path(folder), secret) if path.stat().st_mode & (0o022 if path.is_dir() else 0o077)]
    if loose:
        mode = "700" if loose[0].is_dir() else "600"
        return [Line("keys", f"others may use {loose[0]}", f"chmod {mode} {loose[0]}")]
    return [Line("keys", f"{secret} is readable by you alone")]


def learner(config: LinkConfig, robot: str) -> Line:
    """Whether the learner at config.address answers."""
    try:
        check_address(config.address, config.insecure or bool(config.keys))
        probe = link.Probe(config.address, config.keys, robot)
    except UserError as error:
        return Line("link", str(error), "correct --address, --keys")
    try:
        probe.connect(link.CONNECT_S)
        probe.ask({}, {})
        probe.answer()
    except link.NotWell as wrong:
        return Line("link", str(wrong), f"start the learner; python -m tools.link --learner {config.address} says more")
    finally:
        probe.close()
    return Line("link", f"the learner at {config.address} answers")
