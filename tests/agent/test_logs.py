"""Log lines as a person sees them."""

import logging
import re
import subprocess
import sys

PROGRAM = """
import logging
from agent import cli, logs
def main(argv):
    log = logging.getLogger("robot_server.link")
    log.info("connected")
    logs.configure("arm1")
    log.info("connected")
    log.warning("the learner is %s", "away")
    logging.getLogger("some.library").info("chatter")
    print("result")
cli.run(main)
"""


def test_a_line_has_time_robot_and_level_and_results_are_alone_on_stdout():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "result\n")
    lines = [re.sub(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d ", "", line, count=1) for line in done.stderr.splitlines()]
    assert lines == ["connected", "arm1 connected", "arm1 warning: the learner is away"]


def test_a_robots_lines_are_configured_once():
    before = list(logging.getLogger().handlers)
    source = "from agent import logs\nlogs.configure('a')\nlogs.configure('b')\nimport logging\n"
    source += "print(len(logging.getLogger().handlers))"
    assert subprocess.run([sys.executable, "-c", source], capture_output=True, text=True).stdout == "1\n"
    assert logging.getLogger().handlers == before
