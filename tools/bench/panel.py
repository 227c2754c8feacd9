"""What the operator's page costs the robot's control loop, how soon the arm is held when the browser is killed, and
whether STOP only ever stops.

  python -m tools.bench.panel [--json FILE] [--rounds 4] [--seconds 15] [--kills 10] [--bursts 20]

A control loop at 20 Hz, as run_episode's, with two 128x128 cameras that change at every step and no policy; tools.panel
in a process of its own, and three browsers that take every image: one Chromium, if there is one, and WebSocket clients,
in a process of their own. Rounds with and without them take turns. Overrun: how much later than its deadline a step
ended. Then a Chromium that drives is killed (kill -9), again and again: from then to the first step that does not move.
Last, bursts of 2 to 10 presses of STOP, 50 to 800 ms apart, by mouse, touch and Escape: the robot must be stopped after
each press, and stay so.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from agent.wire.progress import CURVES
from envs.clock import Clock
from envs.start import module_command
from robot_server.control import Control
from tools.common.report import Report, parser

HZ, BROWSERS, SIZE = 20, 3, 128
KILL_HZ = 10  # the simulator's rate
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Loop:
    """The robot's side. overruns: seconds, of each step; control: what the operator's socket took of each."""

    def __init__(self) -> None:
        self.control = Control("tcp://127.0.0.1:*", lambda: {"robot": "bench"})
        self._images = np.random.default_rng(0).integers(0, 256, (8, 2, SIZE, SIZE, 3), dtype=np.uint8)
        self.overruns: list[float] = []
        self.taken: list[float] = []
        self.steps = 0

    def run(self, seconds: float, hz: float = HZ, until: Callable[[], bool] = lambda: False) -> None:
        clock, steps = Clock(hz), int(seconds * hz)
        clock.start()
        deadline_s = time.monotonic()
        for step in range(steps):
            deadline_s += 1 / hz
            began = time.perf_counter()
            self.steps += 1
            if self.steps % HZ == 0:
                self._happen(self.steps // HZ)
            self.control.read()
            front, wrist = self._images[step % 8]
            seen = {"front": front, "wrist": wrist, "state": np.zeros(9, np.float32)}
            self.control.show(seen, {"episode": 1, "step": step, "return": 0.0, "success": False})
            self.taken.append(time.perf_counter() - began)
            clock.wait()
            self.overruns.append(max(0.0, time.monotonic() - deadline_s))
            if until():
                return

    def _happen(self, number: int) -> None:
        """An episode and a record of the learner, so that all plots are drawn anew."""
        self.control.history.episode(number, "success" if number % 3 else "failure", 20, 0, 1.0)
        figures = {"updates": number, "q_data": 0.3, "return_to_go": 0.4, "td_loss": 0.1, "entropy": -1.0}
        counts = {"updates": number, "updates_due": number, "env_steps": number, "env_steps_wanted": 10**6}
        told = {"episodes": number, "seconds_left": 60.0, "checkpoint_age_s": 5.0, "warnings": []}
        curves: dict[str, Any] = {name: [number + 0.01 * point for point in range(100)] for name in CURVES}
        newest = {"number": number, "updates": number, "success": True, "steps": list(range(100)), **curves}
        stage = {"stage": "online", "figures": figures, "newest_episode": newest}
        self.control.history.learner_told({**stage, **counts, **told})


@contextlib.contextmanager
def page(address: str) -> Iterator[tuple[str, int]]:
    """Where it is, and the process that serves it."""
    command = module_command("tools.panel", "--robot", address, "--listen", "127.0.0.1:0")
    panel = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert panel.stdout
    try:
        yield panel.stdout.readline().removeprefix("page: ").strip(), panel.pid
    finally:
        panel.terminate()
        panel.communicate()


def watch(url: str, browsers: int, seen: Any, size: Any) -> None:
    """The other process: so many clients that read all that comes; seen: counts images, size: bytes."""

    async def one(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(url + "ws", headers={"Origin": url.rstrip("/")}) as socket:
            async for message in socket:
                seen.value += message.type == aiohttp.WSMsgType.BINARY
                size.value += len(message.data)

    async def all_of_them() -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(one(session) for _ in range(browsers)))

    asyncio.run(all_of_them())


@contextlib.contextmanager
def chromium() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Its process, and where it is controlled from."""
    assert CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += [f"--user-data-dir={folder}", "about:blank"]
        browser = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert browser.stderr
        try:
            yield browser, next(found[0] for line in browser.stderr if (found := re.search(r"ws://\S+", line)))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.communicate()


def open_page(where: str, url: str, driving: bool, ready: Any, over: Any) -> None:
    """The other process: Playwright, which opens the page, drives if asked, and stays until `over`."""
    from playwright.sync_api import sync_playwright

    with contextlib.suppress(Exception), sync_playwright() as playwright:
        opened = playwright.chromium.connect_over_cdp(where).contexts[0].new_page()
        opened.goto(url)
        opened.wait_for_selector("#cameras canvas")
        if driving:
            opened.keyboard.press("t")
            opened.keyboard.down("w")
        ready.set()
        over.wait()


@contextlib.contextmanager
def opened(loop: Loop, url: str, driving: bool) -> Iterator[subprocess.Popen[str]]:
    """A Chromium with the page open."""
    context = multiprocessing.get_context("spawn")
    with chromium() as (browser, where):
        ready, over = context.Event(), context.Event()
        child = context.Process(target=open_page, args=(where, url, driving, ready, over), daemon=True)
        child.start()
        loop.run(60.0, until=ready.is_set)
        try:
            yield browser
        finally:
            over.set()
            child.join(10.0)


@contextlib.contextmanager
def browsers(loop: Loop, url: str, seen: Any, size: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if CHROMIUM:
            stack.enter_context(opened(loop, url, driving=False))
        clients = BROWSERS - bool(CHROMIUM)
        child = multiprocessing.get_context("spawn").Process(target=watch, args=(url, clients, seen, size), daemon=True)
        child.start()
        before = seen.value
        loop.run(30.0, until=lambda: seen.value > before)
        yield
        child.terminate()
        child.join()


def cpu_s(process: int) -> float:
    """Seconds of a core that it has taken so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def held_after(loop: Loop, url: str) -> float:
    """Seconds from kill -9 of a browser that drives to the first step that does not move, of a loop at KILL_HZ."""
    loop.control.step_s = 1 / KILL_HZ
    with opened(loop, url, driving=True) as browser:
        loop.run(30.0, KILL_HZ, until=lambda: bool(loop.control.read().motion.any()))
        killed: list[float] = []

        def kill() -> None:
            killed.append(time.monotonic())
            os.killpg(browser.pid, signal.SIGKILL)

        threading.Timer(0.5 + float(np.random.default_rng().random()) / KILL_HZ, kill).start()
        loop.run(10.0, KILL_HZ, until=lambda: bool(killed) and not loop.control.read().motion.any())
        return time.monotonic() - killed[0]


def bursts(url: str, how: str, count: int, told: Connection) -> None:
    """The other process: Playwright presses STOP; tells the number of presses so far after each."""
    from playwright.sync_api import sync_playwright

    draw = np.random.default_rng(["mouse", "touch", "Escape"].index(how))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(has_touch=how == "touch").new_page()
        page.goto(url)
        page.wait_for_selector("#cameras canvas", timeout=60_000)
        box = page.locator("#stop").bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        press: Callable[[], None] = {
            "mouse": lambda: page.mouse.click(x, y),
            "touch": lambda: page.touchscreen.tap(x, y),
            "Escape": lambda: page.keyboard.press("Escape"),
        }[how]
        for _ in range(count):
            gap_ms = int(draw.integers(50, 801))
            for _ in range(int(draw.integers(2, 11))):
                press()
                told.send("pressed")
                page.wait_for_timeout(gap_ms)
            page.wait_for_timeout(500)
            told.send("over")
            page.wait_for_selector("#stopped", state="hidden", timeout=60_000)
        browser.close()


def stopped_by(loop: Loop, url: str, how: str, count: int) -> tuple[int, int, list[float]]:
    """Presses, bursts in which the robot was not stopped or was let go, and seconds from the first press to stopped."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=bursts, args=(url, how, count, theirs), daemon=True)
    child.start()
    presses, failed, over = 0, 0, 0
    took_s: list[float] = []
    pressed_s, moved = 0.0, False
    while over < count:
        loop.run(1 / HZ)
        stopped = loop.control.stopped
        if pressed_s and stopped and len(took_s) == over:
            took_s.append(time.monotonic() - pressed_s)
        moved |= len(took_s) > over and not stopped
        while ours.poll():
            if ours.recv() == "pressed":
                presses += 1
                pressed_s = pressed_s or time.monotonic()
            else:
                failed += moved or not loop.control.stopped
                over, pressed_s, moved, loop.control.stopped = over + 1, 0.0, False, False
    child.join(10.0)
    return presses, failed, took_s


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=4, help="of each kind (4)")
    arguments.add_argument("--seconds", type=float, default=15.0, help="of a round (15)")
    arguments.add_argument("--kills", type=int, default=10, help="of a browser that drives (10)")
    arguments.add_argument("--bursts", type=int, default=20, help="of presses of STOP, of each kind (20)")
    flags = arguments.parse_args()
    report = Report(f"page: a {HZ} Hz control loop, two {SIZE}x{SIZE} cameras, {BROWSERS} browsers")
    loop, spawn = Loop(), multiprocessing.get_context("spawn")
    seen, size = spawn.Value("q", 0), spawn.Value("q", 0)
    found: dict[str, tuple[list[float], list[float]]] = {"without": ([], []), f"{BROWSERS} browsers": ([], [])}
    images = sent = 0
    cpu = dict.fromkeys(found, 0.0)
    with page(loop.control.address) as (url, server):
        for _ in range(flags.rounds):
            for kind, (overruns, taken) in found.items():
                with browsers(loop, url, seen, size) if kind != "without" else contextlib.nullcontext():
                    before, bytes_before, cpu_before_s = seen.value, size.value, cpu_s(server)
                    loop.overruns, loop.taken = [], []
                    loop.run(flags.seconds)
                    images, sent = images + seen.value - before, sent + size.value - bytes_before
                    cpu[kind] += cpu_s(server) - cpu_before_s
                overruns += loop.overruns
                taken += loop.taken
        for kind, (overruns, taken) in found.items() if flags.rounds else ():
            for name, values in (("overrun", overruns), ("reading and showing", taken)):
                report.add(f"{name}, {kind}, p50", 1e3 * float(np.percentile(values, 50)), "ms")
                report.add(f"{name}, {kind}, p99", 1e3 * float(np.percentile(values, 99)), "ms")
        if flags.rounds:
            clients = BROWSERS - bool(CHROMIUM)
            shown = images / (flags.rounds * flags.seconds * clients * 2)
            report.add("images a second to each client, each camera", shown, "Hz")
            seconds = flags.rounds * flags.seconds
            report.add("sent to each client", sent / seconds / clients / 1e3, "kB/s")
            for kind, taken_s in cpu.items():
                report.add(f"of a core, the page's server, {kind}", 100 * taken_s / seconds, "%")
        if CHROMIUM:
            if held := [held_after(loop, url) for _ in range(flags.kills)]:
                report.add("killed browser, arm held after, median", 1e3 * float(np.median(held)), "ms")
                report.add("killed browser, arm held after, longest", 1e3 * max(held), "ms", 200)
            for how in ("mouse", "touch", "Escape") if flags.bursts else ():
                presses, failed, took_s = stopped_by(loop, url, how, flags.bursts)
                report.add(f"STOP by {how}: presses in {flags.bursts} bursts", presses, "")
                report.add(f"STOP by {how}: bursts in which the robot was not stopped, or was let go", failed, "", 0)
                report.add(f"STOP by {how}: stopped after, longest", 1e3 * max(took_s), "ms")
    loop.control.close()
    report.finish(flags.json)


if __name__ == "__main__":
    main()
