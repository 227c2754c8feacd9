"""Keys of the link (CURVE, libzmq's own): who may connect, and that nobody else reads or writes along.

A folder of keys on each machine, made by tools.keys:

  learner   learner.key_secret, authorized/<robot>.key     one public key for each robot that may connect
  robot     <robot>.key_secret, learner.key                its own, and the learner's public one
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from agent.spec import UserError

LEARNER = "learner"
AUTHORIZED = "authorized"


def create(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a new pair of keys, <name>.key and <name>.key_secret (0600); returns both. Never replaces one."""
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists():
            raise UserError(f"{path}: is there already; whoever knows it would be locked out by a new one")
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
    with contextlib.suppress(OSError, ValueError, UnicodeDecodeError):
        key = zmq.auth.load_certificate(path)[int(secret)]
        if key is not None and len(key) == 40:
            return key
    raise UserError(f"{path}: not a {'secret' if secret else 'public'} key of this program")


def guard(socket: Any, context: zmq.Context, folder: Path) -> ThreadAuthenticator:
    """Make `socket` one that only robots with a key in `folder`/authorized reach; stop() what is returned at the end.

    Call it before `bind`. Keys that are added later count from the learner's next start.
    """
    allowed = folder / AUTHORIZED
    secret = _load(folder / f"{LEARNER}.key_secret", secret=True)
    paths = sorted(allowed.glob("*.key"))
    if not paths:
        raise UserError(f"{allowed}: no robot may connect; put each one's <robot>.key there")
    for path in paths:
        _load(path, secret=False)
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve(domain="*", location=str(allowed))
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
    socket.curve_server = True
    return authenticator


def present(socket: Any, folder: Path, robot: str) -> None:
    """Make `socket` speak with the keys of `robot` to the learner of `folder`/learner.key, and nobody else."""
    secret = _load(folder / f"{robot}.key_secret", secret=True)
    socket.curve_serverkey = _load(folder / f"{LEARNER}.key", secret=False)
    socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
