"""Keys of the link (CURVE, libzmq's own): who may connect, and that nobody else reads or writes along.

A folder of keys on each machine, made by tools.keys:

  learner   learner.key_secret, authorized/<robot>.key     the public key of each robot that may connect, by that name
  robot     <robot>.key_secret, learner.key                its own, and the learner's public one
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from agent.spec import UserError

LEARNER = "learner"
AUTHORIZED = "authorized"
DOMAIN = "peers"  # of ZAP (libzmq's authentication); any name but none
HANDSHAKE_MS = 3000  # then a connection that has not said who it is ends

Refuses = Callable[[str], bool]

log = logging.getLogger(__name__)


def create(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a new pair of keys, <name>.key and <name>.key_secret (0600); returns both. Never replaces one."""
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists():
            raise UserError(f"{path}: already exists; whoever knows it would be locked out by a new one")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(folder, name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        os.umask(before)
    public.chmod(0o644)
    return public, secret


def _load(path: Path, secret: bool) -> bytes:
    """The public or the secret key in `path`. Raises UserError naming it, also when others may read a secret one."""
    if not path.is_file():
        raise UserError(f"{path}: no such key (python -m tools.keys makes them)")
    if secret and path.stat().st_mode & 0o077:
        raise UserError(f"{path}: others may read this secret key; chmod 600 {path}, or make a new one")
    with contextlib.suppress(OSError, ValueError, zmq.ZMQError):
        key = zmq.auth.load_certificate(path)[int(secret)]
        if key is not None:
            zmq.curve_public(key)  # raises for what is no key
            return key
    raise UserError(f"{path}: not a {'secret' if secret else 'public'} key of this program")


class Gate(ThreadAuthenticator):
    """refuses: whether no peer of this address is let in now. Asked in the authenticator's thread."""

    def __init__(self, context: zmq.Context[Any], refuses: Refuses) -> None:
        super().__init__(context)
        self._refuses = refuses

    async def handle_zap_message(self, msg: list[bytes]) -> None:
        try:
            if len(msg) >= 6 and self._refuses(msg[3].decode(errors="replace")):
                self._send_zap_reply(msg[1], b"400", b"not let in for a while")
            else:
                await super().handle_zap_message(msg)
        except Exception:  # without a reply nobody could connect any more
            log.exception("error in the authenticator, a peer was refused")
            with contextlib.suppress(Exception):
                self._send_zap_reply(msg[1], b"500", b"error")


def nobody(address: str) -> bool:
    return False


def refuse_old_protocols(socket: Any, context: zmq.Context[Any], refuses: Refuses = nobody) -> ThreadAuthenticator:
    """Let no peer of ZMTP 1.0 or 2.0 into `socket`, nor one whose handshake takes long; stop() what is returned.

    ZMTP 1.0 needs no answer from this side, so the body of an HTTP POST of any web page is taken for messages. libzmq
    refuses both versions once a socket has a ZAP domain. Call it before `bind`; `close` sockets after stop().
    """
    authenticator = Gate(context, refuses)
    authenticator.start()
    socket.zap_domain = DOMAIN.encode()
    socket.handshake_ivl = HANDSHAKE_MS
    return authenticator


class Guard:
    """Makes `socket` one that only robots with a key in `folder`/authorized reach; stop() it at the end.

    Make it before `bind`. Keys that are put there or taken away later count from a robot's next connection on. Raises
    UserError naming the key that is missing or unfit.
    """

    def __init__(self, socket: Any, context: zmq.Context[Any], folder: Path) -> None:
        self._folder, self._files = folder / AUTHORIZED, {Path(): -1}
        self._names: dict[bytes, str] = {}
        secret = _load(folder / f"{LEARNER}.key_secret", secret=True)
        for path in self._folder.glob("*.key"):
            _load(path, secret=False)
        if not self._known():
            raise UserError(f"{self._folder}: no robot may connect; put each one's <robot>.key there")
        socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
        socket.curve_server = True
        self._authenticator = refuse_old_protocols(socket, context)  # last: its thread must be stopped
        self._authenticator.configure_curve_callback(domain=DOMAIN, credentials_provider=self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether whoever has shown to hold `key` may connect. In the authenticator's thread, at each connection."""
        return key in self._known()

    def holder(self, frame: zmq.Frame) -> str:
        """The robot whose key `frame` came with: the name of the file in authorized/. Empty: it is not there any more.

        libzmq vouches for it: a robot can say that it has another name, but not with the other's key.
        """
        return self._names.get(str(frame.get("User-Id")).encode(), "")

    def stop(self) -> None:
        self._authenticator.stop()

    def _known(self) -> dict[bytes, str]:
        try:
            files = {path: path.stat().st_mtime_ns for path in sorted(self._folder.glob("*.key"))}
            if files != self._files:
                names = {}
                for path in files:
                    try:
                        names[_load(path, secret=False)] = path.stem
                    except UserError as error:
                        log.warning("%s", error)
                self._names, self._files = names, files
        except OSError as error:
            log.warning("%s: %s", self._folder, error.strerror)
            self._names = {}
        return self._names


def present(socket: Any, folder: Path, robot: str) -> None:
    """Make `socket` speak with the keys of `robot` to the learner of `folder`/learner.key, and nobody else."""
    secret = _load(folder / f"{robot}.key_secret", secret=True)
    socket.curve_serverkey = _load(folder / f"{LEARNER}.key", secret=False)
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
