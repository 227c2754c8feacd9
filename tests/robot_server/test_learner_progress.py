"""What the learner tells of its run reaches the operator's socket, and a lost connection its events."""

from link_data import PROGRESS, tell_progress

import robot_server.session
from agent.wire import messages
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.history import History


def test_the_learners_progress_reaches_the_history(bench, quick):
    mailbox, link = bench.pair()
    history = History()
    link.on_progress = history.learner_told
    tell_progress(mailbox, link.name)
    bench.turn(lambda: history.learner)
    told = history.answer(0, history.boot)
    assert told["learner"].pop("age_s") >= 0 and told["learner"] == PROGRESS
    assert [entry["q_data"] for entry in told["entries"]] == [0.4]


def test_a_progress_that_is_none_is_a_bad_message(bench):
    mailbox, link = bench.pair()
    told = []
    link.on_progress = told.append
    for stage in ("<script>", "online"):
        message = messages.pack("PROGRESS", **{**PROGRESS, "stage": stage})
        mailbox.listener.send(f"{link.name}-{link.boot}".encode(), message)
    bench.turn(lambda: told)
    assert link.counts["PROGRESS"] == 1 and told == [PROGRESS]


def test_a_connection_that_is_lost_and_there_again_is_logged_once_each(bench, logged):
    mailbox, link = bench.pair()
    assert logged() == []
    other = bench.restart(mailbox)
    bench.turn(lambda: link.connection.reconnects and link.handshake.done and not link.connection.error)
    lines = [line for line in logged() if "learner" in line or "connection" in line or "again" in line]
    assert lines == [f"the connection to {link.address} is lost", f"connected to {link.address} again"]
    assert other.robots


def test_episodes_are_in_the_history_with_their_outcome(bench, tiny_env, tiny_policy, monkeypatch):
    """As `act` runs them; one that a person discards is there, and counts for nothing."""
    _, link = bench.pair()
    control = Control("tcp://127.0.0.1:0")
    endings = [(), ("discard",), ("failure",)]

    def press(step):
        if step == 2 and (events := endings[len(tiny_env.seeds) - 1]):
            control._events += events

    tiny_env.on_step = press
    tiny_env.instruction = "wait for the end"
    tiny_env.state_names = {"state": ["x", "y", "z"]}
    monkeypatch.setattr(robot_server.session, "first_policy", lambda *_: tiny_policy)
    try:
        robot_server.session.act(tiny_env, link, RobotConfig(episodes=3, seed=5), lambda: False, control)
        found = [
            (entry["outcome"], entry["steps"]) for entry in control.history.entries() if entry["type"] == "episode"
        ]
        assert found == [("success", 5), ("discarded", 3), ("failure", 3)]
        assert control.history.names == {"action": [], "state": ["x", "y", "z"]} and control.drivable
        assert control.state()["task"] == "wait for the end"
    finally:
        control.close()
