"""Programs as processes that are forked from one which has imported torch, so that they start in little CPU time.

For tests of what a running program does. That a command starts by itself is shown by test_whole_job.py,
test_printed_commands.py and others, which start it with subprocess.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch"])


def _run(words, out, err, environ):
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(ROOT)
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
    """`python -m MODULE ...`, `python -c SOURCE ...` or `python FILE ...`, in the repository's root.

    With methods of a subprocess.Popen. stdout and stderr go to the file `out`, or stderr to `err`; said() is what `out`
    has so far.
    """

    def __init__(self, *words, out=os.devnull, err=None, environ=os.environ):
        self.said = Path(out).read_text
        files = [str(out), str(err or out)]
        for path in files:
            open(path, "w").close()
        self._process = SERVER.Process(target=_run, args=([*map(str, words)], *files, dict(environ)))
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

    def kill(self):
        self._process.kill()
