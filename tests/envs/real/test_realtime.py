"""Real-time scheduling, in a process of its own: it would hold up the others."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, threading, time
from envs.real.realtime import real_time
over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
kinds = lambda: {os.sched_getscheduler(pid) for pid in (0, thread.native_id)}
print(real_time(), kinds() == {os.SCHED_RR})
print(real_time(False), kinds() == {os.SCHED_OTHER})
over.set()
"""


def allowed():
    if not hasattr(os, "SCHED_RR"):
        return False
    probe = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", probe], stderr=subprocess.DEVNULL).returncode == 0


def run(before=""):
    done = subprocess.run([sys.executable, "-c", before + PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_all_threads_get_it_and_give_it_back():
    if not allowed():
        pytest.skip("this system allows no real-time scheduling")
    assert run() == ["True True", "True True"]


def test_where_it_is_not_allowed_nothing_changes():
    refuse = """
import os
def refused(pid, policy, param, real=os.sched_setscheduler):
    if policy == os.SCHED_RR:
        raise PermissionError(1, "Operation not permitted")
    real(pid, policy, param)
os.sched_setscheduler = refused
"""
    assert run(refuse) == ["False False", "True True"]


def test_systems_that_know_no_such_thing():
    gone = "import os\nordinary = os.SCHED_OTHER\ndel os.SCHED_RR\n"
    program = "from envs.real.realtime import real_time\nprint(real_time(), real_time(False))"
    done = subprocess.run([sys.executable, "-c", gone + program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "False True\n"
