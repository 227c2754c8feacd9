"""The operator's place: keys of the terminal, and a person at the page."""

import threading
import time

import msgpack
import pytest

from agent.spec import UserError
from robot_server.control_client import Operator, question, seen


@pytest.fixture
def page(desk):
    operator = Operator(desk.address)
    yield operator
    operator.close()


def served(desk, ask):
    """What `ask()` returns, in a thread of its own, while the desk is served."""
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    while thread.is_alive():
        desk.serve()
        time.sleep(0.002)
    return found[0]


@pytest.mark.parametrize(
    ("key", "event"), [("y", "success"), ("n", "failure"), ("enter", "end"), ("backspace", "discard")]
)
def test_keys_of_the_terminal_are_events(desk, keys, key, event):
    desk.running = True
    keys.pressed = [key, "z"]
    assert desk.read().events == (event,)


def test_space_stops_and_only_a_capital_r_releases(desk, keys):
    keys.pressed = ["space"]
    assert desk.read().events == ("stop",) and desk.hold_reason
    keys.pressed = ["r", "y", "enter"]
    desk.read()
    assert desk.stopped
    keys.pressed = ["R"]
    desk.read()
    assert not desk.hold_reason


def test_a_key_releases_no_stop_that_came_after_it(desk, keys, page, logged):
    """Item 2: it was pressed while nobody read the keys, and somebody at the page pressed STOP meanwhile."""
    keys.pressed = ["space"]
    desk.serve()
    keys.pressed = ["R"]
    page.send(question("event", event="stop"))
    assert desk.socket.poll(20_000)
    desk.serve()
    assert desk.stopped and desk.numbers["stop"] == 2 and "release: Someone pressed STOP again" in "".join(logged())
    keys.pressed = ["R"]
    desk.serve()
    assert not desk.stopped


@pytest.mark.parametrize(("away_s", "released"), [(1.0, True), (3.0, False)])
def test_a_key_that_waited_long_releases_nothing(desk, keys, monkeypatch, away_s, released):
    keys.pressed = ["space"]
    desk.serve()
    now_s = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now_s + away_s)
    keys.pressed = ["R"]
    desk.serve()
    assert desk.stopped != released


def test_p_pauses_and_resumes(desk, keys):
    for paused in (True, False):
        keys.pressed = ["p"]
        desk.read()
        assert desk.paused == paused


def test_a_verdict_without_an_episode_is_not_taken(desk, keys, logged):
    keys.pressed = ["y"]
    assert desk.read().events == () and logged() == ["success: Too late or too early: no episode is running."]


def test_the_page_judges_as_the_keys_do(desk, page):
    def person():
        for event, state in (("failure", "ended"), ("success", "confirm"), ("end", "confirm")):
            while (told := page.ask("state").get("state", {})).get("state") != state:
                pass
            page.ask("event", event=event, **seen(told))

    thread = threading.Thread(target=person)
    thread.start()
    assert desk.ask("episode 1", "", lambda: False) == "success"
    thread.join()
    assert not desk.running and served(desk, lambda: page.ask("state"))["state"]["state"] == ""


def test_a_verdict_that_comes_late_is_not_taken(desk, page):
    """It was sent 5 s ago: by then another episode may have ended."""
    desk.running = True

    def late():
        page.send(msgpack.packb({"ask": "event", "event": "success", "sent_s": time.monotonic() - 5.0, "id": 1}))
        assert page.socket.poll(5000)
        return msgpack.unpackb(page.socket.recv_multipart()[0])

    answer = served(desk, late)
    assert answer["ignored"] == "success" and "Look again" in answer["why"]
    assert desk.read().events == ()


def test_a_verdict_of_the_episode_before_is_dropped(desk, keys):
    desk.running = True
    keys.pressed = ["y"]
    desk.serve()  # not read before the next one asks
    looks = []
    assert desk.ask("episode 2", "", lambda: looks.append(1) or len(looks) > 20) == ""


def test_a_terminal_that_closes_leaves_the_page(desk, keys, page):
    def closed():
        raise UserError("the terminal was closed")

    keys.person = closed
    assert served(desk, lambda: page.ask("event", event="stop"))["done"] == "stop" and desk.stopped
