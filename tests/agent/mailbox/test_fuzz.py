"""What strangers send to a learner's socket: it goes on, hears its robots, and holds no more than it can hold."""

import dataclasses
import itertools

import pytest
import test_mailbox
from link_data import SPEC, steps_of
from test_mailbox import RawRobot, drain_until

from agent.env_record import EnvRecord
from agent.mailbox.assembly import Assembly
from agent.mailbox.cpu_budget import SHARE_S, CpuBudget
from agent.spec import Episode
from agent.wire import messages
from agent.wire.messages import WireError
from tools.stress.hostile_messages import Noise

KEY = ("raw", "b0", 0)
make_mailbox, mailbox = test_mailbox.make_mailbox, test_mailbox.mailbox
make_robot, robot = test_mailbox.make_robot, test_mailbox.robot


@pytest.fixture
def patient(monkeypatch):
    """Every message is looked at, however long the ones before took."""
    monkeypatch.setattr("agent.mailbox.cpu_budget.SHARE_S", 1e9)
    monkeypatch.setattr("agent.mailbox.connections.STRIKES", 10**9)


def limits(monkeypatch, **values):
    for name, value in values.items():
        assembly = name.startswith("MAX_OPEN") or name == "STEP_BYTES"
        module = "assembly" if assembly else "robots" if name in ("MAX_ROBOTS", "FORGET_S") else "delivery"
        monkeypatch.setattr(f"agent.mailbox.{module}.{name}", value)


@pytest.mark.parametrize("seed", range(3))
def test_a_good_robot_is_heard_among_thousands_of_strange_messages(
    make_mailbox,
    make_robot,
    monkeypatch,
    patient,
    seed,
):
    limits(monkeypatch, MAX_ROBOTS=3, MAX_OPEN=4, MAX_ASKED=5, FORGET_S=0.5)
    mailbox = make_mailbox()
    good = make_robot(mailbox, "good")
    good.hello(mailbox)
    noise = Noise(seed, SPEC, ["good", "a", "b"])
    strangers = [(make_robot(mailbox, name, f"c{n}"), name) for n, name in enumerate("aabcde")]
    sources = [noise.robot(name, each.boot) for each, name in strangers]
    taken, played = [], [steps_of(12, number) for number in range(20)]
    for number, steps in enumerate(played):
        for at, step in enumerate(steps):
            good.step(number, at, step)
            for (each, _), source in zip(strangers, sources, strict=True):
                each.socket.send_multipart(next(source))
                while each.socket.poll(0):
                    each.socket.recv_multipart()
            taken += mailbox.drain()
            assembly = mailbox.assembly
            assert len([*mailbox.registry]) <= 3 and len(assembly.open) <= 4 and len(mailbox.requests) <= 5
            assert assembly.open_bytes == sum(episode.bytes for episode in assembly.open.values())
        good.pull(outbox=[["good", "b0", number, len(steps)]])

    def all_there():
        while good.socket.poll(0):
            message = messages.unpack(good.socket.recv_multipart())
            if message.kind == "WHO":
                good.send("HELLO", robot="good", boot="b0", spec=SPEC.to_dict(), env={}, outbox=[])
            elif message.kind == "RESEND":
                number, first = message.fields["episode"], message.fields["step"]
                for at in range(first, 12):
                    good.step(number, at, played[number][at])
        good.pull(outbox=[["good", "b0", number, 12] for number in range(20)])
        arrived = {e.meta["number"] for e in taken + mailbox.finished if e.meta["robot"] == "good"}
        return arrived >= set(range(20))

    drain_until(mailbox, all_there)
    episodes = {}
    for episode in taken + mailbox.finished:
        episode.check(SPEC)
        if (episode.meta["robot"], episode.meta["boot"]) == ("good", "b0"):
            assert episode.meta["number"] not in episodes
            episodes[episode.meta["number"]] = episode
    for number, steps in enumerate(played):
        assert episodes[number].equals(Episode.from_transitions(steps, episodes[number].meta))
    assert {"malformed", "protocol", "STEP"} <= mailbox.counts.keys() and mailbox.counts["malformed"] > 200


def test_a_noisy_sender_is_not_heard_for_the_rest_of_a_second(monkeypatch):
    now = itertools.count()
    monkeypatch.setattr("agent.mailbox.cpu_budget.time.monotonic", lambda: next(now) / 2)
    patience = CpuBudget()
    patience.renew()
    patience.charge(b"noisy", SHARE_S * 0.9)
    assert patience.has(b"noisy") and patience.has(b"good")
    patience.charge(b"noisy", SHARE_S * 0.2)
    assert not patience.has(b"noisy") and patience.has(b"good")
    patience.charge(b"good", SHARE_S * 0.4)
    assert patience.has(b"good")
    patience.charge(b"third", SHARE_S * 0.4)  # shared by three: each has a third
    assert not patience.has(b"good") and patience.has(b"fourth")
    patience.renew()
    assert not patience.has(b"noisy")
    patience.renew()
    assert patience.has(b"noisy")


def test_what_is_not_heard_does_not_hold_up_what_is(mailbox, robot, make_robot, monkeypatch):
    noisy = make_robot(mailbox, "noisy")
    noisy.hello(mailbox)
    mailbox.listener.budget = CpuBudget()
    monkeypatch.setattr("agent.mailbox.cpu_budget.SHARE_S", 0.0)  # after one message that brings nothing
    monkeypatch.setattr(CpuBudget, "renew", lambda patience: None)
    sent = steps_of(3)
    for count in (50, 100):
        for _ in range(50):
            noisy.socket.send(b"noise")
        if count == 50:
            for number, step in enumerate(sent):
                robot.step(0, number, step)
        drain_until(mailbox, lambda count=count: sum(mailbox.counts.values()) == count)
    assert mailbox.counts == {"malformed": 1, "ignored": 99}
    drain_until(mailbox, lambda: mailbox.finished)
    assert mailbox.finished[0].equals(Episode.from_transitions(sent, mailbox.finished[0].meta))


def test_what_is_not_heard_is_not_held_against_the_limit_of_a_drain(mailbox, robot, monkeypatch):
    mailbox.listener.budget.charge(b"raw-b0", 1e9)
    monkeypatch.setattr(CpuBudget, "renew", lambda patience: None)
    for _ in range(50):
        robot.socket.send(b"noise")
    calls = 0
    while mailbox.counts["ignored"] < 50:
        assert mailbox.wait(30.0)
        before, calls = mailbox.counts["ignored"], calls + 1
        mailbox.drain(limit=1)
        assert mailbox.counts["ignored"] > before
    assert calls < 50 and mailbox.counts.keys() == {"ignored"}


def test_open_episodes_beyond_what_there_is_place_for_are_asked_for_anew(mailbox, robot, monkeypatch):
    limits(monkeypatch, MAX_OPEN=2)
    sent = steps_of(4)
    for number, at in ((0, 0), (1, 0), (1, 1), (0, 1), (2, 0)):  # when 2 begins, 1 has rested for longest
        robot.step(number, at, sent[at])
    drain_until(mailbox, lambda: ("raw", "b0", 2) in mailbox.assembly.open)
    assert list(mailbox.assembly.open) == [KEY, ("raw", "b0", 2)] and mailbox.steps == 3
    robot.pull(outbox=[["raw", "b0", 1, 2]])
    assert robot.expect(mailbox, "RESEND").fields["step"] == 0
    for at, step in enumerate(sent):
        robot.step(1, at, step)
    drain_until(mailbox, lambda: mailbox.finished)
    assert mailbox.finished[0].equals(Episode.from_transitions(sent, mailbox.finished[0].meta))
    assert mailbox.steps == 4 + 1  # and what is open of 2


def test_the_bytes_of_open_episodes_are_bounded(monkeypatch):
    step = dataclasses.replace(steps_of(2)[0])
    limits(monkeypatch, STEP_BYTES=0, MAX_OPEN_BYTES=8 * 204)  # of steps of 204 bytes
    assembly = Assembly({})
    for episode in range(4):
        for number in range(3):
            assembly.add(("raw", "b0", episode), number, step, {}, b"")
    assert [key[2] for key in assembly.open] == [2, 3] and assembly.steps == 6 and assembly.open_bytes == 6 * 204
    assembly.add(("raw", "b0", 3), 3, step, {}, b"")
    with pytest.raises(WireError, match="too large: 4 steps"):
        assembly.add(("raw", "b0", 3), 4, step, {}, b"")
    assert assembly.steps == 7 and len(assembly.open["raw", "b0", 3].steps) == 4


def test_meta_counts_with_the_first_and_the_last_step_only():
    assembly = Assembly({})
    for number, step in enumerate(steps_of(3)):
        assembly.add(KEY, number, step, {f"m{number}": 1}, b"")
    (episode,) = assembly.take()
    assert episode.meta.keys() == {"m0", "m2", "robot", "boot", "number"} and assembly.open_bytes == 0


def test_robots_long_gone_are_forgotten_and_too_many_push_out_the_most_silent(
    mailbox,
    make_robot,
    monkeypatch,
):
    limits(monkeypatch, MAX_ROBOTS=2)
    robots = [make_robot(mailbox, name) for name in "abc"]
    for each in robots[:2]:
        assert each.hello(mailbox).kind == "WELCOME"
    robots[0].pull()
    drain_until(mailbox, lambda: mailbox.robots[0].ask == 0)
    assert robots[2].hello(mailbox).kind == "WELCOME"
    assert [each.name for each in mailbox.robots] == ["a", "c"]
    robots[1].pull()
    robots[1].expect(mailbox, "WHO")  # and may say HELLO again
    limits(monkeypatch, FORGET_S=0.0)
    assert robots[1].hello(mailbox).kind == "WELCOME"
    assert [each.name for each in mailbox.registry] == ["b"]


def test_one_report_gets_so_many_answers_and_the_next_one_the_next(make_mailbox, make_robot, monkeypatch):
    limits(monkeypatch, MAX_ANSWERS=2)
    mailbox = make_mailbox(stored={("raw", "b0", number): 1 for number in range(3)})
    robot = make_robot(mailbox)
    robot.hello(mailbox)
    held = list(range(3))
    while held:
        robot.pull(outbox=[["raw", "b0", number, 1] for number in held])
        answers = [robot.expect(mailbox, "ACK").fields["episode"] for _ in held[:2]]
        assert answers == held[:2] and robot.next(mailbox, 0.05) is None
        held = held[2:]


def test_a_name_and_boot_that_another_connection_has_are_refused(mailbox, robot):
    thief = RawRobot(mailbox.address, "thief")
    thief.name = robot.name
    assert thief.boot == robot.boot and thief.hello(mailbox).kind == "REFUSE"
    assert [each.route for each in mailbox.robots] == [b"raw-b0"]
    thief.socket.close()


def test_a_reward_that_a_file_could_not_hold_is_refused(mailbox, robot):
    robot.step(0, 0, dataclasses.replace(steps_of(2)[0], reward=1e39))  # infinite as float32
    drain_until(mailbox, lambda: mailbox.counts["STEP"])
    assert mailbox.steps == 0


def test_what_strangers_write_is_one_harmless_line(mailbox, make_robot, caplog):
    robot = make_robot(mailbox)
    mailbox.registry._env = EnvRecord("fake")
    options = {"line\n\x1b[2J": "x" * 2000}
    env = {"name": "fake", "options": options}
    robot.send("HELLO", robot="raw", boot="b0", spec=SPEC.to_dict(), env=env, outbox=[])
    assert robot.expect(mailbox, "WELCOME")
    (record,) = caplog.records
    assert "line??[2J" in record.getMessage() and len(record.getMessage()) < 700
    assert record.getMessage().isprintable()
