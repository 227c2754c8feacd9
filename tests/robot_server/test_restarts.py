"""Restarts of either side and losses between them, over real sockets: nothing is lost and nothing comes twice."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from agent.spec import Episode

ROOT = Path(__file__).parent.parent.parent


def test_learner_first(bench, episode_steps, empty):
    mailbox, link = bench.pair(run="runs/a")
    assert link.network == {"features": 16, "channels": [8, 8]} and link.run == "runs/a"
    steps = episode_steps(7)
    bench.play(link, steps)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    env = {"name": "fake", "options": {"size": 8}}
    meta = {"robot": "robot", "boot": link.boot, "number": 0, "seed": 1, "env": env, "run": "runs/a"}
    assert episode.equals(Episode.from_transitions(steps, meta))
    assert mailbox.steps == 7


def test_robot_first(bench, episode_steps, empty):
    probe = bench.mailbox()
    bench.close(probe)
    link = bench.link(probe.address)
    assert not link.connect(0.05)
    bench.play(link, episode_steps(3))
    bench.mailbox(probe.address)
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1


@pytest.mark.parametrize("acknowledged", [True, False])
def test_learner_restarted_in_mid_episode(bench, episode_steps, empty, acknowledged):
    """Episode 0 is complete and on disk (or was lost with the learner), episode 1 is half sent."""
    mailbox, link = bench.pair()
    bench.acknowledge = acknowledged
    first, second = episode_steps(4, seed=1), episode_steps(9, seed=2)
    bench.play(link, first)
    link.begin({"seed": 2})
    for transition in second[:5]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps == 9 and empty(link) is False)
    if acknowledged:
        bench.turn(lambda: len(bench.links[0].outbox) == 1)
    else:
        bench.episodes.clear()  # nothing of it reached the disk
    mailbox = bench.restart(mailbox)
    bench.acknowledge = True
    for transition in second[5:]:
        link.send(transition)
        link.pump()
    bench.turn(lambda: empty(link))
    assert bench.identities(bench.episodes) == [("robot", link.boot, 0), ("robot", link.boot, 1)]
    assert bench.same(bench.episodes[0], first) and bench.same(bench.episodes[1], second)
    assert bench.episodes[1].meta["seed"] == 2  # the meta of its first step was sent again too
    assert not mailbox.counts and not link.counts


def test_a_lost_acknowledgement_is_given_again(bench, episode_steps, empty, monkeypatch, quick):
    mailbox, link = bench.pair()
    bench.acknowledge = False
    bench.play(link, episode_steps(3))
    bench.turn(lambda: bench.episodes)
    with monkeypatch.context() as patch:
        patch.setattr(mailbox.listener, "send", lambda *ignored, **copy: None)
        mailbox.acknowledge(bench.episodes[0])
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1 and mailbox.steps == 3


def test_steps_lost_on_the_way_are_sent_again(bench, episode_steps, empty, monkeypatch, quick):
    """Every third message that the robot thinks it has sent goes nowhere, the last step included."""
    mailbox, link = bench.pair()
    send, count = link.connection.send, 0

    def lossy(frames):
        nonlocal count
        count += 1
        return True if count % 3 == 0 else send(frames)

    monkeypatch.setattr(link.connection, "send", lossy)
    sent = [episode_steps(6, seed) for seed in range(3)]
    for steps in sent:
        bench.play(link, steps)
    bench.turn(lambda: empty(link))
    assert sorted(bench.identities(bench.episodes)) == [("robot", link.boot, number) for number in range(3)]
    for episode in bench.episodes:
        assert bench.same(episode, sent[episode.meta["number"]])
    assert mailbox.steps == 18


def test_a_dropped_connection_loses_nothing(bench, episode_steps, empty):
    """Through a proxy that dies and comes back: no side is restarted."""
    mailbox = bench.mailbox()
    context = zmq.Context()

    def proxy(port):
        front, back = context.socket(zmq.STREAM), context.socket(zmq.STREAM)
        front.bind(f"tcp://127.0.0.1:{port}")
        back.connect(mailbox.address)
        return front, back, {"to_robot": None, "to_learner": None}

    def carry(front, back, routes):
        for source, target, mine, other in (
            (front, back, "to_robot", "to_learner"),
            (back, front, "to_learner", "to_robot"),
        ):
            held = routes.setdefault("held_" + mine, [])
            while source.poll(0):
                route, data = source.recv_multipart()
                routes[mine] = route
                if data:
                    held.append(data)
            while held and routes[other]:
                target.send_multipart([routes[other], held.pop(0)])

    front, back, routes = proxy("0")
    address = front.getsockopt_string(zmq.LAST_ENDPOINT)
    link = bench.link(address)
    work = bench.work
    bench.work = lambda: (carry(front, back, routes), work())
    bench.turn(lambda: link.network is not None)
    steps = episode_steps(30)
    link.begin()
    for transition in steps[:20]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps >= 5)
    boot = link.handshake.learner_boot
    front.close(linger=0)
    back.close(linger=0)
    for transition in steps[20:25]:
        link.send(transition)
    deadline_s = time.monotonic() + 0.2
    while time.monotonic() < deadline_s:
        work()
    while True:  # the old socket lets go of the port in its own time
        try:
            front, back, routes = proxy(address.rpartition(":")[2])
            break
        except zmq.ZMQError:
            assert time.monotonic() < deadline_s + 2
    for transition in steps[25:]:
        link.send(transition)
    bench.turn(lambda: empty(link))
    assert link.handshake.learner_boot == boot
    assert len(bench.episodes) == 1 and bench.same(bench.episodes[0], steps) and mailbox.steps == 30
    front.close(linger=0)
    back.close(linger=0)
    context.term()


def test_a_busy_learner_survives_a_robot_that_vanishes():
    """Thousands of messages unread, the connection gone, heartbeats going on: libzmq aborted the process here."""
    source = """
import time, zmq
from agent.mailbox import mailbox
from agent.wire import messages
from agent.spec import Spec
messages.SOCKET_OPTIONS[zmq.HEARTBEAT_IVL] = 50
learner = mailbox.Mailbox("tcp://127.0.0.1:0", Spec({}, {"state": 1}, 1), {})
with zmq.Context() as context, context.socket(zmq.DEALER) as robot:
    robot.setsockopt(zmq.LINGER, 0)
    robot.setsockopt(zmq.SNDHWM, 0)
    robot.connect(learner.address)
    for _ in range(20_000):
        robot.send(bytes(10_000))
    time.sleep(0.3)
time.sleep(0.3)
while learner.wait(0.1):
    learner.drain()
print(sum(learner.counts.values()) > 1000)
"""
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_another_learners_weights_of_the_same_version_are_others(bench):
    mailbox, link = bench.pair()
    mailbox.offer(1, {"w": np.zeros(1, np.float32)})
    bench.turn(lambda: link.newest_weights())
    again = bench.restart(mailbox)
    again.offer(1, {"w": np.ones(1, np.float32)})
    found = []
    bench.turn(lambda: found.append(link.newest_weights()) or found[-1])
    assert found[-1][1]["w"] == 1
