"""The operator's page in a real Chromium, and what must not reach the robot through it."""

import asyncio
import contextlib
import functools
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import aiohttp
import numpy as np
import pytest
from browsing import SECONDS, Arm, by_browser, until

from agent import pretrain
from agent.data.episode_file import read_episode
from agent.spec import UserError
from robot_server import control as control_module
from robot_server.control_client import question
from tools.panel import __main__ as command
from tools.panel import server as panel
from tools.panel import site
from tools.panel.browser import finite
from tools.panel.robots import Robots


@by_browser
def test_keys_pads_and_gamepads_drive_the_arm(arm, page):
    page.keyboard.down("f")
    page.wait_for_timeout(200)
    assert not arm.command.enabled  # nobody has taken over
    page.keyboard.up("f")
    page.keyboard.press("t")
    until(lambda: arm.command.enabled)
    assert arm.command.gripper == 1  # as the robot's last action had it
    page.keyboard.down("w")
    page.keyboard.down("d")
    arm.moves(0.5, -0.5, 0, 0, 0, 0)
    page.keyboard.up("w")
    arm.moves(0, -0.5, 0, 0, 0, 0)
    page.keyboard.up("d")
    arm.moves(0, 0, 0, 0, 0, 0)
    page.keyboard.press("Space")
    until(lambda: arm.command.gripper == -1)
    box = page.locator("#pad-z").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 50)
    arm.moves(0, 0, 0.5, 0, 0, 0)
    page.mouse.up()
    arm.moves(0, 0, 0, 0, 0, 0)
    pad = {"mapping": "standard", "axes": [0, -1, 0.05, 0], "buttons": [{"pressed": False}] * 17}
    page.evaluate("pad => { navigator.getGamepads = () => [null, pad]; }", pad)
    arm.moves(0.5, 0, 0, 0, 0, 0)
    pad["buttons"] = [{"pressed": number == 3} for number in range(17)]
    page.evaluate("pad => { navigator.getGamepads = () => [null, pad]; }", {**pad, "axes": [0, 0, 0, 0]})
    until(lambda: arm.events == ["success"])
    page.keyboard.press("t")
    until(lambda: not arm.command.enabled)


@by_browser
def test_what_the_page_shows(arm, page):
    until(lambda: page.evaluate("document.querySelector('#cameras canvas').dataset.frames > 20"))
    pixel = "[...document.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data]"
    before = page.evaluate(pixel)
    until(lambda: page.evaluate(pixel) != before)
    assert page.locator("#cameras canvas").count() == 2 and page.inner_text("#robot") == "arm1"
    assert "4, 3 successes (75 %)" in page.inner_text("#episode") and page.inner_text("#what") == "policy acts"
    page.click("text=State")
    until(lambda: "state.1\t0.5" in page.inner_text("#vectors"))
    arm.close()
    page.wait_for_selector("text=no robot server answers", timeout=60_000)


@by_browser
def test_the_page_offers_what_the_robots_actions_have(arm, page):
    assert all(page.is_visible(name) for name in ("#pad-z", "#pad-tip", "#gripper"))
    arm.control.layout = (0, 1, 2, 4)
    page.wait_for_selector("#gripper", state="hidden")
    parts = page.evaluate(
        "[...document.querySelectorAll('.pads span')].map((part) => [part.textContent, !part.hidden])"
    )
    assert parts == [["lift", True], ["turn", False], ["pitch", True], ["roll", False]]
    arm.control.layout = (0, 1, 2)
    page.wait_for_selector("#pad-tip", state="hidden")


@by_browser
def test_words_and_a_latched_stop(arm, page):
    for button in ("Success", "Failure", "End", "Discard", "Pause"):
        page.click(f"#words >> text={button}")
    until(lambda: arm.events == ["success", "failure", "end", "discard", "pause"])
    page.wait_for_selector("#pause:has-text('Resume')")
    page.wait_for_timeout(800)
    page.keyboard.press("p")
    until(lambda: arm.events[-1] == "resume")
    page.keyboard.press("Escape")
    until(lambda: arm.control.stopped)
    page.wait_for_selector("#hint:has-text('stop: done')")  # the acknowledgement
    page.keyboard.press("Escape")
    until(lambda: arm.events.count("stop") == 2)
    assert arm.control.stopped and page.inner_text("#stop") == "STOP"
    page.wait_for_selector("#pause:has-text('Pause')")  # until the page has seen the resume, the key is for another one
    page.keyboard.press("p")
    until(lambda: arm.control.paused)
    page.wait_for_selector("#pause:has-text('Resume')")
    page.wait_for_timeout(800)
    page.keyboard.press("p")
    until(lambda: not arm.control.paused)
    assert arm.control.stopped  # what ends a pause ends no stop
    release(arm.control, page)


def hold_release(page, seconds):
    """Hold Release with the mouse for so long."""
    page.wait_for_selector("#release", state="visible")
    page.hover("#release")
    page.mouse.down()
    page.wait_for_timeout(1000 * seconds)
    page.mouse.up()


def release(control, page):
    """Hold Release until the arm is released, again where a busy machine broke the hold."""

    def held():
        if control.stopped:
            hold_release(page, 1.3)
            page.wait_for_timeout(1000)
        return not control.stopped

    until(held)


def released(arm, page):
    """Before the next burst."""
    arm.control.stopped = False
    page.wait_for_selector("#stopped", state="hidden")


BURSTS = [(2, 300), (2, 800), (4, 250), (10, 50)]  # presses, and ms between two
REPEATS = int(os.environ.get("STOP_BURST_REPEATS", "1"))  # how often all of them: see docs/measurements.md


@by_browser
@pytest.mark.parametrize(
    "how, bursts",
    [("mouse", BURSTS), ("touch", BURSTS[::3]), ("Escape", BURSTS[::3])],
    ids=["mouse", "touch", "Escape"],
)
def test_stop_only_ever_stops_however_often_it_is_pressed(arm, start_panel, chromium, how, bursts):
    """Item 1: it was a toggle, and Release came where STOP had been."""
    context = chromium()[1].new_context(has_touch=how == "touch")
    page = context.new_page()
    page.goto(start_panel(arm.control.address))
    page.wait_for_selector("#cameras canvas", timeout=60_000)
    box = page.locator("#stop").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    press = {
        "mouse": lambda: page.mouse.click(x, y),
        "touch": lambda: page.touchscreen.tap(x, y),
        "Escape": lambda: page.keyboard.press("Escape"),
    }[how]
    for presses, gap_ms in bursts * REPEATS:
        before, held = arm.control.numbers["stop"], []
        for _ in range(presses):
            press()
            page.wait_for_timeout(gap_ms)
            until(lambda before=before: arm.control.numbers["stop"] > before)
            held.append(arm.control.stopped)
        until(lambda before=before, presses=presses: arm.control.numbers["stop"] >= before + presses)
        page.wait_for_timeout(100)
        assert all(held) and arm.control.stopped, f"{presses} presses, {gap_ms} ms apart"
        released(arm, page)
    assert "resume" not in arm.events
    context.close()


@by_browser
def test_release_is_held_for_a_second_and_is_elsewhere(arm, page):
    page.click("#stop")
    page.wait_for_selector("#release", state="visible")
    stop, release = (page.locator(each).bounding_box() for each in ("#stop", "#release"))
    apart = release["y"] - (stop["y"] + stop["height"])
    assert apart > 200
    page.click("#release")
    hold_release(page, 0.6)
    page.hover("#release")
    page.mouse.down()
    page.wait_for_timeout(500)
    page.mouse.move(5, 300)  # away from it
    page.wait_for_timeout(800)
    page.mouse.up()
    page.focus("#release")
    page.keyboard.down("Space")
    page.wait_for_timeout(500)
    page.keyboard.up("Space")
    page.wait_for_timeout(800)
    assert arm.control.stopped
    page.keyboard.down("Enter")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")  # a STOP ends the hold
    page.wait_for_timeout(800)
    page.keyboard.up("Enter")
    assert arm.control.stopped
    page.keyboard.down("Space")
    until(lambda: not arm.control.stopped)
    page.keyboard.up("Space")


@by_browser
def test_a_stop_of_somebody_else_during_the_hold_stays_and_the_page_says_so(arm, page):
    page.click("#stop")
    page.wait_for_selector("#release", state="visible")
    page.hover("#release")
    page.mouse.down()
    page.wait_for_timeout(400)
    arm.control.latch_stop()
    page.wait_for_selector("#alert:has-text('Someone pressed STOP again')")
    page.wait_for_timeout(1000)
    page.mouse.up()
    assert arm.control.stopped


@by_browser
def test_a_stalled_release_is_refused_and_the_page_says_so(arm, page):
    """Item 2: the robot refuses what the page could not know of."""
    page.click("#stop")
    page.wait_for_selector("#release", state="visible")
    page.evaluate("const held = socket.send.bind(socket); socket.send = (text) => setTimeout(() => held(text), 600); 0")
    page.hover("#release")
    page.mouse.down()
    page.wait_for_timeout(1200)  # the release is on its way
    arm.control.latch_stop()
    page.mouse.up()
    page.wait_for_selector("#alert:has-text('Someone pressed STOP again')")
    assert arm.control.stopped


@by_browser
def test_a_page_of_another_site_gets_nothing_into_the_robots_socket(arm, chromium, tmp_path):
    """Item 3: the body of a cross-origin POST was taken for the frames of a ZMTP/1.0 peer."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    taken = []
    arm.control.answer = lambda *question: taken.append(question)
    stop = question("event", event="stop")
    stops = (bytes([len(stop) + 1, 0]) + stop) * 200  # after empty frames, which end where a frame begins, or one later
    bodies = [list(b"\1" * filler + stops) for filler in (1000, 1001)]
    page = chromium()[1].contexts[0].new_page()
    page.goto(f"http://127.0.0.1:{site.server_port}/")
    target = arm.control.address.replace("tcp", "http")
    ended = page.evaluate(
        """async ([url, bodies]) => {
          const posts = [...bodies.map((body) => new Uint8Array(body)), "x".repeat(300000)];
          const [method, mode] = ["POST", "no-cors"];
          const post = (body) => fetch(url, { method, mode, body, signal: AbortSignal.timeout(5000) });
          const socket = new WebSocket(url.replace("http", "ws"));
          return Promise.all(posts.map((body) => post(body).then(() => 'read', () => 'refused')));
        }""",
        [target, bodies],
    )
    site.shutdown()
    assert ended == ["refused"] * 3 and not taken and not arm.control.stopped and not arm.control.faults.counts


@by_browser
def test_a_stop_that_the_robot_does_not_confirm_is_said_and_repeated(start_panel, chromium):
    """The page said so in the small print only, and nobody was stopped when the robot server was back."""
    with tempfile.TemporaryDirectory() as folder:
        first = Arm(f"ipc://{folder}/a.sock")
        page = chromium()[1].contexts[0].new_page()
        page.goto(start_panel(first.control.address))
        page.wait_for_selector("#cameras canvas", timeout=60_000)
        first.close()
        page.wait_for_selector("text=no robot server answers", timeout=60_000)
        page.click("#stop")
        page.wait_for_selector("#alert:has-text('STOP is not confirmed')")
        second = Arm(first.control.address)
        try:
            until(lambda: second.control.stopped)
            page.wait_for_selector("#alert:has-text('STOP')", state="hidden")
            number = second.control.numbers["stop"]
            release(second.control, page)
            page.wait_for_timeout(1500)
            assert not second.control.stopped and second.control.numbers["stop"] == number  # confirmed: it is over
        finally:
            second.close()


@by_browser
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_the_page_survives_a_restart_of_the_robot_server(start_panel, chromium, transport):
    with tempfile.TemporaryDirectory() as folder:
        first = Arm(f"ipc://{folder}/a.sock" if transport == "ipc" else "tcp://127.0.0.1:*")
        page = chromium()[1].contexts[0].new_page()
        page.goto(start_panel(first.control.address))
        page.wait_for_selector("#cameras canvas", timeout=60_000)
        first.close()
        page.wait_for_selector("text=no robot server answers", timeout=60_000)
        second = Arm(first.control.address)
        try:
            page.wait_for_selector("#what:has-text('policy acts')", timeout=60_000)
            assert not second.control.stopped
            page.click("#stop")
            until(lambda: second.control.stopped)
            release(second.control, page)
        finally:
            second.close()


@by_browser
def test_two_taps_on_pause_stay_a_pause(arm, page):
    page.click("#pause")
    page.wait_for_selector("#pause:has-text('Resume')")
    page.evaluate("() => { pausedAt = performance.now() - 300; document.getElementById('pause').click(); }")
    until(lambda: arm.events == ["pause", "pause"])
    assert arm.control.paused


@by_browser
def test_a_browser_that_is_killed_in_a_motion_holds_the_arm(arm, start_panel, chromium):
    process, browser = chromium()
    page = browser.contexts[0].new_page()
    page.goto(start_panel(arm.control.address))
    page.wait_for_selector("#cameras canvas", timeout=60_000)
    page.keyboard.press("t")
    page.keyboard.down("w")
    arm.moves(0.5, 0, 0, 0, 0, 0)
    os.killpg(process.pid, signal.SIGKILL)
    arm.moves(0, 0, 0, 0, 0, 0)
    assert arm.control.state()["driven"] == "held" and arm.command.gripper == 1


@by_browser
def test_a_page_that_is_not_looked_at_does_not_drive(arm, page):
    page.keyboard.press("t")
    page.keyboard.down("w")
    arm.moves(0.5, 0, 0, 0, 0, 0)
    page.evaluate("window.dispatchEvent(new Event('blur'))")
    arm.moves(0, 0, 0, 0, 0, 0)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: arm.control.state()["driven"] == "held")
    assert page.inner_text("#take") == "Take over"  # it does not go on by itself
    page.close()
    assert arm.control.state()["driven"] == "held"


@by_browser
def test_a_person_records_an_episode_in_the_browser_and_it_trains(tmp_path, chromium):
    out = tmp_path / "demos"
    command = [
        sys.executable,
        "-m",
        "tools.collect",
        "--env",
        "sim",
        "--task",
        "Lift",
        "--horizon",
        "400",
        "--out",
        out,
    ]
    command += ["--device", "browser", "--episodes", "1", "--listen", "127.0.0.1:0", "--speed", "1"]
    collect = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = next(found[0] for line in collect.stderr if (found := re.search(r"http://\S+", line)))
        page = chromium()[1].contexts[0].new_page()
        page.goto(address)
        page.wait_for_selector("#cameras canvas", timeout=60_000)
        page.click("text=State")
        page.wait_for_selector("#vectors th:text-is('ee_pos.x')")
        page.wait_for_selector("#to-recorded:has-text('recorded episodes')")
        page.keyboard.press("t")
        page.keyboard.down("f")
        until(lambda: re.search(r"step (1[5-9]|[2-9]\d)", page.inner_text("#episode")))
        page.keyboard.up("f")
        page.keyboard.press("Space")
        shown = lambda: int(re.search(r"step (\d+)", page.inner_text("#episode"))[1])  # noqa: E731
        before = shown()
        until(lambda: shown() > before + 10)  # with the gripper closed, however slowly this machine makes steps
        page.keyboard.press("y")
        said, wrong = collect.communicate(timeout=60)
    finally:
        collect.kill()
    assert collect.returncode == 0, wrong
    episode = read_episode(out / "episode_000000.hdf5")
    assert episode.meta["marked"] == "success" and episode.meta["policy"] == "browser" and "1 of 1" in said
    down = episode.actions[:, 2] < 0
    assert down.sum() > 4 and (episode.actions[down, :2] == 0).all() and set(episode.actions[:, -1]) == {-1, 1}
    hand = episode.observations["proprio"]
    assert np.abs(hand[-1, :3] - hand[0, :3]).max() > 0.02  # metres
    frames = episode.observations["agentview"]
    assert (frames[0] != frames[-1]).any()
    where = ["--data", str(out), "--out", str(tmp_path / "o.pt"), "--run", str(tmp_path / "run")]
    small = ["--offline.batch", "8", "--features", "8", "--critics", "2", "--critic-hidden", "8", "--channels", "4,4"]
    pretrain.main([*where, *small, "--strides", "2,2", "--updates", "3", "--device", "cpu"])
    assert (tmp_path / "o.pt").exists()


# Without a browser: what others may try -------------------------------------------------------------------------------


def talk(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, SECONDS))


async def status(url, **headers):
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers


async def opened(url, messages, headers=None):
    """Send messages (functions of what was told last) to the page's socket; the code it was closed with, if it was."""
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url + "ws", headers=headers or {"Origin": url.rstrip("/")}) as socket:
            for message in messages:
                told = {}
                while told.get("away", "not heard yet"):
                    told = json.loads(text) if isinstance(text := (await socket.receive()).data, str) else {}
                await socket.send_str(message(told))
            for _ in range(60):
                answer = await socket.receive()
                if answer.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                    return socket.close_code
                if '"late": 1' in str(answer.data):
                    return "late"


def test_other_sites_are_kept_out(arm, start_panel):
    url = start_panel(arm.control.address)
    assert talk(status(url))[0] == talk(status(url + "panel.js"))[0] == 200
    assert talk(status(url, Host="evil.example"))[0] == 403
    assert talk(status(url + "..%2fpanel.py"))[0] == talk(status(url + "nothing.html"))[0] == 404
    for headers in ({"Origin": "http://evil.example"}, {"X": "no origin"}):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            talk(opened(url, [], headers))
    assert "default-src 'none'" in talk(status(url))[1]["Content-Security-Policy"]


def test_a_token_is_asked_for(arm, start_panel):
    url = start_panel(arm.control.address, "--token", "sesame")
    plain, _, _ = url.partition("?")
    assert url.endswith("?token=sesame")
    cookie = "panel_token_" + plain.rstrip("/").rpartition(":")[2]
    for wrong in ({}, {"Cookie": f"{cookie}=open"}, {"Cookie": "panel_token_8081=sesame"}):  # of a page at another port
        assert talk(status(plain, **wrong))[0] == talk(status(plain + "panel.js", **wrong))[0] == 403
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            talk(opened(plain, [], {"Origin": plain.rstrip("/"), **wrong}))
    code, headers = talk(status(url))
    assert (
        code == 302
        and headers["Location"] == "/"
        and {"HttpOnly", "SameSite=Strict"} <= set(headers["Set-Cookie"].split("; "))
    )
    assert headers["Set-Cookie"].startswith(f"{cookie}=sesame;")  # beside those of other ports
    assert talk(status(plain, Cookie=f"{cookie}=sesame"))[0] == 200
    assert talk(status(plain + "?token=sesam"))[0] == 403


def test_so_many_pages_and_whoever_used_theirs_keeps_it(arm, start_panel):
    """A page that is left open by a loop must not take the robot's computer, nor keep out whoever wants to stop it."""
    url = start_panel(arm.control.address)

    async def open_many():
        async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as pages:

            async def one_more():
                socket = await session.ws_connect(url + "ws", headers={"Origin": url.rstrip("/")})
                await socket.receive()  # it is served
                return await pages.enter_async_context(socket)

            async def is_open(socket):
                began_s = time.monotonic() + 0.5
                while True:
                    message = await socket.receive()
                    if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                        return False
                    if message.type == aiohttp.WSMsgType.TEXT and message.json().get("seen", 0) > began_s:
                        return True

            async def use(socket):
                before = len(arm.events)
                await socket.send_json({"event": "stop"})
                while len(arm.events) == before:
                    await asyncio.sleep(0.01)

            first = await one_more()
            await use(first)
            quiet = [await one_more() for _ in range(panel.MAX_BROWSERS - 1)]
            newest = [await one_more() for _ in range(panel.MAX_BROWSERS - 1)]
            assert await is_open(first) and not any([await is_open(each) for each in quiet])
            for each in newest:
                await use(each)
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await one_more()
            async with session.get(url + "ws", headers={"Origin": url.rstrip("/")}) as refused:
                assert "too many pages are open" in await refused.text()
            await newest[0].close()
            end_s = time.monotonic() + SECONDS / 2
            while True:  # there is room again
                try:
                    return await one_more()
                except aiohttp.WSServerHandshakeError:
                    assert time.monotonic() < end_s
                    await asyncio.sleep(0.05)

    talk(open_many())


HALF_SENT = {
    "a request": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "nothing": b"",
    "a body": b"POST /api/episodes HTTP/1.1\r\nHost: %s\r\nOrigin: http://%s\r\nContent-Length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("what", HALF_SENT)
def test_half_sent_requests_keep_nobody_from_stopping_the_robot(arm, start_panel, demos, what):
    """Item 9: 1,100 of them made the page unreachable, STOP included."""
    url = start_panel(arm.control.address, "--episodes", str(demos), files=512)
    port = int(re.search(r":(\d+)/", url)[1])
    host = f"127.0.0.1:{port}".encode()
    data = HALF_SENT[what] % ((host, host) if b"%s" in HALF_SENT[what] else ())
    headers = {"Origin": url.rstrip("/")}

    async def stopped(page):
        arm.control.stopped, end_s = False, time.monotonic() + 5
        await page.send_json({"event": "stop"})
        while not arm.control.stopped and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
        return arm.control.stopped

    async def attacked():
        async with aiohttp.ClientSession() as session, session.ws_connect(url + "ws", headers=headers) as before:
            with contextlib.ExitStack() as strangers:
                for _ in range(1100):
                    stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                    with contextlib.suppress(OSError):
                        stranger.sendall(data)
                assert await stopped(before)
                began_s = time.monotonic()
                async with session.get(url) as answer:
                    assert answer.status == 200 and "STOP" in await answer.text()
                async with session.ws_connect(url + "ws", headers=headers) as page:
                    assert await stopped(page)
                assert time.monotonic() - began_s < SECONDS

    talk(attacked())


def test_a_signal_ends_the_page_wherever_it_strikes():
    """An exception out of a signal's handler is lost in a destructor, and connections that end run many of those."""
    source = """
import asyncio, os, signal
from tools.panel import server as panel
from tools.panel.robots import Robots
from agent import cli
class Ending:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
def say(url):
    Ending()
cli.run(lambda argv: asyncio.run(panel.serve(lambda: Robots({"a": "tcp://127.0.0.1:1"}), "127.0.0.1:0", "", say)))"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_bytes_that_are_no_http_fill_no_log(arm, start_panel, capfd):
    """Each such connection left a traceback with everything that it had sent: 7 MB after 200 of them."""
    url = start_panel(arm.control.address)
    capfd.readouterr()
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + 1000 * b"\xff\0", 1000 * b"\xff\0", b"GET / HTTP/9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].strip("/"))), timeout=10) as stranger:
            stranger.sendall(data)
            while stranger.recv(1000):
                pass
    assert len(capfd.readouterr().err) < 500


DRIVE = {"motion": [1, 0, 0, 0, 0, 0], "gripper": 1, "enabled": True}


@pytest.mark.parametrize(
    "text",
    [
        "noise",
        "[]",
        "{}",
        "[" * 4000,
        '{"drive": {"motion": [1' + "0" * 400 + "]}}",
        '{"event": "explode"}',
        '{"drive": {"seen": 1e99}}',
        '{"drive": 3}',
    ],
)
def test_a_page_that_talks_nonsense_is_hung_up_on(arm, start_panel, text):
    assert talk(opened(start_panel(arm.control.address), [lambda told: text])) == 1008
    assert not arm.command.enabled and not arm.events


def test_a_command_that_was_long_under_way_does_not_drive(arm, start_panel, monkeypatch):
    url = start_panel(arm.control.address)
    old = lambda told: json.dumps({"drive": {**DRIVE, "seen": told["seen"] - 1}})  # noqa: E731
    assert talk(opened(url, [old])) == "late"
    assert not arm.command.enabled
    monkeypatch.setattr(control_module, "HELD_S", 5.0)  # a busy machine
    fresh = lambda told: json.dumps({"drive": {**DRIVE, "seen": told["seen"]}})  # noqa: E731
    talk(opened(url, [fresh] * 20))
    until(lambda: arm.command.enabled)


def test_numbers_that_json_has_no_word_for():
    told = finite({"a": float("nan"), "b": [1.0, float("inf"), {"c": -float("inf")}], "d": "x"})
    assert json.dumps(told, allow_nan=False) == '{"a": null, "b": [1.0, null, {"c": null}], "d": "x"}'


@pytest.mark.parametrize("text", ["127.0.0.1:99999", "127.0.0.1:-5", "8080", "robot:8080", "127.0.0.1:", "127.0.0.1:x"])
def test_an_impossible_address_is_named(text):
    with pytest.raises(UserError, match="--listen"):
        site.parse_listen(text)


def test_beyond_this_computer_there_is_a_token():
    said = []

    async def main():
        serving = panel.serve(lambda: Robots({"a": "tcp://127.0.0.1:9"}), "0.0.0.0:0", "", said.append)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(serving, 3)

    asyncio.run(main())
    urls = [re.fullmatch(r"http://([^/]+):\d+/\?token=\S{20,}", each)[1] for each in said]
    assert urls and not {"0.0.0.0", "127.0.0.1"} & set(urls)
    assert site.parse_listen("[::1]:80") == ("::1", 80, True) and not site.parse_listen("0.0.0.0:80")[2]


def test_a_taken_address_is_a_user_error(start_panel, arm, capsys):
    port = re.search(r":(\d+)/", start_panel(arm.control.address))[1]
    with pytest.raises(UserError, match="in use"):
        command.main(["--robot", arm.control.address, "--listen", f"127.0.0.1:{port}"])


@by_browser
def test_motors_have_a_line_each_and_red_where_one_is_above_its_limit(arm, page):
    assert page.locator("#motors-card").is_hidden()
    motors = {
        "elbow": {"load": 91.4, "current": 650.0, "temperature": 41.0, "over": ["load"]},
        "wrist": {"temperature": 30.0},
        "gripper": {"load": 12.0, "relaxed": True},
        "base": {"load": 0.0, "error": "overload"},
    }
    arm.control.about = lambda: {"robot": "arm1", "motors": motors}
    page.locator("#motors dt", has_text="base").wait_for(timeout=60_000)
    assert page.locator("#motors dt").all_text_contents() == ["elbow", "wrist", "gripper", "base"]
    lines = ["91 %  650 mA  41 °C", "30 °C", "12 %  relaxed", "0 %  overload"]
    assert page.locator("#motors dd").all_text_contents() == lines
    assert page.locator("#motors dd.bad").all_text_contents() == [lines[0], lines[3]]
