"""No serious finding of axe-core in any page, light and dark: contrast, names for readers, roles, keyboard.

Needs axe-core: npm install -g axe-core@4, or in a folder of its own with NODE_PATH=FOLDER/node_modules.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from browsing import by_browser, until
from link_data import PROGRESS

SERIOUS = ("serious", "critical")


@functools.cache
def axe() -> str:
    """Its source; skips the test where it is not installed."""
    places = [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    if npm := shutil.which("npm"):
        places.append(
            Path(subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=True).stdout.strip())
        )
    for place in places:
        if (found := place / "axe-core" / "axe.min.js").is_file():
            return found.read_text()
    pytest.skip("no axe-core on this machine (npm install -g axe-core@4)")


@pytest.fixture
def page(chromium):
    axe()
    return chromium()[1].contexts[0].new_page()


def findings(page):
    """A line for each serious finding, light and dark."""
    page.evaluate(axe())  # by the debugger: the pages' own policy lets no script of others in
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        told = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [
            f"{scheme}: {each['id']}: {each['help']}: {node['target']} {node['failureSummary']}"
            for each in told["violations"]
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]
    return found


@by_browser
def test_the_live_page(arm, start_panel, folder, page):
    history = arm.control.history
    for number, outcome in enumerate(["success", "failure", "discarded", "success"]):
        history.episode(number, outcome, 41, 6 * (number % 2), 1.0)
    history.event("link", "the connection is lost", warning=True)
    for updates in (100, 200):
        history.learner_told({**PROGRESS, "figures": {"updates": updates, "q_data": 0.3, "return_to_go": 0.4}})
    page.goto(start_panel(arm.control.address, "--episodes", str(folder), "--offline-success", "0.6"))
    page.wait_for_selector("#newest-plot canvas")
    page.click("text=State")
    page.click("text=Keys")
    page.click("#log-kinds >> text=Stops")  # switched off
    until(lambda: page.locator("#vectors tr").count() == 9)
    assert findings(page) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#stopped")
    assert findings(page) == []


@by_browser
def test_the_page_of_recorded_episodes(arm, start_panel, folder, page):
    page.goto(start_panel(arm.control.address, "--episodes", str(folder)) + "recorded.html")
    page.wait_for_selector("#count:has-text('6 episodes')")
    assert findings(page) == []
    page.click("#more summary")
    page.click(".tick >> nth=0")
    page.click(".episode >> nth=1")
    page.wait_for_selector(".curve canvas")
    page.keyboard.press("[")
    page.click("#drop")
    page.wait_for_selector("#outcome:text-is('dropped')")
    assert findings(page) == []
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    assert findings(page) == []


@by_browser
def test_the_page_of_runs(runs_page, page):
    page.goto(runs_page)
    page.get_by_role("checkbox", name="b", exact=True).check()
    page.get_by_role("checkbox", name="a/online").check()
    page.wait_for_selector("#settings tr:has-text('calql.gamma')")
    assert findings(page) == []
    page.get_by_text("episode_000000.mp4").click()
    page.wait_for_selector("video")
    assert findings(page) == []
