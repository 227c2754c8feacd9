"""Reading a socket frame by frame: a message of very many frames holds nobody up, and takes no memory."""

from __future__ import annotations

import zmq

NOWAIT = int(zmq.NOBLOCK)  # much cheaper than the enum, frame by frame
MAX_FRAMES = 3  # kept of a message: the protocols have two, and a route in front


class Frames:
    """The message that is being read: its first frames, the rest of one that has too many is dropped."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, socket: zmq.Socket[bytes]) -> list[bytes] | None:
        """Take one frame; the message when that was its last, else None. Raises zmq.Again when nothing has come."""
        frame = socket.recv(NOWAIT, copy=False)  # it knows whether another follows: asking the socket is slow
        if len(self._kept) < MAX_FRAMES:
            self._kept.append(frame.bytes)
        if frame.more:
            return None
        message, self._kept = self._kept, []
        return message
