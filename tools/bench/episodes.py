"""How soon the page of recorded episodes is of use with many episodes, its memory, and the clicks of a person's tasks.

  python -m tools.bench.episodes [--json FILE] [--episodes 1000] [--folder FOLDER]

Makes so many episodes of two 84x84 cameras in a temporary folder, or takes those of FOLDER: what is edited there is
undone. Then a Chromium opens the page of a panel that has never seen the folder, and of one that has. Of use: rows are
shown, and an episode that is clicked shows its images. CPU: of the panel and Chromium together until then, which other
programs on the computer do not lengthen. Memory is the share of each process (PSS), once the list has
been scrolled to its end and an episode has been played. The tasks: find the failed episodes, cut the idle start of one,
mark it as a success, undo both.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.episode_file import read_episode, write_episode
from agent.spec import Episode
from envs.start import module_command
from tools.common.report import Report, parser

SIZE, KINDS = 84, 20
IDLE = 12
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
USABLE_S, MOST_MB = 2.0, 300.0
WAIT_S = 600.0


def episode(seed: int) -> Episode:
    """One of KINDS: every third failed, and began idle."""
    rng, failed = np.random.default_rng(seed), seed % 3 == 0
    steps = 60 + seed
    down, right = np.mgrid[:SIZE, :SIZE]
    image = np.stack([2 * right, 2 * down, right + down], axis=-1).astype(np.uint8)
    images = np.repeat(image[None], steps + 1, axis=0)
    for step in range(steps + 1):
        at = 5 + 60 * step // steps
        images[step, 30:45, at : at + 12] = (200, 30, 30)
    images[:, ::12, ::12] = rng.integers(0, 255, (steps + 1, 7, 7, 3))
    actions = rng.uniform(-0.8, 0.8, (steps, 7)).astype(np.float32)
    actions[: IDLE * failed] = 0
    last = np.arange(steps) == steps - 1
    return Episode(
        observations={
            "front": images,
            "wrist": images[:, ::-1],
            "proprio": rng.normal(size=(steps + 1, 9)).cumsum(axis=0).astype(np.float32),
        },
        actions=actions,
        rewards=(last & (not failed)).astype(np.float32),
        terminated=last & (not failed),
        truncated=last & failed,
        success=last & (not failed),
        policy_versions=np.zeros(steps, np.int64),
        interventions=np.arange(steps) < 20 * (seed % 4 == 1),
        times_s=1.7e9 + np.arange(steps) / 10,
        observation_ages_s=np.zeros(steps, np.float32),
        action_latencies_s=np.zeros(steps, np.float32),
        meta={"robot": f"arm{seed % 2}", "policy": "scripted"},
    )


def fill(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"episode_{number:06d}.hdf5"
        if number < KINDS:
            write_episode(path, episode(number))
        else:
            shutil.copy(folder / f"episode_{number % KINDS:06d}.hdf5", path)


@contextlib.contextmanager
def panel(folder: Path, cache: Path) -> Iterator[tuple[str, int]]:
    """Where the page is, and the process that serves it."""
    command = module_command("tools.panel", "--robot", "tcp://127.0.0.1:9", "--listen", "127.0.0.1:0")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    process = subprocess.Popen(
        [*command, "--episodes", str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout
    try:
        yield process.stdout.readline().removeprefix("page: ").strip() + "recorded.html", process.pid
    finally:
        process.terminate()
        process.communicate()


def family(root: int) -> list[int]:
    """`root` and the processes below it."""
    parents = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(each.name)] = int((each / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def share_mb(process: int) -> float:
    """PSS of a process, in MB; 0 when it has gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    return 0.0


def cpu_s() -> float:
    """Seconds of a core that the panel and Chromium have taken so far."""
    total = 0
    for each in family(os.getpid())[1:]:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def renderers(root: int) -> list[int]:
    found = []
    for each in family(root):
        with contextlib.suppress(OSError):
            if b"--type=renderer" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


class Person:
    """Somebody at the page, who counts clicks and drags."""

    def __init__(self, page: Any) -> None:
        self.page, self.clicks = page, 0

    def click(self, place: str) -> None:
        self.page.click(place, timeout=1e3 * WAIT_S)
        self.clicks += 1

    def until(self, condition: Callable[[], Any]) -> None:
        end_s = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end_s:
                raise TimeoutError("the page does not do what it should")
            self.page.wait_for_timeout(10)

    def look(self, script: str) -> Any:
        return self.page.evaluate(script)

    def opened(self) -> bool:
        """Whether the images of the chosen episode are shown."""
        script = "[...document.querySelectorAll('#views canvas')].map((canvas) => canvas.dataset.step ?? '')"
        return bool(shown := self.look(script)) and all(shown)


def first_look(report: Report, person: Person, url: str, kind: str, count: int) -> None:
    with urllib.request.urlopen(url.replace("recorded.html", "api/episodes")) as answer:
        name = json.load(answer)["episodes"][0]["name"]
    urllib.request.urlopen(url.replace("recorded.html", f"api/episodes/{name}/picture")).close()  # its reader has begun
    began_s, before_s = time.perf_counter(), cpu_s()

    def took(what: str, target: float | None = None) -> None:
        report.add(f"{kind}: {what}", time.perf_counter() - began_s, "s", target)

    person.page.goto(url)
    person.page.wait_for_selector(".episode", timeout=1e3 * WAIT_S)
    took("rows are shown")
    person.click(".episode >> nth=1")
    person.until(person.opened)
    took("an episode's images are shown", USABLE_S)
    report.add(f"{kind}: CPU until then", cpu_s() - before_s, "s", USABLE_S)
    person.until(lambda: "reading" not in person.page.inner_text("#progress"))
    took(f"figures of all {count} are known")
    began_s = time.perf_counter()
    person.click("[data-outcome=failure]")
    person.until(lambda: " of " in person.page.inner_text("#found"))
    took("filtered, from the click", USABLE_S)
    person.click("[data-outcome=failure]")


def scroll_and_play(person: Person, count: int) -> None:
    height = person.look("document.querySelector('#list').scrollHeight")
    for part in range(40):
        person.look(f"document.querySelector('#list').scrollTop = {part / 39 * height}")
        person.page.wait_for_timeout(150)
    person.page.select_option("#speed", "8")
    person.page.click("#play")
    person.until(lambda: person.page.inner_text("#play") == "Play")


def tasks(report: Report, person: Person, folder: Path) -> None:
    def do(what: str, *places: str, done: Callable[[], Any]) -> None:
        before, began_s = person.clicks, time.perf_counter()
        for place in places:
            person.click(place)
        person.until(done)
        report.add(f"clicks: {what}", person.clicks - before, "")
        report.add(f"seconds of the page: {what}", time.perf_counter() - began_s, "s")

    do("find the failed episodes", "[data-outcome=failure]", done=lambda: " of " in person.page.inner_text("#found"))
    name = person.page.get_attribute(".episode >> nth=0", "data-name")
    path = folder / name
    whole = path.read_bytes()
    steps = len(read_episode(path))
    do(
        "open one",
        ".episode >> nth=0",
        done=lambda: person.page.inner_text("#name") == Path(name).stem and person.opened(),
    )
    do("cut its idle start", "#idle", "#remove", done=lambda: len(read_episode(path)) < steps)
    do("mark it as a success", "#success", done=lambda: read_episode(path).succeeded)
    do("undo the mark", "#undo", done=lambda: not read_episode(path).succeeded)
    do("undo the cut", "#undo", done=lambda: path.read_bytes() == whole)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--episodes", type=int, default=1000, help="how many are made (1000)")
    arguments.add_argument("--folder", type=Path, help="of episodes that are there already")
    flags = arguments.parse_args()
    if not CHROMIUM:
        raise SystemExit("no chromium on this machine (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder, cache = flags.folder or Path(temporary, "episodes"), Path(temporary, "cache")
        if not flags.folder:
            folder.mkdir()
            fill(folder, flags.episodes)
        count = len(list(folder.glob("*.hdf5")))
        report = Report(f"page of recorded episodes: {count} episodes")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for kind in ("first time", "again"):
            with panel(folder, cache) as (url, server):
                page = browser.new_page(viewport={"width": 1366, "height": 768})
                person = Person(page)
                first_look(report, person, url, kind, count)
                if kind == "again":
                    scroll_and_play(person, count)
                    report.add("memory: the panel's processes", sum(map(share_mb, family(server))), "MB", MOST_MB)
                    pages = max(map(share_mb, renderers(os.getpid())), default=0.0)
                    report.add("memory: the page in Chromium", pages, "MB", MOST_MB)
                    report.add("rows in the page", page.locator(".episode").count(), "")
                    tasks(report, person, folder)
                page.close()
        browser.close()
    report.finish(flags.json)


if __name__ == "__main__":
    main()
