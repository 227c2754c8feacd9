"""A Robotiq 2F or Hand-E gripper at a UR's wrist, through the text protocol of its URCap: 0 is open, 255 is closed.

A thread asks and moves it at the URCap's pace, so that the arm's setpoints do not wait for it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from envs.real.arm import ArmError
from envs.real.controller_probe import ANSWER_S

PORT = 63352
ACTIVE = 3  # its status STA
SPEED, FORCE = 255, 100  # of 255
STALE_S = 0.3
PAUSE_S = 0.005


class Robotiq:
    """Connected. Raises ArmError when nothing answers there, and when it is not active: activating moves it."""

    def __init__(self, host: str) -> None:
        try:
            self._line = socket.create_connection((host, PORT), ANSWER_S)
        except OSError as error:
            raise ArmError(f"robotiq: {host}, port {PORT}: {error}; is its URCap installed?") from None
        self._line.settimeout(ANSWER_S)
        self._error, self._wanted, self._sent = "", "", ""  # the latter two: what SET has
        self._position, self._seen_s = 0.0, 0.0
        try:
            if self._get("STA") != ACTIVE:
                raise ArmError("robotiq: it is not active: activate it at the pendant, where it opens and closes")
            self._set(f"SPE {SPEED} FOR {FORCE}")
            self._look()
        except (OSError, ValueError) as error:
            self._line.close()
            raise ArmError(f"robotiq: {error}") from None
        except ArmError:
            self._line.close()
            raise
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def position(self) -> float:
        """0 to 255, measured. Raises TimeoutError for an old one, ArmError after a fault."""
        if self._error:
            raise ArmError(f"robotiq: {self._error}")
        if time.monotonic() - self._seen_s > STALE_S:
            raise TimeoutError(f"robotiq: no position for {1000 * STALE_S:g} ms")
        return self._position

    def move(self, position: float) -> None:
        """Go there; does not wait."""
        self._wanted = f"POS {min(max(round(position), 0), 255)} GTO 1"

    def stop(self) -> None:
        """Stand where it is, with a thing in its grip; does not wait. Nothing is sent to one that was never moved."""
        if self._wanted:
            self._wanted = "GTO 0"

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._line.close()

    def _run(self) -> None:
        try:
            while not self._ended.wait(PAUSE_S):
                if (wanted := self._wanted) != self._sent:
                    self._set(wanted)
                    self._sent = wanted
                self._look()
        except (OSError, ValueError, ArmError) as error:
            self._error = self._error or str(error)

    def _look(self) -> None:
        if fault := self._get("FLT"):
            raise ArmError(f"fault {fault}: look it up in its manual, and activate it again at the pendant")
        self._position, self._seen_s = float(self._get("POS")), time.monotonic()

    def _get(self, name: str) -> int:
        answer = self._ask(f"GET {name}\n")
        word, _, value = answer.partition(" ")
        if word != name or not value.isdigit():  # "?" without power
            raise ArmError(f"it answered {answer!r} to GET {name}: has its wrist power?")
        return int(value)

    def _set(self, values: str) -> None:
        if (answer := self._ask(f"SET {values}\n")) != "ack":
            raise ArmError(f"it answered {answer!r} to SET {values}")

    def _ask(self, words: str) -> str:
        """One question, one answer, which has no end of line after SET."""
        self._line.sendall(words.encode())
        if not (answer := self._line.recv(256)):
            raise ConnectionError("its URCap closed the connection")
        return answer.decode(errors="replace").strip()
