import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from browsing import CHROMIUM, Arm
from run_folder import OUTCOMES, write_run

from tools.common.video import mp4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(demos, tmp_path):
    """A copy of recorded episodes, to edit."""
    return shutil.copytree(demos, tmp_path / "demos")


@pytest.fixture
def arm():
    arm = Arm()
    yield arm
    arm.close()


@pytest.fixture
def start_panel():
    """Starts tools.panel, and gives the page's address."""
    started = []

    def start(robot, *flags, files=""):
        """files: how many it may have open at most."""
        command = [sys.executable, "-m", "tools.panel", "--robot", robot, "--listen", "127.0.0.1:0", *flags]
        command = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command] if files else command
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        line = started[-1].stdout.readline()
        assert line.startswith("page: http://127.0.0.1:"), line
        return line.removeprefix("page: ").strip()

    yield start
    for process in started:
        process.terminate()
        process.communicate()


@pytest.fixture
def chromium(tmp_path):
    """Starts a browser of its own, and gives its process and Playwright's hold on it."""
    from playwright.sync_api import sync_playwright

    processes = []
    with sync_playwright() as playwright:

        def start():
            folder = tmp_path / f"browser{len(processes)}"
            command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
            command += ["--window-size=1280,800", f"--user-data-dir={folder}", "about:blank"]
            processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True))
            for line in processes[-1].stderr:
                if found := re.search(r"ws://\S+", line):
                    break
            browser = playwright.chromium.connect_over_cdp(found[0], timeout=60_000)
            browser.contexts[0].set_default_timeout(60_000)
            return processes[-1], browser

        yield start
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def page(arm, start_panel, chromium):
    _, browser = chromium()
    page = browser.contexts[0].new_page()
    page.goto(start_panel(arm.control.address))
    page.wait_for_selector("#cameras canvas", timeout=60_000)
    return page


@pytest.fixture
def recorded(arm, folder, start_panel, chromium):
    page = chromium()[1].contexts[0].new_page()
    page.route("**/none", lambda route: route.abort())  # begins interception: a later route may miss the next request
    page.goto(start_panel(arm.control.address, "--episodes", str(folder)) + "recorded.html")
    page.wait_for_selector("#count:has-text('6 episodes')", timeout=60_000)
    return page


@pytest.fixture
def runs(tmp_path):
    """Two runs with checkpoints, the second with a video; and beside them what is none."""
    write_run(tmp_path / "runs/a/online", OUTCOMES, 0.9)
    write_run(tmp_path / "runs/b", [0] * 10, 0.95, evaluated=(0.5, 0.0))
    (tmp_path / "runs/b/episodes").mkdir()
    (tmp_path / "runs/b/episodes/log.jsonl").write_text("{}")
    with mp4(tmp_path / "runs/b/videos/episode_000000.mp4", 10) as write:
        for shade in range(10):
            write(np.full((32, 48, 3), 20 * shade, np.uint8))
    (tmp_path / "secret.mp4").write_bytes(b"of somebody else")
    return tmp_path / "runs"


@pytest.fixture
def runs_page(runs):
    """The address of tools.runs for `runs`."""
    program = [sys.executable, "-m", "tools.runs", str(runs), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().removeprefix("page: ").strip()
    process.terminate()
    process.communicate()
