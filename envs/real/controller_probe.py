"""Whether an arm's controller answers at all: the vendors' libraries may wait for that for minutes, or for ever."""

from __future__ import annotations

import socket

from envs.real.arm import ArmError

ANSWER_S = 2.0


def probe(what: str, host: str, port: int, request: bytes) -> None:
    """Send `request` to a TCP port, and wait for the first byte of an answer. Raises ArmError, one line."""
    where = f"{what}: {host}, port {port}"
    try:
        with socket.create_connection((host, port), ANSWER_S) as line:
            line.sendall(request)
            if not line.recv(1):
                raise ArmError(f"{where}: closed the connection; is that the controller's address?")
    except TimeoutError:
        raise ArmError(f"{where}: no answer for {ANSWER_S:g} s; is the controller on, and its cable in?") from None
    except OSError as error:
        raise ArmError(f"{where}: {error.strerror or error}; check the address and the network") from None
