"""The two ends of the link together, over real sockets."""

import dataclasses
import time

import msgpack
import numpy as np
import pytest
import zmq

from agent.spec import Spec, SpecError, UserError
from agent.wire import messages
from robot_server import handshake
from robot_server import link as link_module


def test_a_step_that_does_not_fit_is_refused_at_once(bench, episode_steps):
    _, link = bench.pair()
    link.begin()
    step = episode_steps(1)[0]
    for bad in ({"reward": float("nan")}, {"action": np.zeros(3, np.float32)}, {"final_observation": None}):
        with pytest.raises(SpecError):
            link.send(dataclasses.replace(step, **bad))


def test_the_callers_arrays_are_free_after_send(bench, episode_steps, empty):
    _, link = bench.pair()
    step = episode_steps(1)[0]
    expected = step.observation["state"].copy()
    link.begin()
    link.send(step)
    step.observation["state"][:] = -1
    bench.turn(lambda: empty(link))
    np.testing.assert_array_equal(bench.episodes[0].observations["state"][0], expected)


def test_two_robots_at_once(bench, episode_steps, empty):
    mailbox = bench.mailbox()
    links = [bench.link(mailbox, name) for name in ("left", "right")]
    sent = {
        (name, number): episode_steps(8, seed=10 * number + len(name))
        for name in ("left", "right")
        for number in range(3)
    }
    for number in range(3):
        for link in links:
            link.begin()
        for t in range(8):
            for link in links:
                link.send(sent[link.name, number][t])
                link.pump()
    bench.turn(lambda: all(map(empty, links)))
    assert len(bench.episodes) == 6 and mailbox.steps == 48
    assert all(bench.same(e, sent[e.meta["robot"], e.meta["number"]]) for e in bench.episodes)
    assert sorted(robot.name for robot in mailbox.robots) == ["left", "right"]


def test_weights_newest_only(bench):
    mailbox, link = bench.pair()
    bench.turn(lambda: mailbox.robots[0].ask >= 0)
    assert link.newest_weights() is None and not link.has_weights(0.01)
    for version in range(1, 51):  # the robot is busy
        mailbox.offer(version, {"w": np.full(2, version, np.float32)})
    arrived = []
    receive = link.weights.receive
    link.weights.receive = lambda version, arrays: (arrived.append(version), receive(version, arrays))
    bench.turn(lambda: link.weights.received == 50)
    assert arrived == [1, 50]  # the answer to its waiting question, then the newest: nothing in between
    version, weights = link.newest_weights()
    assert version == link.version == 50
    np.testing.assert_array_equal(weights["w"], 50)
    assert not weights["w"].flags.writeable
    assert link.newest_weights() is None
    bench.turn(lambda: mailbox.robots[0].version == 50)


def test_a_restarted_learners_weights_are_taken_though_their_number_is_lower(bench, quick):
    mailbox, link = bench.pair()
    mailbox.offer(40, {"w": np.zeros(1, np.float32)})
    bench.turn(lambda: link.weights.received == 40)
    mailbox = bench.restart(mailbox)
    mailbox.offer(30, {"w": np.ones(1, np.float32)})
    bench.turn(lambda: link.weights.received == 30)


def test_lost_weights_are_asked_for_again(bench, monkeypatch, quick):
    mailbox, link = bench.pair()
    bench.turn(lambda: mailbox.robots[0].ask >= 0)
    with monkeypatch.context() as patch:
        patch.setattr(mailbox.listener, "send", lambda *ignored, **copy: None)
        mailbox.offer(1, {"w": np.zeros(1, np.float32)})
    bench.turn(lambda: link.weights.received == 1)


def test_a_lease_expires_and_can_be_released(bench):
    mailbox, link = bench.pair()
    assert link.hold_s == 0
    mailbox.pace(30.0)
    bench.turn(lambda: link.hold_s > 20)
    mailbox.pace(0.0)
    bench.turn(lambda: link.hold_s == 0)
    mailbox.pace(0.1)
    bench.turn(lambda: link.hold_s > 0)
    bench.close(mailbox)  # nobody is left to release it
    bench.turn(lambda: link.hold_s == 0)


def test_another_spec_is_a_user_error_that_names_it(bench):
    mailbox = bench.mailbox()
    bench.link(mailbox, spec=Spec({"front": (16, 8, 3)}, {"state": 3}, 2))
    with pytest.raises(UserError, match=r"'front': \(16, 8, 3\) against \(8, 8, 3\)"):
        bench.turn(lambda: False)


def test_another_protocol_is_a_user_error(bench, monkeypatch):
    mailbox = bench.mailbox()
    link = bench.link(mailbox)
    packed = messages.pack

    def from_the_future(kind, arrays=None, **fields):
        head, *body = packed(kind, arrays, **fields)
        return [msgpack.packb({**msgpack.unpackb(head), "v": 99}), *body]

    monkeypatch.setattr(handshake, "pack", from_the_future)
    with pytest.raises(UserError, match="refused: protocol version 99, here"):
        bench.turn(lambda: link.network is not None)


def test_a_learner_that_comes_back_with_another_network_is_a_user_error(bench, quick):
    mailbox, _ = bench.pair()
    bench.restart(mailbox, network={"features": 99})
    with pytest.raises(UserError, match="another network"):
        bench.turn(lambda: False)


def test_a_name_in_use(bench, monkeypatch):
    mailbox, link = bench.pair()
    monkeypatch.setattr(link_module, "HELLO_EVERY_S", 0.02)
    second = bench.link(mailbox)
    deadline_s = time.monotonic() + 0.2
    bench.turn(lambda: time.monotonic() > deadline_s)
    assert second.network is None  # it may be our own robot server that has just died: patience
    monkeypatch.setattr(handshake, "REFUSED_FOR_S", 0.0)
    with pytest.raises(UserError, match="'robot' is connected already"):
        bench.turn(lambda: False)
    monkeypatch.setattr(handshake, "REFUSED_FOR_S", 15.0)
    bench.close(link)
    bench.turn(lambda: second.network is not None)


@pytest.mark.parametrize("name", ["../x", "", "a b"])
def test_a_name_that_is_no_file_name(bench, name):
    with pytest.raises(UserError, match="robot_name"):
        bench.link("tcp://127.0.0.1:1", name)


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:5555", "tcp://127.0.0.1:99999", "nonsense"])
def test_an_impossible_or_open_address(bench, address):
    with pytest.raises(UserError, match=address):
        bench.link(address)


def test_bad_messages_from_the_learner_do_not_stop_the_robot(bench, episode_steps, caplog):
    """A raw ROUTER plays the learner."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        link = bench.link(f"tcp://127.0.0.1:{port}")
        bench.turn(lambda: router.poll(0))
        route, *hello = router.recv_multipart()
        assert messages.unpack(hello).kind == "HELLO"
        bench.play(link, episode_steps(2))
        link.begin()
        link.send(dataclasses.replace(episode_steps(1)[0], terminated=False, final_observation=None))
        bad = [
            [b"noise"], [b"", b""], [b""], [msgpack.packb({"v": 9, "kind": "ACK", "arrays": []})],
            messages.pack("HELLO", robot="a", boot="b", spec={}, env={}, outbox=[]),
            messages.pack("PACE", hold_s=float("nan")), messages.pack("PACE", hold_s=-1.0),
            messages.pack("PACE", hold_s=float("inf")),
            # that one has not ended
            messages.pack("ACK", robot="robot", boot=link.boot, episode=1, steps=1, receipt=""),
            messages.pack("WEIGHTS", {"w": np.zeros(3)}, version=1)[:1],
        ]  # fmt: skip
        harmless = [
            messages.pack("ACK", robot="robot", boot="other", episode=7, steps=1, receipt=""),
            messages.pack("RESEND", robot="robot", boot=link.boot, episode=0, step=10**6),
            messages.pack("RESEND", robot="robot", boot="other", episode=0, step=0),
        ]
        welcome = messages.pack("WELCOME", run="x", secret="x", learner_boot="x", spec={}, network={})
        for frames in [welcome, *bad, *harmless, messages.pack("DONE")]:
            router.send_multipart([route, *frames])
        bench.turn(lambda: link.done)
        assert sum(link.counts.values()) == len(bad) and link.hold_s == 0
        assert len(caplog.records) == 1 and str(port) in caplog.text
        bench.close(link)


def test_an_error_nobody_foresaw_drops_one_message_only(bench, monkeypatch, caplog):
    mailbox, link = bench.pair()

    def fail(message):
        raise RecursionError("too\ndeep")

    monkeypatch.setattr(link, "_on_pace", fail)
    mailbox.pace(5.0)
    bench.turn(lambda: link.counts["PACE"])
    mailbox.done()
    bench.turn(lambda: link.done)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "unexpected RecursionError at test_link.py" in line and "\n" not in line


def test_an_endless_hold_is_bounded(bench):
    mailbox, link = bench.pair()
    mailbox.pace(1e9)
    bench.turn(lambda: link.hold_s > 0)
    assert link.hold_s <= link_module.LONGEST_HOLD_S


def took(link, transition):
    """Seconds that one step's share of the link took."""
    started_s = time.perf_counter()
    link.send(transition)
    link.pump()
    return time.perf_counter() - started_s


def test_send_and_pump_do_not_wait_for_a_learner_that_is_not_there(bench, episode_steps):
    link = bench.link("tcp://127.0.0.1:1")
    link.begin()
    assert np.median([took(link, transition) for transition in episode_steps(300)]) < 0.002


def test_a_learner_that_does_not_listen_does_not_block_the_robot(bench, episode_steps, empty):
    """It is connected, but does not drain."""
    mailbox, link = bench.pair()
    bench.mailboxes.remove(mailbox)
    durations_s = []
    for seed in range(30):
        link.begin()
        durations_s += [took(link, transition) for transition in episode_steps(100, seed)]
    assert np.median(durations_s[-500:]) < 0.005
    bench.mailboxes.append(mailbox)
    bench.turn(lambda: empty(link))
    assert mailbox.steps == 3000 and len(bench.episodes) == 30
