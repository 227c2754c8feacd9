"""What a page can ask of the past: by number, in small answers, and never more than so much."""

import logging

import pytest

from robot_server import history as history_module
from robot_server.control import Control
from robot_server.control_client import Operator
from robot_server.history import ANSWER, LIMITS, History


def filled(episodes, events=0):
    history = History()
    for number in range(max(episodes, events)):
        if number < episodes:
            history.episode(number, "success" if number % 2 else "failure", 41, 6, 1.0)
        if number < events:
            history.event("stop", f"event {number}")
    return history


def mirrored(history, mirror=None):
    """What a page's server has after it has asked for everything."""
    mirror = mirror or History("page")
    while (mirror.boot, mirror.number) != (history.boot, history.number):
        told = history.answer(mirror.number, mirror.boot)
        assert len(told["entries"]) <= ANSWER
        mirror.mirror(told)
    return mirror


def test_a_page_gets_everything_in_order_and_then_what_is_new():
    history = filled(ANSWER, events=ANSWER)
    mirror = mirrored(history)
    assert mirror.entries() == history.entries() and len(mirror.entries()) == 2 * ANSWER
    seen = mirror.number
    history.event("drive", "a person drives")
    assert [entry["text"] for entry in mirrored(history, mirror).entries(seen)] == ["a person drives"]


def test_a_restart_of_the_robot_server_begins_anew():
    mirror = mirrored(filled(ANSWER + 5))
    history = filled(2)
    assert mirrored(history, mirror).entries() == history.entries()


def test_it_keeps_the_newest_of_each_type():
    history = filled(LIMITS["episode"] + 10, events=LIMITS["event"] + 10)
    kept = {kind: [entry for entry in history.entries() if entry["type"] == kind] for kind in ("episode", "event")}
    assert {kind: len(entries) for kind, entries in kept.items()} == {k: LIMITS[k] for k in kept}
    assert kept["episode"][0]["episode"] == 10 and kept["event"][0]["text"] == "event 10"


def progress(updates, **more):
    figures = {"updates": updates, "q_data": updates / 10} if updates else {}
    return {"stage": "online", "env_steps": updates, "figures": figures, "warnings": [], **more}


def test_the_learners_figures_are_of_the_whole_run_half_as_dense_when_there_are_many():
    history = History()
    for updates in range(1, LIMITS["figures"] + 100):
        for _ in range(2):  # the same record, told again
            history.learner_told(progress(updates))
    figures = [entry["updates"] for entry in history.entries()]
    assert figures[0] == 1 and figures[-1] == LIMITS["figures"] + 99
    assert LIMITS["figures"] / 2 < len(figures) <= LIMITS["figures"] and figures == sorted(set(figures))
    told = history.answer(history.number, history.boot)
    assert not told["entries"] and told["learner"]["figures"]["updates"] == figures[-1]
    assert 0 <= told["learner"]["age_s"] < 60


def test_figures_after_those_that_a_resumed_learner_has_are_void():
    history = History()
    for updates in (100, 200, 300):
        history.learner_told(progress(updates))
    mirror = mirrored(history)
    for updates in (150, 250):  # it went on from its checkpoint
        history.learner_told(progress(updates))
    assert [entry["updates"] for entry in history.entries()] == [100, 150, 250]
    assert mirrored(history, mirror).entries() == history.entries()


def test_news_of_the_learner_have_a_number_also_without_figures():
    history = History()
    history.learner_told(progress(0, env_steps=3))
    assert history.number == 1 and mirrored(history).learner["env_steps"] == 3


def test_what_is_logged_is_an_event_until_it_is_closed():
    history = History()
    history.follow_log()
    logger = logging.getLogger("robot_server.session")
    logger.setLevel(logging.INFO)
    logger.warning("the arm is held: %s", "a \x1b[31mjoint\n", extra={"kind": "stop"})
    logger.info("episode 3: 41 steps", extra={"kind": "episode"})  # that is an entry of its own
    logging.getLogger("robot_server.link").warning("the connection is lost")
    logging.getLogger("agent.policy").warning("not ours")
    history.close()
    logger.warning("too late")
    found = [(entry["kind"], entry["text"], entry["warning"]) for entry in history.entries()]
    assert found == [
        ("stop", "the arm is held: a ?[31mjoint?", True),
        ("link", "the connection is lost", True),
    ]


def test_names_are_short_and_printable_and_news_once():
    history = History()
    for _ in range(2):
        history.name({"proprio": ["x\n", "y" * 90], "action": ()})
    assert history.names == mirrored(history).names == {"proprio": ["x?", "y" * 40], "action": []}
    assert history.number == 1


@pytest.fixture
def control():
    control = Control("tcp://127.0.0.1:0", lambda: {"robot": "arm"})
    yield control
    control.close()


def asked(control, monkeypatch, **more):
    person = Operator(control.address)
    monkeypatch.setattr(
        person.socket, "poll", lambda ms, poll=person.socket.poll: (control.wait(0.05), poll(50))[1] or 1
    )
    try:
        return person.ask("history", **more)
    finally:
        person.close()


def test_stops_pauses_and_drivers_are_events_of_the_operators_socket(control, monkeypatch):
    control.latch_stop()
    control.latch_stop("the gripper is too hot")
    control._lift("release")
    control.latch_pause("Put the cube back")
    assert control.state()["prompt"] == "Put the cube back"
    control.latch_pause()  # somebody pauses while a reset asks: it still asks
    assert control.state()["prompt"] == "Put the cube back"
    control._lift("resume")
    assert control.state()["prompt"] == ""
    told = asked(control, monkeypatch, since=0, boot=control.history.boot)
    assert [entry["text"] for entry in told["entries"]] == [
        "STOP pressed",
        "stopped: the gripper is too hot",
        "released",
        "paused",
        "resumed",
    ]
    assert told["number"] == control.state()["news"] == 5 and told["boot"] == control.state()["boot"]
    assert asked(control, monkeypatch, since="all", boot=3)["number"] == 5  # nonsense is answered from the beginning


def test_a_driver_who_falls_silent_and_comes_back(control):
    watch, seen = control._watch, []
    for driven, silent_s in (
        (False, 99.0),
        (True, 0.0),
        (True, 0.3),
        (True, 0.6),
        (True, 0.9),
        (True, 0.1),
        (False, 0.1),
    ):
        watch.look(driven, silent_s)
        seen.append([entry["text"] for entry in control.history.entries()][-1:])
    drives, held, back, given = (
        ["a person drives"],
        ["held: the driver is silent"],
        ["the driver is back"],
        ["the policy acts again"],
    )
    assert seen == [[], drives, drives, held, held, back, given]


def test_limits_are_what_the_page_keeps():
    """The page's own bounds, in history.js."""
    from tools.panel.site import PAGE

    source = (PAGE / "history.js").read_text()
    words = ", ".join(f"{kind}: {limit}" for kind, limit in history_module.LIMITS.items())
    assert f"const KEPT = {{ {words} }};" in source
