"""The learner's end against a raw DEALER, which can say what no robot server would."""

import dataclasses
import math
import socket
import time

import msgpack
import numpy as np
import pytest
import zmq
from link_data import NETWORK, PROGRESS, PULL, SPEC, steps_of, tell_progress

from agent.env_record import EnvRecord
from agent.mailbox.mailbox import Mailbox
from agent.spec import Episode, Spec, UserError
from agent.wire import messages
from agent.wire.receipt import boot_secret, receipt


class RawRobot:
    def __init__(self, address, name="raw", boot="b0"):
        self.name, self.boot, self.wants_pongs = name, boot, False
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.routing_id = f"{name}-{boot}".encode()
        self.socket.connect(address)

    def send(self, kind, arrays=None, **fields):
        self.socket.send_multipart(messages.pack(kind, arrays, **fields))

    def hello(self, mailbox, outbox=(), spec=SPEC):
        self.send(
            "HELLO", robot=self.name, boot=self.boot, spec=spec.to_dict(), env={"name": "fake"}, outbox=list(outbox)
        )
        return self.expect(mailbox, "WELCOME", "REFUSE")

    def pull(self, have=-1, ask=0, outbox=()):
        self.send("PULL", **{**PULL, "have": have, "ask": ask, "outbox": list(outbox)})

    def step(self, episode, number, transition, meta=None):
        self.socket.send_multipart(messages.pack_step((self.name, self.boot, episode), number, transition, meta))

    def expect(self, mailbox, *kinds, seconds=30.0):
        """The next message, which must be of one of `kinds`, while the mailbox is drained."""
        message = self.next(mailbox, seconds)
        assert message is not None and message.kind in kinds, message
        return message

    def next(self, mailbox, seconds=30.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            mailbox.finished += mailbox.drain()
            if self.socket.poll(5):
                message = messages.unpack(self.socket.recv_multipart())
                if message.kind != "PONG" or self.wants_pongs:
                    return message
        return None


def ack(secret, number, steps, boot="b0"):
    proof = receipt(boot_secret(secret, "raw", boot), number, steps)
    return {"robot": "raw", "boot": boot, "episode": number, "steps": steps, "receipt": proof}


def drain_until(mailbox, condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "too late"
        mailbox.wait(0.01)
        mailbox.finished += mailbox.drain()


@pytest.fixture
def make_mailbox():
    made = []

    def make(address="tcp://127.0.0.1:0", **options):
        mailbox = Mailbox(address, SPEC, NETWORK, **options)
        mailbox.finished = []
        made.append(mailbox)
        return mailbox

    yield make
    for mailbox in made:
        mailbox.close()


@pytest.fixture
def mailbox(make_mailbox):
    return make_mailbox(run="runs/a", secret="s1")


@pytest.fixture
def make_robot():
    made = []

    def make(mailbox, *names):
        made.append(RawRobot(mailbox.address, *names))
        return made[-1]

    yield make
    for robot in made:
        robot.socket.close()


@pytest.fixture
def robot(mailbox, make_robot):
    robot = make_robot(mailbox)
    assert robot.hello(mailbox).kind == "WELCOME"
    return robot


def test_welcome_tells_the_run_and_its_network(mailbox, make_robot):
    fields = make_robot(mailbox).hello(mailbox).fields
    assert fields["run"] == "runs/a" and fields["secret"] == boot_secret("s1", "raw", "b0") != "s1"
    assert fields["network"] == NETWORK
    assert Spec.from_dict(fields["spec"]) == SPEC
    (seen,) = mailbox.robots
    assert (seen.name, seen.boot, seen.env, seen.version) == ("raw", "b0", EnvRecord("fake"), -1)
    assert seen.age_s < 3


def test_an_episode_arrives_bit_equal_and_is_acknowledged_when_stored(mailbox, robot):
    sent = steps_of(5)
    for number, transition in enumerate(sent):
        robot.step(7, number, transition, {"seed": 3, "env": {"name": "fake"}, "robot": "liar"} if number == 0 else {})
    drain_until(mailbox, lambda: mailbox.finished)
    (episode,) = mailbox.finished
    identity = {"robot": "raw", "boot": "b0", "number": 7, "run": "runs/a"}
    assert episode.equals(Episode.from_transitions(sent, {"seed": 3, "env": {"name": "fake"}, **identity}))
    episode.check(SPEC)
    assert mailbox.steps == 5
    robot.pull(outbox=[["raw", "b0", 7, 5]])
    assert robot.next(mailbox, 0.1) is None  # not on disk yet: no ACK, no RESEND
    mailbox.acknowledge(episode)
    assert robot.expect(mailbox, "ACK").fields == ack("s1", 7, 5)
    robot.step(7, 0, sent[0])  # sent again, it is acknowledged again, and not stored twice
    robot.expect(mailbox, "ACK")
    assert len(mailbox.finished) == 1 and mailbox.steps == 5


def test_dropped_repeated_and_reordered_steps(mailbox, robot):
    sent = steps_of(6)
    robot.step(0, 0, sent[0])
    robot.step(0, 0, sent[0])
    robot.step(0, 2, sent[2])
    robot.step(0, 3, sent[3])
    resend = robot.expect(mailbox, "RESEND").fields
    assert (resend["episode"], resend["step"]) == (0, 1)
    assert robot.next(mailbox, 0.1) is None  # asked once, not once for each step that came too early
    for number in (1, 2, 1, 3, 0, 4, 5, 5, 5, 4):
        robot.step(0, number, sent[number])
    drain_until(mailbox, lambda: mailbox.finished)
    robot.pull()
    drain_until(mailbox, lambda: True)
    assert mailbox.finished[0].equals(Episode.from_transitions(sent, mailbox.finished[0].meta))
    assert len(mailbox.finished) == 1 and mailbox.steps == 6


def test_a_lost_end_is_found_by_the_outbox_report(mailbox, robot):
    sent = steps_of(4)
    robot.step(0, 0, sent[0])
    robot.pull(outbox=[["raw", "b0", 0, 4], ["raw", "b0", 1, 2]])
    answers = [robot.expect(mailbox, "RESEND").fields for _ in range(2)]
    assert [(a["episode"], a["step"]) for a in answers] == [(0, 1), (1, 0)]


def test_an_ending_step_replaces_what_was_sent_beyond_it(mailbox, robot):
    sent = steps_of(4)
    for number in range(3):
        robot.step(0, number, sent[number])
    cut = dataclasses.replace(sent[1], truncated=True, final_observation=sent[2].observation)
    robot.step(0, 1, cut)
    drain_until(mailbox, lambda: mailbox.finished)
    assert mailbox.finished[0].equals(Episode.from_transitions([sent[0], cut], mailbox.finished[0].meta))


def test_stored_episodes_are_acknowledged_at_hello_and_others_asked_for(make_mailbox, make_robot):
    mailbox = make_mailbox(stored={("raw", "old", 4): 3}, secret="s1")
    robot = make_robot(mailbox)
    robot.send(
        "HELLO", robot="raw", boot="b0", spec=SPEC.to_dict(), env={},
        outbox=[["raw", "old", 4, 0], ["raw", "old", 5, 0], ["raw", "b0", 0, 2]],
    )  # fmt: skip
    robot.expect(mailbox, "WELCOME")  # first: nothing else is believed before it
    assert robot.expect(mailbox, "ACK").fields == ack("s1", 4, 3, boot="old")
    assert robot.expect(mailbox, "RESEND").fields == {"robot": "raw", "boot": "b0", "episode": 0, "step": 0}


def test_a_stranger_is_asked_who_it_is(mailbox, make_robot):
    robot = make_robot(mailbox)
    for number, transition in enumerate(steps_of(5)):
        robot.step(0, number, transition)
    robot.expect(mailbox, "WHO")
    assert robot.next(mailbox, 0.1) is None  # once, not five times
    assert mailbox.steps == 0 and not mailbox.robots


def test_weights_newest_only(mailbox, robot):
    for version in range(1, 51):
        mailbox.offer(version, {"w": np.full((2, 2), version, np.float32), "n": np.array(version)})
    assert robot.next(mailbox, 0.1) is None  # nothing unasked
    robot.pull()
    message = robot.expect(mailbox, "WEIGHTS")
    assert message.fields["version"] == 50
    np.testing.assert_array_equal(message.arrays["w"], np.full((2, 2), 50, np.float32))
    assert message.arrays["n"].shape == () and message.arrays["n"] == 50
    robot.pull(have=-1, ask=0)  # the same question again: its answer is on the way
    robot.pull(have=50, ask=1)  # a long poll: nothing newer yet
    assert robot.next(mailbox, 0.1) is None
    assert mailbox.robots[0].version == 50
    for version in range(51, 101):  # the robot is busy: one answer waits for it, not fifty
        mailbox.offer(version, {"w": np.zeros(1, np.float32)})
    assert robot.expect(mailbox, "WEIGHTS").fields["version"] == 51
    assert robot.next(mailbox, 0.1) is None
    robot.pull(have=51, ask=2)
    assert robot.expect(mailbox, "WEIGHTS").fields["version"] == 100


def test_offered_weights_are_a_snapshot(mailbox, robot):
    weights = {"w": np.ones(3, np.float32)}
    mailbox.offer(1, weights)
    weights["w"][:] = 9
    robot.pull()
    np.testing.assert_array_equal(robot.expect(mailbox, "WEIGHTS").arrays["w"], 1)


def test_pace(mailbox, robot, make_robot):
    other = make_robot(mailbox, "other")
    other.hello(mailbox)
    mailbox.pace(0.0)
    assert robot.next(mailbox, 0.05) is None  # no lease, nothing to release
    mailbox.pace(2.0)
    mailbox.pace(2.0)  # repeating it costs nothing
    mailbox.pace(0.0)
    for each in (robot, other):
        assert [each.expect(mailbox, "PACE").fields["hold_s"] for _ in range(2)] == [2.0, 0.0]
        assert each.next(mailbox, 0.05) is None


def bad_messages(good):
    head, body = msgpack.unpackb(good[0]), good[1:]
    nan = np.array([np.nan, 0, 0], np.float32)

    def with_array(name, array):
        arrays = {**messages.unpack(good).arrays, name: array}
        layout = msgpack.unpackb(messages.pack("WEIGHTS", arrays, version=0)[0])["arrays"]
        return [msgpack.packb({**head, "arrays": layout}), messages.pack("WEIGHTS", arrays, version=0)[1]]

    yield from ([b""], [b"noise", b"noise"], [b"\x80\x04\x95pickle"], good[:-1])
    yield [msgpack.packb({**head, "v": 99}), *body]
    yield [msgpack.packb({**head, "kind": "EXEC"}), *body]
    yield [msgpack.packb({**head, "step": -1}), *body]
    yield [msgpack.packb({**head, "reward": float("nan")}), *body]
    yield [msgpack.packb({**head, "robot": "../../root"}), *body]
    yield [msgpack.packb({**head, "truncated": True}), *body]  # an end without a final observation
    yield [msgpack.packb({**head, "meta": {"x": b"bytes"}}), *body]
    yield with_array("obs/state", nan)
    yield with_array("obs/state", np.zeros(4, np.float32))
    yield with_array("obs/state", np.zeros(3, np.float64))
    yield with_array("action", np.full(2, 3, np.float32))  # outside [-1, 1]
    yield messages.pack("ACK", robot="raw", boot="b0", episode=0, steps=1, receipt="")
    yield messages.pack("WEIGHTS", {"w": np.zeros(3)}, version=5)
    yield messages.pack("WHO")
    bad_spec = {"cameras": {}, "states": {"state": float("inf")}, "action_dim": 2}
    yield messages.pack("HELLO", robot="raw", boot="b0", spec=bad_spec, env={}, outbox=[])


def test_bad_messages_do_not_stop_a_good_robot(mailbox, robot, make_robot, caplog):
    bad, worse = make_robot(mailbox, "bad"), make_robot(mailbox, "worse")
    bad.hello(mailbox)
    sent = steps_of(40)
    for frames in ([b""] * 50, [*messages.pack_step(("worse", "b0", 0), 0, sent[0]), b"x"]):
        worse.socket.send_multipart(frames)  # is disconnected for it; what else is under way is lost
    bad_ones = list(bad_messages(messages.pack_step(("bad", "b0", 0), 0, sent[0])))
    for number, transition in enumerate(sent):
        robot.step(0, number, transition)
        bad.socket.send_multipart(bad_ones[number % len(bad_ones)])
    counted = sum(
        number % len(bad_ones) != len(bad_ones) - 1 for number in range(40)
    )  # the last is refused, not dropped
    drain_until(
        mailbox,
        lambda: (
            mailbox.finished
            and mailbox.counts.total() - mailbox.counts["disconnected"] - mailbox.counts["frames"] >= counted
        ),
    )
    assert mailbox.finished[0].equals(Episode.from_transitions(sent, mailbox.finished[0].meta))
    own = mailbox.counts.total() - mailbox.counts["disconnected"] - mailbox.counts["frames"]
    assert mailbox.steps == 40 and own == counted
    assert {"malformed", "protocol", "STEP", "ACK", "WEIGHTS", "WHO"} <= set(mailbox.counts)
    assert "bad" in caplog.records[0].getMessage()
    assert len(caplog.records) < 10
    bad.step(1, 0, steps_of(1)[0])  # and a robot that comes to its senses is heard
    drain_until(mailbox, lambda: len(mailbox.finished) == 2)


def test_a_bad_step_can_be_sent_again_rightly(mailbox, robot):
    sent = steps_of(2)
    robot.step(0, 0, dataclasses.replace(sent[0], reward=float("inf")))
    for number, transition in enumerate(sent):
        robot.step(0, number, transition)
    drain_until(mailbox, lambda: mailbox.finished)
    assert mailbox.counts == {"STEP": 1} and mailbox.steps == 2


def test_another_spec_is_refused_naming_what_differs(mailbox, make_robot):
    theirs = Spec({"front": (16, 8, 3), "wrist": (8, 8, 3)}, {"state": 3}, 4)
    refusal = make_robot(mailbox).hello(mailbox, spec=theirs).fields
    assert not refusal["retry"]
    for text in ("'front'", "(16, 8, 3) against (8, 8, 3)", "'wrist'", "action_dim: 4 against 2"):
        assert text in refusal["reason"]
    assert "'state'" not in refusal["reason"]
    assert not mailbox.robots


def test_another_task_is_refused_and_other_options_are_named(make_mailbox, make_robot, caplog):
    """Equal spaces, but not what the demonstrations show."""
    mailbox = make_mailbox(env=EnvRecord("fake", {"task": "reach", "horizon": 20}))

    def hello(boot, env):
        robot = make_robot(mailbox, "raw" + boot, boot)
        fields = {"robot": robot.name, "boot": boot, "spec": SPEC.to_dict(), "outbox": []}
        robot.send("HELLO", env=env, **fields)
        return robot.expect(mailbox, "WELCOME", "REFUSE")

    refused = hello("a", {"name": "fake", "options": {"task": "push", "horizon": 20}})
    assert refused.kind == "REFUSE" and "task: push against reach" in refused.fields["reason"]
    assert not caplog.text
    assert hello("b", {"name": "fake", "options": {"task": "reach", "horizon": 50}}).kind == "WELCOME"
    assert "robot 'rawb'" in caplog.text and "horizon: 50 against 20" in caplog.text
    refused = hello("c", {"name": "real"})
    assert refused.kind == "REFUSE" and "env: real against fake (link.other_env true" in refused.fields["reason"]
    mailbox = make_mailbox(env=EnvRecord("fake", {"task": "reach", "horizon": 20}), other_env=True)
    assert hello("d", {"name": "real"}).kind == "WELCOME"


def test_a_robot_that_observes_objects_otherwise_than_the_demonstrations_is_refused(make_mailbox, make_robot):
    mailbox = make_mailbox(env=EnvRecord("sim", {"privileged": True}))
    robot = make_robot(mailbox, "raw", "a")
    fields = {"robot": robot.name, "boot": "a", "spec": SPEC.to_dict(), "outbox": []}
    robot.send("HELLO", env={"name": "sim", "options": {"privileged": True, "object_in_base_frame": True}}, **fields)
    refused = robot.expect(mailbox, "WELCOME", "REFUSE")
    assert refused.kind == "REFUSE" and "object_in_base_frame: True against None" in refused.fields["reason"]


def test_an_episode_that_is_not_on_disk_yet_is_acknowledged_to_whoever_sent_it_last(mailbox, robot, make_robot):
    """Its robot server was restarted, and sends what it finds in the spool."""
    steps = steps_of(3)
    for number, transition in enumerate(steps):
        robot.step(0, number, transition)
    drain_until(mailbox, lambda: mailbox.finished)
    robot.socket.close()
    drain_until(mailbox, lambda: not mailbox.robots)
    again = make_robot(mailbox, "raw", "b1")
    assert again.hello(mailbox).kind == "WELCOME"
    again.boot = "b0"
    again.step(0, 2, steps[2])
    again.pull()
    again.wants_pongs = True
    assert again.expect(mailbox, "PONG")
    mailbox.acknowledge(mailbox.finished[0])
    assert again.expect(mailbox, "ACK").fields == ack("s1", 0, 3)


def test_another_protocol_is_refused(mailbox, make_robot):
    robot = make_robot(mailbox)
    robot.socket.send_multipart([msgpack.packb({"v": 99, "kind": "HELLO", "new": 1, "arrays": []})])
    reason = robot.expect(mailbox, "REFUSE").fields["reason"]
    assert "99" in reason and str(messages.PROTOCOL) in reason
    assert mailbox.counts["protocol"] == 1


def test_a_name_in_use_is_refused_until_its_owner_is_gone(mailbox, robot, make_robot, monkeypatch):
    second = make_robot(mailbox, "raw", "b1")
    refusal = second.hello(mailbox).fields
    assert refusal["retry"] and "'raw'" in refusal["reason"]
    robot.send("BYE")
    drain_until(mailbox, lambda: not mailbox.robots)
    assert second.hello(mailbox).kind == "WELCOME"
    third = make_robot(mailbox, "raw", "b2")
    assert third.hello(mailbox).kind == "REFUSE"
    monkeypatch.setattr("agent.mailbox.robots.LIVE_S", 0.0)  # as if the second had died long ago
    assert third.hello(mailbox).kind == "WELCOME"


def test_a_robot_whose_connection_has_ended_is_replaced_at_once(mailbox, robot, make_robot, monkeypatch):
    monkeypatch.setattr("agent.mailbox.robots.LIVE_S", math.inf)
    second = make_robot(mailbox, "raw", "b1")
    assert second.hello(mailbox).kind == "REFUSE"
    robot.socket.close()  # as its death would
    drain_until(mailbox, lambda: second.hello(mailbox).kind == "WELCOME")
    assert [seen.boot for seen in mailbox.robots] == ["b1"] and not mailbox.counts


@pytest.mark.parametrize("held", [False, True])
def test_an_episode_of_a_robot_that_was_killed_is_cut_short_once(mailbox, robot, make_robot, monkeypatch, held):
    """The next boot says what its spool holds; what is not there can only end with what has arrived."""
    sent = steps_of(6)
    for number in range(4):
        robot.step(0, number, sent[number], {"seed": 3} if number == 0 else {})
    robot.step(1, 0, sent[0])  # a single step has no observation after it
    drain_until(mailbox, lambda: mailbox.steps == 5)
    monkeypatch.setattr("agent.mailbox.robots.LIVE_S", 0.0)
    again = make_robot(mailbox, "raw", "b1")
    for _ in range(2):
        assert again.hello(mailbox, [["raw", "b0", 0, 0]] if held else []).kind == "WELCOME"
    if held:
        assert not mailbox.finished
        again.boot = "b0"
        for number in range(6):
            again.step(0, number, sent[number], {"seed": 3} if number == 0 else {})
        drain_until(mailbox, lambda: mailbox.finished)
        expected = sent
    else:
        expected = [*sent[:2], dataclasses.replace(sent[2], truncated=True, final_observation=sent[3].observation)]
    (episode,) = mailbox.finished
    assert episode.equals(
        Episode.from_transitions(expected, {"seed": 3, "robot": "raw", "boot": "b0", "number": 0, "run": "runs/a"})
    )
    assert mailbox.steps == len(expected) and not mailbox.counts
    mailbox.acknowledge(episode)


def test_drain_never_blocks_and_keeps_its_limit(mailbox, robot):
    started = time.perf_counter()
    assert mailbox.drain() == []
    assert time.perf_counter() - started < 1
    for number, transition in enumerate(steps_of(30)):
        robot.step(0, number, transition)
    deadline = time.monotonic() + 30
    while mailbox.steps < 7 and time.monotonic() < deadline:
        before = mailbox.steps
        mailbox.drain(limit=2)
        assert mailbox.steps - before <= 2
    assert mailbox.steps >= 7
    assert mailbox.wait(0.5)


def test_a_taken_port_is_named(mailbox):
    with pytest.raises(UserError, match=rf"{mailbox.address}.*in use.*another learner"):
        Mailbox(mailbox.address, SPEC, NETWORK)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:port", "tcp://127.0.0.1:99999", "ipc:///nowhere/at/all"])
def test_an_impossible_address_is_named(address):
    with pytest.raises(UserError, match=address):
        Mailbox(address, SPEC, NETWORK)


def test_an_address_beyond_this_machine_needs_insecure(make_mailbox):
    with pytest.raises(UserError, match=r"0\.0\.0\.0"):
        make_mailbox("tcp://0.0.0.0:0")
    assert make_mailbox("tcp://0.0.0.0:0", insecure=True).address


def test_close_frees_the_port(make_mailbox):
    mailbox = Mailbox("tcp://127.0.0.1:0", SPEC, NETWORK)
    mailbox.close()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(mailbox.address.rpartition(":")[2])))
    make_mailbox(mailbox.address)


def test_every_pull_is_answered_and_says_how_its_robot_is(mailbox, robot):
    robot.wants_pongs = True
    facts = {"acting": 7, "unacknowledged": 12, "spooled": 3, "reconnects": 2, "round_trip_s": 0.25}
    facts |= {"steps_timed": 40, "deadlines_missed": 3, "late_p50_s": 0.001, "late_p99_s": 0.5}
    robot.send("PULL", **{**PULL, **facts, "sent_s": 5.5})
    assert robot.expect(mailbox, "PONG").fields == {"sent_s": 5.5}
    (seen,) = mailbox.robots
    assert {name: getattr(seen, name) for name in facts} == facts


def test_a_pull_is_answered_with_the_runs_progress_too_but_not_each_of_many(mailbox, robot, monkeypatch):
    monkeypatch.setattr("agent.mailbox.delivery.ASK_AGAIN_S", 60.0)
    robot.wants_pongs = True
    robot.pull()
    assert robot.expect(mailbox, "PONG")
    tell_progress(mailbox, robot.name)
    robot.pull()
    robot.pull()
    assert robot.expect(mailbox, "PONG") and robot.expect(mailbox, "PROGRESS").fields == PROGRESS
    assert robot.expect(mailbox, "PONG") and not robot.next(mailbox, 0.2)


def test_steps_are_counted_by_robot_and_policies_have_an_age(mailbox, robot, make_robot, monkeypatch):
    other = make_robot(mailbox, "other")
    other.hello(mailbox)
    mailbox.offer(4, {"w": np.zeros(1, np.float32)})
    for number, step in enumerate(steps_of(3)):
        robot.step(0, number, step)
        robot.step(0, number, step)  # again: no new one
    robot.send("PULL", **{**PULL, "have": 4, "acting": 4})
    drain_until(mailbox, lambda: any(seen.acting for seen in mailbox.robots))
    robot.hello(mailbox)  # after a reconnect it goes on
    by_name = {seen.name: seen for seen in mailbox.robots}
    assert by_name["raw"].steps == 3 and by_name["other"].steps == 0
    robot.send("PULL", **{**PULL, "have": 4, "acting": 4})
    drain_until(mailbox, lambda: by_name["raw"].acting or mailbox.robots[0].acting or mailbox.robots[1].acting)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    ages = {seen.name: mailbox.policy_age_s(seen) for seen in mailbox.registry}
    assert 100 <= ages["raw"] < 130 and ages["other"] == 0


def test_a_probe_is_answered_and_leaves_nothing_behind(make_mailbox, make_robot):
    mailbox = make_mailbox(run="runs/a", env=EnvRecord("fake"))
    robot, prober = make_robot(mailbox), make_robot(mailbox, "prober")
    robot.hello(mailbox)
    mailbox.offer(3, {"w": np.zeros(1, np.float32)})
    spec = Spec({}, {"state": 4}, 2).to_dict()
    for asked, differences in (({}, 0), (SPEC.to_dict(), 0), (spec, 2)):
        prober.send(
            "PROBE", {"ballast": np.ones(9, np.uint8)}, spec=asked, env={"name": "fake"}, sent_s=1.5, answer_bytes=100
        )
        status = prober.expect(mailbox, "STATUS")
        assert len(status.fields.pop("differences")) == differences
        assert status.fields == {
            **{"run": "runs/a", "spec": SPEC.to_dict(), "env": {"name": "fake", "options": {}}},
            **{"version": 3, "robots": ["raw"], "sent_s": 1.5},
        }
        assert len(status.arrays["ballast"]) == 100
    prober.send("PROBE", spec={}, env={}, sent_s=0.0, answer_bytes=1 << 30)
    drain_until(mailbox, lambda: mailbox.counts["PROBE"] == 1)
    assert [seen.name for seen in mailbox.robots] == ["raw"] and mailbox.steps == 0


def test_bad_messages_are_counted_by_sender(mailbox, robot, make_robot):
    stranger = make_robot(mailbox, "stranger")
    for _ in range(3):
        stranger.socket.send(b"junk")
    robot.socket.send(b"junk")
    drain_until(mailbox, lambda: mailbox.counts["malformed"] == 4)
    assert mailbox.faults.senders == {"raw": 1, "unknown b'stranger-b0'": 3}


def test_a_robot_whose_actions_mean_something_else_is_refused(make_mailbox, make_robot, caplog):
    """A checkpoint of converted data has no environment; what its actions mean decides."""
    absolute = {"kind": "absolute", "quantity": "joint position", "low": [-89.0] * 2, "high": [89.0] * 2}
    mailbox = make_mailbox(env=EnvRecord(actions=absolute))

    def hello(boot, actions):
        robot = make_robot(mailbox, "raw" + boot, boot)
        fields = {"robot": robot.name, "boot": boot, "spec": SPEC.to_dict(), "outbox": []}
        robot.send("HELLO", env={"name": "real", "options": {}, "actions": actions}, **fields)
        return robot.expect(mailbox, "WELCOME", "REFUSE")

    for number, (changed, named) in enumerate(
        [
            ({"kind": "delta"}, "actions, kind: delta against absolute"),
            ({"low": [-8.9] * 2, "high": [8.9] * 2}, "actions, range: number 0 -8.9 to 8.9 against -89 to 89"),
            ({"kind": ["absolute"] * 900}, "the meaning of actions: 'kind' is malformed"),
        ]
    ):
        refused = hello(f"bad{number}", {**absolute, **changed})
        assert refused.kind == "REFUSE" and named in refused.fields["reason"]
    assert hello("good", absolute).kind == "WELCOME" and not caplog.text


def test_robots_do_not_age_while_the_learner_is_busy(mailbox, robot, make_robot, monkeypatch):
    """Item 21: an update may take longer than any silence; what they said meanwhile waits in the socket."""
    other = make_robot(mailbox, "other")
    other.hello(mailbox)
    monkeypatch.setattr("agent.mailbox.robots.LIVE_S", 2.0)
    robot.pull()
    time.sleep(2.5)
    assert {seen.name for seen in mailbox.robots} == {"raw", "other"}  # as far as the learner knows
    mailbox.drain()
    assert [seen.name for seen in mailbox.robots] == ["raw"]  # the other one had the same time to say something
    assert [seen.recent for seen in mailbox.known] == [True, True]
    mailbox.done()
    for each in (robot, other):
        each.expect(mailbox, "DONE")
