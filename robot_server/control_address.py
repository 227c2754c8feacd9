"""Where the operator's socket of a robot server is, and the key without which nobody gets a message into it.

Each start makes a new key (CURVE, libzmq's own): the socket takes nothing from a peer that does not have it, so no page
in a browser and no other user can speak to it, and what was meant for the robot server before does not arrive. The key
is in a file that only its user can read, beside the socket (ipc) or in the runtime folder by its port (tcp). The robot
server holds a lock on it for as long as it runs.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

import zmq

from agent.cli import Arguments
from agent.files import try_lock
from agent.spec import UserError
from agent.wire.messages import check_address
from agent.wire.schema import NAME
from envs.runtime import runtime_folder

AUTO = "auto"
MAX_SOCKET_PATH = 107  # bytes, of Linux
KEY_BYTES = 40  # Z85
LOCK_S = 0.5  # whoever looks whether a robot server runs holds the lock for a moment


def bound(control: str, robot_name: str) -> str:
    """The address of the operator's socket of a robot, from robot.control. Raises UserError for an impossible name."""
    if control != AUTO:
        return control
    if not NAME.fullmatch(robot_name):
        raise UserError(f"robot.robot_name {robot_name!r}: letters, digits, '_', '-' and '.', 64 at most")
    return f"ipc://{_folder()}/control-{robot_name}.sock"


def find(arguments: Arguments) -> str:
    """The address for a tool: that of robot.control, of the robot that was named, or of the only one that runs here.

    Raises UserError when there is none, or several to choose from.
    """
    if address := named(arguments):
        return address
    names = running()
    if len(names) > 1:
        raise UserError(f"several robot servers run here ({', '.join(names)}): choose one with --robot-name {names[0]}")
    return bound(AUTO, names[0] if names else arguments.section("robot").robot_name)


def named(arguments: Arguments) -> str:
    """The address in robot.control, or of the robot that was named; empty where neither says which.

    Raises UserError when this robot has none.
    """
    robot = arguments.section("robot")
    if not robot.control:
        raise UserError("robot.control is empty: this robot has no operator's socket")
    if robot.control != AUTO or "robot_name" in arguments.settings.get("robot", {}):
        return bound(robot.control, robot.robot_name)
    return ""


def running() -> list[str]:
    """Names of the robots of this user whose operator's socket is where "auto" puts it."""
    paths = sorted(_folder().glob("control-*.sock.key"))
    return [path.name.removeprefix("control-").removesuffix(".sock.key") for path in paths if _locked(path)]


def key_path(address: str) -> Path:
    """The file of its key. Raises UserError for an address that an operator's socket cannot have."""
    transport, _, rest = address.partition("://")
    try:
        check_address(address, False)
    except UserError:
        raise UserError(
            f"robot.control {address}: the operator's socket is for this computer (tools.panel serves others)"
        ) from None
    if transport == "tcp":
        return _folder() / f"control-tcp-{rest.rpartition(':')[2]}.key"
    if transport != "ipc" or not rest or rest[0] in "@*":
        raise UserError(f"robot.control {address}: an address such as ipc:///run/robot.sock or tcp://127.0.0.1:5556")
    if (size := len(os.fsencode(rest))) > MAX_SOCKET_PATH:
        raise UserError(
            f"robot.control {address}: the path of a socket has at most {MAX_SOCKET_PATH} bytes, this one {size}; "
            "give a shorter --control, or set TMPDIR to a shorter folder"
        )
    return Path(f"{rest}.key")


def read_key(path: Path) -> bytes:
    """The key in it; empty while no robot server of this user has written one."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_size != KEY_BYTES:
            return b""
        return os.read(file, KEY_BYTES)
    finally:
        os.close(file)


class Claim:
    """Holds the key file of `address` for this process until `close`. Raises UserError when a running one has it."""

    def __init__(self, address: str) -> None:
        self._path = path = key_path(address)
        with contextlib.ExitStack() as stack:
            try:
                self._file = _lock(path)
                stack.callback(os.close, self._file)
                found = os.fstat(self._file)
                if found.st_uid != os.getuid() or found.st_nlink != 1 or found.st_size not in (0, KEY_BYTES):
                    raise UserError(f"robot.control {address}: {path} is not a key file of this user; remove it")
                os.fchmod(self._file, 0o600)
                os.ftruncate(self._file, 0)
                folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, folder)
                with contextlib.suppress(OSError):  # systemd-tmpfiles takes no old files out of a locked folder
                    try_lock(folder, shared=True)
            except BlockingIOError:
                raise UserError(
                    f"robot.control {address}: another robot server runs there; give this one another --robot-name"
                ) from None
            except OSError as error:
                raise UserError(f"robot.control {address}: {path}: {(error.strerror or str(error)).lower()}") from None
            self._open = stack.pop_all()

    def write(self, key: bytes) -> None:
        os.pwrite(self._file, key, 0)

    def close(self) -> None:
        """To be called when the socket is closed. libzmq leaves the name of an ipc socket behind."""
        for path in (self._path, self._path.with_suffix("")):
            with contextlib.suppress(OSError):
                path.unlink()
        self._open.close()


def bind(socket: zmq.Socket[bytes], address: str) -> tuple[str, Claim]:
    """Where it is then, and the claim on it, with the key. Raises UserError."""
    public, secret = zmq.curve_keypair()
    socket.curve_server, socket.curve_secretkey, socket.curve_publickey = True, secret, public
    path = key_path(address).with_suffix("")  # of the socket, if it is ipc
    ipc = address.startswith("ipc:")
    if ipc and path.exists() and not path.is_socket():
        raise UserError(f"robot.control {address}: {path} already exists and is not a socket")
    claim = Claim(address) if ipc else None  # first: libzmq takes the path from whoever has it
    try:
        socket.bind(address)
        if ipc:
            path.chmod(0o600)
        where = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        claim = claim or Claim(where)
        claim.write(public)
        return where, claim
    except BaseException as error:
        if claim:
            claim.close()
        if isinstance(error, zmq.ZMQError):
            raise UserError(f"robot.control {address}: {error.strerror.lower()}") from None
        raise


def _lock(path: Path) -> int:
    """An open file with the lock. Raises BlockingIOError when somebody keeps it, and other OSErrors."""
    end_s = time.monotonic() + LOCK_S
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile, by whoever had it
            if try_lock(file) and os.path.samestat(os.fstat(file), os.lstat(path)):
                return file
        os.close(file)
        if time.monotonic() > end_s:
            raise BlockingIOError
        time.sleep(0.01)


def _locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(file, shared=True)
    finally:
        os.close(file)


def _folder() -> Path:
    try:
        return runtime_folder()
    except OSError as error:
        raise UserError(str(error)) from None
