"""Programs as processes that are forked from one which has imported torch, so that they start in little CPU time.

For tests of what a running program does. That a command starts by itself is shown by test_whole_job.py,
test_printed_commands.py and others, which start it with subprocess.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch"])


def _run(words, out, err, environ, folder):
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:0] = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))  # else read at a start only
    sys.argv = words
    if words[0] == "-m":
        del sys.argv[0]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        exec(words.pop(1), {"__name__": "__main__"})
    else:
        runpy.run_path(words[0], run_name="__main__")


class Program:
    """`python -m MODULE ...`, `python -c SOURCE ...` or `python FILE ...`, in the repository's root or in `folder`.

    With methods of a subprocess.Popen. stdout and stderr go to the file `out`, or stderr to the end of `err`; said() is
    what `out` has so far.
    """

    def __init__(self, *words, out=os.devnull, err=None, environ=os.environ, folder=ROOT):
        self.said = Path(out).read_text
        files = [os.path.abspath(out), os.path.abspath(err or out)]
        for path, mode in zip(files[::-1], "aw"):
            open(path, mode).close()
        self._process = SERVER.Process(target=_run, args=([*map(str, words)], *files, dict(environ), str(folder)))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        """Of an ended one; negative: the number of the signal that ended it."""
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self._process.kill()


def start(words, out, log=None, environment=None, session=False):
    """tools.common.process.start, forked, and not in a session of its own."""
    environ = {**os.environ, **(environment or {})}
    return Program("-m", *words, out=out, err=log, environ=environ, folder=os.getcwd())
