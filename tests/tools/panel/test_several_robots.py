"""Several robot servers on one page: each is seen and stopped, STOP ALL stops all, and one that is away delays none."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile

import aiohttp
import pytest
from browsing import Arm, by_browser, until

from robot_server.control_address import bound


@pytest.fixture
def arms(monkeypatch, tmp_path):
    """Two robot servers where tools.panel looks for them: arm1, arm2."""
    with tempfile.TemporaryDirectory() as short, contextlib.ExitStack() as stack:
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", short)
        made = {name: Arm(bound("auto", name), name) for name in ("arm1", "arm2")}
        for arm in made.values():
            stack.callback(arm.close)
        yield made


@contextlib.contextmanager
def panel(*flags):
    """The address of the page of a tools.panel."""
    command = [sys.executable, "-m", "tools.panel", "--listen", "127.0.0.1:0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().removeprefix("page: ").strip()
    finally:
        process.terminate()
        process.communicate()


def stopped(arms):
    return [name for name, arm in arms.items() if arm.control.stopped]


def opened(chromium, url):
    page = chromium()[1].contexts[0].new_page()
    page.goto(url)
    page.wait_for_selector("#robots div:nth-child(2) .pill:has-text('policy acts')", timeout=60_000)
    return page


def talk(url, ask):
    """ask(socket, first): what a page does that shows arm1 and has heard `first` of it."""

    async def main():
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url + "ws?robot=arm1", headers={"Origin": url.rstrip("/")}) as socket:
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT and (first := message.json()).get("robots"):
                        return await ask(socket, first)

    return asyncio.run(asyncio.wait_for(main(), 30))


@by_browser
def test_each_robot_has_its_stop_and_all_have_one(arms, chromium):
    with panel() as url:
        page = opened(chromium, url)
        assert page.locator("#robots a").all_text_contents() == ["arm1", "arm2"]
        assert page.locator("#robot").text_content() == "arm1" and page.locator("#robots button:visible").count() == 1
        page.click("text=STOP arm2")
        until(lambda: stopped(arms) == ["arm2"])
        page.wait_for_selector("#robots div:nth-child(2) .pill:has-text('stopped')")
        assert page.locator("#release").is_hidden()  # that is on arm2's page
        page.click("#stop-all")
        until(lambda: stopped(arms) == ["arm1", "arm2"])
        page.wait_for_selector("#release", state="visible")
        numbers = [arm.control.numbers["stop"] for arm in arms.values()]
        page.wait_for_timeout(1300)  # confirmed by both: nothing is sent again
        assert page.locator("#alert").is_hidden()
        assert [arm.control.numbers["stop"] for arm in arms.values()] == numbers
        page.click("#robots a:has-text('arm2')")
        page.wait_for_selector("#robot:has-text('arm2')")
        page.wait_for_selector("text=STOP arm1")


@by_browser
def test_escape_stops_all_and_who_does_not_confirm_is_named(arms, chromium):
    with panel() as url:
        page = opened(chromium, url)
        arms["arm2"].close()
        page.wait_for_selector("#robots div:nth-child(2) .pill:has-text('away')", timeout=60_000)
        page.keyboard.press("Escape")
        until(lambda: arms["arm1"].control.stopped)
        page.wait_for_selector("#alert:has-text('STOP is not confirmed by arm2.')")
        again = Arm(arms["arm2"].control.address, "arm2")
        try:
            until(lambda: again.control.stopped)
            page.wait_for_selector("#alert:has-text('not confirmed')", state="hidden")
        finally:
            again.close()


def test_a_robot_that_is_away_delays_no_stop_of_another(arms):
    """Whatever waits for it, nothing else of the page does: a STOP least of all."""

    async def ask(socket, first):
        for robot in ["arm2", "nobody", *["arm2"] * 20]:
            await socket.send_json({"event": "stop", "robot": robot})
        await socket.send_json({"event": "stop"})
        while not arms["arm1"].control.stopped:
            await asyncio.sleep(0.005)
        await socket.send_json({"event": "pause"})  # the page has not been closed
        while not arms["arm1"].control.paused:
            await asyncio.sleep(0.005)

    with panel() as url:
        arms["arm2"].close()
        talk(url, ask)


def test_one_that_was_named_is_the_only_one(arms):
    async def ask(socket, first):
        return first

    with panel("--robot-name", "arm2") as url:
        told = talk(url, ask)
    assert [robot["robot"] for robot in told["robots"]] == ["arm2"] and told["state"]["robot"] == "arm2"
