"""A command in a pseudo-terminal, as a person has it: what it shows, and keys for it."""

import codecs
import fcntl
import os
import pty
import resource
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Session:
    """`python -m <words>` with a pseudo-terminal as stdin, stdout and stderr."""

    def __init__(self, *words, columns=200, file_bytes=None):
        self.terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs  # kept open, so that its settings can be looked at afterwards
        command = [sys.executable, "-m", *map(str, words)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        if file_bytes is not None:  # a disk that is full, whoever runs this
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
        self.text, self.decoder = "", codecs.getincrementaldecoder("utf-8")()

    def press(self, keys):
        os.write(self.terminal, keys.encode())

    def look(self, timeout_s=0.0):
        """Everything shown so far; waits up to timeout_s for something new."""
        while select.select([self.terminal], [], [], timeout_s)[0]:
            self.text += self.decoder.decode(os.read(self.terminal, 65536))
            timeout_s = 0.0
        return self.text

    def until(self, words, timeout_s=90):
        """Waits until `words` have been shown; what was shown up to their end is forgotten."""
        deadline = time.monotonic() + timeout_s
        while words not in self.look(0.1):
            assert time.monotonic() < deadline and self.process.poll() is None, f"no {words!r} in:\n{self.text}"
        shown, self.text = self.text.split(words, 1)
        return shown + words

    def status(self, timeout_s=90):
        """The next status line, as a dict: its state, 'step', 'proprio' (the first numbers of a vector), ..."""
        self.text = ""
        deadline = time.monotonic() + timeout_s
        while self.text.count("\r") < 2 or "kept of" not in self.text:
            assert time.monotonic() < deadline and self.process.poll() is None, self.text
            self.look(0.1)
        parts = [line for line in self.text.split("\r") if "kept of" in line and line.endswith("\x1b[K")][-1]
        count, state, *rest = parts.removesuffix("\x1b[K").split(" | ")
        found = {"kept": int(count.split()[0]), "state": state}
        for part in rest:
            name, _, values = part.partition(" ")
            found[name] = values
        return found

    def until_state(self, state, timeout_s=90):
        """The first status whose state is `state`."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.status())["state"].startswith(state):
            assert time.monotonic() < deadline, found
        return found

    def end(self, timeout_s=60):
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self.look(0.1)
            assert time.monotonic() < deadline, self.text
        self.look()
        return self.process.returncode

    def hang_up(self):
        """The line drops."""
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.hang_up()
        os.close(self.theirs)
