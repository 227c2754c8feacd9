"""A person at the operator's socket: a real one, with real messages."""

import contextlib
import time
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
import zmq

import robot_server.__main__
import robot_server.session
import robot_server.tally
from agent.spec import UserError
from agent.wire.arrays import WireError
from envs.clock import Clock
from robot_server import control as control_module
from robot_server import control_client as operator_module
from robot_server.actor import run_episode
from robot_server.command import STILL, Command, action_of, idle_keys, layout
from robot_server.config import RobotConfig
from robot_server.control import Control
from robot_server.control_address import key_path, read_key
from robot_server.control_client import Operator, answer, question, seen

LEFT = Command(np.array([-1, 0.5, 0, 0, 0, 0], np.float32), gripper=1.0, enabled=True)


@pytest.fixture
def control():
    control = Control("tcp://127.0.0.1:0", lambda: {"robot": "arm"})
    yield control
    control.close()


@pytest.fixture
def operator(control):
    made = []

    def make():
        made.append(Operator(control.address))
        return made[-1]

    yield make
    for each in made:
        each.close()


@contextlib.contextmanager
def peer(control):
    """A socket that has the key and may have more under way than an Operator."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.curve_serverkey = read_key(key_path(control.address))
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.connect(control.address)
        yield socket


class Time:
    """In the place of the module `time` for both ends of the socket: it stands, or moves by `tick_s` at each look."""

    def __init__(self, monkeypatch, tick_s=0.0):
        self.now_s, self.tick_s = time.monotonic() + 1000, tick_s  # the control was there before
        monkeypatch.setattr(control_module, "time", self)
        monkeypatch.setattr(operator_module, "time", self)

    def monotonic(self):
        self.now_s += self.tick_s
        return self.now_s

    def monotonic_ns(self):
        return int(self.monotonic() * 1e9)

    time = monotonic


def until(control, condition, seconds=20.0):
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "too late"
        control.wait(0.01)


def ask(control, operator, kind, **more):
    operator.socket.send(question(kind, **more))
    until(control, lambda: operator.socket.poll(0))
    return answer(operator.socket.recv_multipart())


def lifting(control, event, **more):
    """The question of a person who saw the state as it is now."""
    return question("event", event=event, **{**seen(control.state()), **more})


def lift(control, operator, event, **more):
    operator.socket.send(lifting(control, event, **more))
    until(control, lambda: operator.socket.poll(0))
    return answer(operator.socket.recv_multipart())


def fresh_for(monkeypatch, seconds):
    """How long a command counts."""
    monkeypatch.setattr(control_module, "HELD_S", seconds)
    monkeypatch.setattr(control_module, "LEAST_S", seconds)


def drive(control, operator, command):
    before = control.commanded_s
    operator.drive(command)
    until(control, lambda: control.commanded_s > before)


def same(one, other):
    return one.motion.tolist() == other.motion.tolist() and (one.gripper, one.enabled) == (other.gripper, other.enabled)


def test_a_person_drives_and_lets_go(control, operator):
    person = operator()
    assert same(control.read(), Command())
    drive(control, person, LEFT)
    assert same(control.read(), LEFT)
    drive(control, person, Command(gripper=1.0))
    assert not control.read().enabled


def test_the_dead_mans_switch_holds_the_arm_until_the_person_is_back(control, operator, monkeypatch):
    person = operator()
    drive(control, person, LEFT)
    fresh_for(monkeypatch, 0.0)
    held = control.read()
    assert same(held, Command(STILL, 1.0, True)) and control.state()["driven"] == "held"
    monkeypatch.undo()
    drive(control, person, LEFT)
    assert same(control.read(), LEFT) and control.state()["driven"] == "driven"


def test_resume_gives_an_arm_that_is_held_back_to_the_policy_but_not_from_under_a_hand(control, operator, monkeypatch):
    person, other = operator(), operator()
    drive(control, person, LEFT)
    fresh_for(monkeypatch, 60.0)
    lift(control, other, "resume")
    assert control.read().enabled
    fresh_for(monkeypatch, 0.0)
    lift(control, other, "resume")
    assert same(control.read(), Command(gripper=1.0))


def test_one_person_drives_at_a_time(control, operator, monkeypatch):
    first, second = operator(), operator()
    monkeypatch.setattr(control_module, "DRIVES_S", 60.0)
    drive(control, first, LEFT)
    assert ask(control, second, "drive", motion=[1] * 6, gripper=0, enabled=True) == {
        "refused": "another operator is driving"
    }
    assert same(control.read(), LEFT)
    drive(control, first, Command())  # gives it back
    drive(control, second, LEFT)
    monkeypatch.setattr(control_module, "DRIVES_S", 0.0)  # gone without a word
    drive(control, first, LEFT)


@pytest.mark.parametrize(("silent_s", "taken"), [(1.5, False), (2.5, True)])
def test_who_falls_silent_keeps_the_arm_for_two_seconds(control, operator, monkeypatch, silent_s, taken):
    first, second = operator(), operator()
    now = Time(monkeypatch)
    drive(control, first, LEFT)
    now.now_s += silent_s
    second.socket.send(question("drive", motion=[0, 1, 0, 0, 0, 0], gripper=0, enabled=True))
    until(control, lambda: second.socket.poll(0) or control.commanded_s == now.now_s)
    assert bool(second.socket.poll(0)) != taken  # an answer is a refusal
    assert control.command.motion.tolist() == ([0, 1, 0, 0, 0, 0] if taken else LEFT.motion.tolist())


def test_a_flood_of_questions_takes_a_few_milliseconds_of_a_step(control, monkeypatch):
    """The time is counted in looks at it, half a millisecond each: a busy machine changes nothing."""
    answered, send = [], control.answer
    monkeypatch.setattr(control, "answer", lambda *asked: answered.append(send(*asked)))
    with peer(control) as somebody:
        for _ in range(300):
            somebody.send(question("state"))
        assert control.socket.poll(20_000)
        time.sleep(0.2)  # until most of them have arrived
        now, taken_s = Time(monkeypatch, tick_s=0.0005), []
        while len(answered) < 300:
            assert control.socket.poll(20_000), "not all of them are answered"
            before_s = now.now_s
            control.serve()
            taken_s.append(now.now_s - before_s)
    assert max(taken_s) < 0.005 < sum(taken_s)


def test_a_stop_is_latched_and_acknowledged(control, operator):
    person = operator()
    assert ask(control, person, "event", event="stop", id=7) == {
        "done": "stop",
        "stopped": True,
        "paused": False,
        "id": 7,
    }
    assert control.read().events == ("stop",) and control.read().events == ()
    ask(control, person, "event", event="pause")
    assert control.stopped and control.paused and ask(control, person, "state")["state"]["stopped"]
    assert lift(control, person, "resume") == {"done": "resume", "stopped": True, "paused": False}  # the pause only
    assert lift(control, person, "release") == {"done": "release", "stopped": False, "paused": False}
    assert not control.hold_reason and control.read().events == ("pause", "resume")


def test_a_release_of_an_older_stop_is_refused(control, operator):
    """Item 2: a browser's stalled frame, sent before somebody else pressed STOP, must not release that STOP."""
    person, other = operator(), operator()
    ask(control, person, "event", event="stop")
    stalled = lifting(control, "release")
    ask(control, other, "event", event="stop")
    person.socket.send(stalled)
    until(control, lambda: person.socket.poll(0))
    told = answer(person.socket.recv_multipart())
    assert control.stopped and control.read().events == ("stop", "stop")
    assert told["ignored"] == "release" and told["why"].startswith("Someone pressed STOP again. Inspect the arm")
    assert ask(control, person, "state")["state"]["stop"] == 2
    assert lift(control, person, "release")["done"] == "release" and not control.stopped


@pytest.mark.parametrize(("event", "latch"), [("release", "stop"), ("resume", "pause")])
@pytest.mark.parametrize(
    "more",
    [
        {"stop": None, "pause": None},
        {"stop": 0, "pause": 0},
        {"stop": 2, "pause": 2},
        {"stop": [1], "pause": "1"},
        {"seen_s": None},
        {"seen_s": float("nan")},
        {"seen_s": float("inf")},
        {"seen_s": 1.5},
        {"seen_s": "now"},
        {"seen_s": time.monotonic() + 1e6},
        {"sent_s": None},
    ],
)
def test_a_release_names_its_stop_and_the_state_that_the_person_saw(control, operator, event, latch, more):
    person = operator()
    ask(control, person, "event", event=latch)
    told = lift(control, person, event, **more)
    assert told["ignored"] == event and told["why"] and (control.stopped or control.paused)
    assert control.read().events == (latch,)
    assert lift(control, person, event)["done"] == event and not control.hold_reason


def test_a_fault_is_acknowledged_by_a_release_of_its_own_stop(control, operator):
    person = operator()
    ask(control, person, "event", event="stop")
    before = lifting(control, "release")
    control.latch_stop("the gripper is hot")
    person.socket.send(before)
    assert ask(control, person, "event", event="pause")["ignored"] == "release"  # the answer to the first
    assert control.stopped and control.fault == "the gripper is hot"
    assert answer(person.socket.recv_multipart())["done"] == "pause"
    assert lift(control, person, "release")["done"] == "release" and not control.stopped
    assert control.hold_reason == "paused by a person"  # a release lifts no pause


def test_what_is_seen_is_sent_once(control, operator):
    person = operator()
    seen = {"front": np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "state": np.array([1.5, 2], np.float32)}
    assert "observation" not in ask(control, person, "frames", have=0)
    control.show(seen, {"step": 3, "action": np.ones(2, np.float32)})
    told = ask(control, person, "frames", have=0)
    assert told["number"] == 1 and told["state"]["step"] == 3 and told["observation"].keys() == seen.keys()
    for name, array in seen.items():
        np.testing.assert_array_equal(told["observation"][name], array)
        assert told["observation"][name].dtype == array.dtype
    assert "observation" not in ask(control, person, "frames", have=1)
    state = ask(control, person, "state")["state"]
    assert (state["step"], state["action"], state["robot"], state["driven"]) == (3, [1, 1], "arm", "")


BAD = {
    "no time": [question("drive", motion=[1] * 6, gripper=0, enabled=True, sent_s=None)],
    "noise": [b"\xc1"],
    "no map": [msgpack.packb([1])],
    "bytes for names": [msgpack.packb({b"ask": "state"})],
    "two frames": [question("state"), b""],
    "nothing": [msgpack.packb({})],
    "unknown": [question("fly")],
    "unknown event": [question("event", event="explode")],
    "event is a list": [question("event", event=["stop"])],
    "no motion": [question("drive", gripper=0, enabled=True)],
    "motion is text": [question("drive", motion="left", gripper=0, enabled=True)],
    "too few": [question("drive", motion=[0] * 5, gripper=0, enabled=True)],
    "not finite": [question("drive", motion=[float("nan")] * 6, gripper=0, enabled=True)],
    "nested": [question("drive", motion=[[0]] * 6, gripper=0, enabled=True)],
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_messages_are_counted_and_change_nothing(control, operator, name):
    person = operator()
    person.socket.send_multipart(BAD[name])
    until(control, lambda: control.faults.counts)
    assert same(control.read(), Command()) and not control.hold_reason
    assert ask(control, person, "state")["state"]["driven"] == ""


def test_an_error_nobody_foresaw_drops_one_message_only(control, operator, monkeypatch):
    person = operator()

    def fail():
        raise RecursionError("too deep")

    with monkeypatch.context() as patch:
        patch.setattr(control, "state", fail)
        person.socket.send(question("state"))
        until(control, lambda: control.faults.counts["state"])
    assert ask(control, person, "event", event="stop")["stopped"] and control.faults.counts == {"state": 1}


def test_the_dead_mans_switch_counts_from_when_a_command_was_sent(control, operator, monkeypatch):
    fresh_for(monkeypatch, 60.0)
    operator().socket.send(question("drive", motion=[1] * 6, gripper=0, enabled=True, sent_s=time.monotonic() - 50))
    until(control, lambda: control.read().enabled)
    assert control.fresh
    fresh_for(monkeypatch, 45.0)
    assert not control.fresh


@pytest.mark.parametrize("late_s", [1, -1e5])
def test_what_was_long_under_way_does_not_drive(control, operator, late_s):
    person = operator()
    person.socket.send(question("drive", motion=[1] * 6, gripper=0, enabled=True, sent_s=time.monotonic() - late_s))
    assert ask(control, person, "state")["state"]["driven"] == "" and same(control.read(), Command())


@pytest.mark.parametrize(("event", "state"), [("stop", "stopped"), ("pause", "paused")])
def test_what_holds_the_arm_is_never_too_late(control, operator, event, state):
    person = operator()
    person.socket.send(question("event", event=event, sent_s=time.monotonic() - 3600))
    until(control, lambda: control.read().events == (event,))
    assert getattr(control, state) and not control.faults.counts


@pytest.mark.parametrize("event", ["success", "failure", "discard", "end", "resume", "release"])
def test_what_else_a_person_asked_long_ago_is_not_done(control, operator, monkeypatch, event):
    person, now = operator(), Time(monkeypatch)
    ask(control, person, "event", event="stop")
    control.read()
    told = ask(control, person, "event", event=event, sent_s=now.now_s - 3, **seen(control.state()))
    assert told["ignored"] == event and "3.0 s" in told["why"]
    assert control.stopped and control.read().events == ()
    told = ask(control, person, "event", event=event, sent_s=now.now_s - 1, **seen(control.state()))
    assert told["done"] == event
    assert control.stopped == (event != "release") and control.read().events == (() if event == "release" else (event,))


def test_events_that_nobody_reads_do_not_fill_the_memory(control, operator):
    person = operator()
    for _ in range(150):
        ask(control, person, "event", event="pause")
    assert ask(control, person, "event", event="stop")["stopped"] and control.stopped  # it counts all the same
    assert control.read().events == ("pause",) * 100 and control.read().events == ()


def test_what_is_to_be_forgotten_may_be_more_than_is_served_at_once(control, operator, monkeypatch):
    with peer(control) as person:
        for _ in range(300):
            person.send(question("event", event="success"))
        time.sleep(0.3)
        monkeypatch.setattr(control_module, "SERVE_S", 0.0005)
        control.drop_events()
    assert control.read().events == () and control.read().events == ()


def test_a_word_without_an_episode_is_ignored_and_a_stop_is_not(control, operator):
    person = operator()
    control.running = False
    assert ask(control, person, "event", event="success")["ignored"] == "success" and control.read().events == ()
    assert ask(control, person, "event", event="stop")["done"] == "stop" and control.read().events == ("stop",)
    control.running = True
    assert ask(control, person, "event", event="success")["done"] == "success"


def test_deflections_are_bounded(control, operator):
    drive(control, operator(), Command(np.full(6, 9, np.float32), -7.0, True))
    assert same(control.read(), Command(np.ones(6, np.float32), -1.0, True))


def test_a_second_robot_server_goes_without(control, logged):
    assert robot_server.__main__.open_control(RobotConfig(control=control.address)) is None
    with pytest.raises(UserError, match=r"no STOP for this arm: .*; --control '' starts it without"):
        robot_server.__main__.open_control(RobotConfig(control=control.address), moves=True)
    assert control.address in logged()[-1]
    assert robot_server.__main__.open_control(RobotConfig(control="")) is None and not logged()


def test_answers_are_checked():
    for frames in ([b"\xc1"], [msgpack.packb({"arrays": b"\xc1"}), b"x"], []):
        with pytest.raises(WireError):
            answer(frames)


def env_of(size, names=()):
    """As much of an environment as `layout` asks about; names: of its action's numbers, where it states them."""
    given = {"action_meaning": {"names": list(names)}}
    return SimpleNamespace(action_space=SimpleNamespace(shape=(size,)), get_wrapper_attr=given.__getitem__)


@pytest.mark.parametrize(
    ("size", "names", "expected"),
    [
        (7, (), "1234560"),
        (6, (), "123456"),
        (4, (), "1230"),
        (3, (), "123"),
        (2, (), "12"),
        (7, ("x", "y", "z", "rx", "ry", "rz", "gripper"), "1234560"),
        (6, ("x", "y", "z", "roll", "pitch", "gripper"), "123450"),
        (5, ("x", "y", "z", "pitch", "gripper"), "12350"),
        (4, ("x", "y", "z", "roll"), "1234"),
        (4, ("base", "shoulder", "elbow", "gripper"), "1230"),  # joints: by their number, as ever
        (4, ("x", "y", "z"), "1230"),
    ],
)
def test_each_number_of_an_action_gets_its_motion(size, names, expected):
    command = Command(np.arange(1, 7, dtype=np.float32) / 10, gripper=1.0)
    action = action_of(command, env_of(size, names))
    assert action.dtype == np.float32
    assert [round(number * 10) % 10 for number in action.tolist()] == [int(each) for each in expected]


def test_actions_that_no_device_drives_are_refused_but_for_standing_still():
    moving = Command(np.ones(6, np.float32))
    with pytest.raises(UserError, match="not 26"):
        action_of(moving, env_of(26))
    with pytest.raises(UserError, match="not 5"):
        layout(env_of(5, ("x", "y", "z", "pitch", "finger")))
    assert not action_of(Command(), env_of(26)).any()


def test_what_an_action_lacks_is_named():
    assert idle_keys(layout(env_of(7))) == ""
    assert idle_keys(layout(env_of(5, ("x", "y", "z", "pitch", "gripper")))).endswith(": roll, turn left and right")
    assert idle_keys(layout(env_of(3))).endswith(": roll, pitch, turn left and right, the gripper")


def test_the_page_is_told_what_moves_and_where_the_gripper_is(control):
    control.layout = (0, 1, 2, 4, 6)
    control.show({}, {"action": [0.0, 0, 0, -1, 1]})
    state = control.state()
    assert list(state["motions"]) == [0, 1, 2, 4, 6] and state["gripper"] == 1
    control.show({}, {"action": []})  # before the first motion
    control.layout = (0, 1, 2)
    control.show({}, {"action": [0.0, 0, -1]})
    assert control.state()["gripper"] == 1


# In an episode --------------------------------------------------------------------------------------------------------


@pytest.fixture
def acting(bench, control, tiny_env, tiny_policy, empty):
    """Runs an episode of TinyEnv, and gives what the learner got of it. at: what happens before which step."""
    mailbox, link = bench.pair()
    mailbox.offer(1, {"w": np.array(0.1, np.float32)})
    bench.turn(lambda: link.weights.received == 1)

    def act(at, clock=None, **options):
        tiny_env.on_step = lambda step: at.get(step, lambda: None)()
        summary = run_episode(tiny_env, tiny_policy, link, clock or Clock(0), seed=0, control=control, **options)
        bench.turn(lambda: empty(link))
        return summary, bench.episodes[-1] if bench.episodes else None

    act.link, act.mailbox = link, mailbox
    return act


def test_a_persons_steps_are_the_executed_ones_and_flagged(acting, control, operator):
    person = operator()
    summary, episode = acting({0: lambda: drive(control, person, LEFT), 2: lambda: drive(control, person, Command())})
    assert episode.interventions.tolist() == [False, True, True, False, False] and summary.by_hand == 2
    np.testing.assert_array_equal(episode.actions[:3], np.float32([[0.1, 0.1], [-1, 0.5], [-1, 0.5]]))
    assert episode.succeeded and "2 by hand" in str(summary) and not control.running


def test_a_person_drives_a_simulation_in_real_time(acting, control, operator, monkeypatch):
    """TinyEnv says no rate, so it is 20 Hz."""
    slept = []
    monkeypatch.setattr(acting.link, "wait", slept.append)
    acting({0: lambda: drive(control, operator(), LEFT)})
    assert len(slept) >= 3 and max(slept) <= 1 / 20
    slept.clear()
    control.command = Command()
    acting({})
    assert not slept


def test_a_person_whose_commands_stop_coming_holds_the_arm(acting, control, operator, monkeypatch, logged):
    """One step without motion, and then none: not even the policy's, before the person is back or lets go."""
    person, waited = operator(), []
    wait = control.wait

    def back_after_a_while(timeout_s):
        wait(timeout_s)
        waited.extend([control.hold_reason] if control.hold_reason else [])
        if len(waited) == 5:
            person.socket.send(lifting(control, "resume"))

    monkeypatch.setattr(control, "wait", back_after_a_while)
    at = {
        0: lambda: (fresh_for(monkeypatch, 60.0), drive(control, person, LEFT)),
        1: lambda: fresh_for(monkeypatch, 0.0),
    }
    _, episode = acting(at)
    np.testing.assert_array_equal(episode.actions, np.float32([[0.1, 0.1], [-1, 0.5], [0, 0], [0.1, 0.1], [0.1, 0.1]]))
    assert episode.interventions.tolist() == [False, True, True, False, False]
    assert waited[:4] == ["the person who drives sends no commands"] * 4
    assert logged() == []  # it was too short to be worth a line


def test_a_hold_that_lasts_is_said_once(acting, control, operator, monkeypatch, logged):
    person, wait, waits = operator(), control.wait, []

    def go_on(timeout_s):
        waits.append(wait(timeout_s))
        if len(waits) == 5:
            person.socket.send(lifting(control, "resume"))

    monkeypatch.setattr(control, "wait", go_on)
    monkeypatch.setattr("robot_server.waiting.SAY_S", 0.0)
    acting({1: lambda: ask(control, person, "event", event="pause")})
    assert "".join(logged()).count("paused by a person: held between two steps") == 1


def test_the_policy_makes_no_step_after_a_person_who_gave_back_and_paused(acting, control, operator, monkeypatch):
    person, wait, waits = operator(), control.wait, []

    def wait_and_resume(timeout_s):
        wait(timeout_s)
        if control.paused:
            waits.append(len(acting.link.outbox.episodes))
            person.socket.send(lifting(control, "resume"))

    def give_back_and_pause():
        drive(control, person, Command())
        ask(control, person, "event", event="pause")
        monkeypatch.setattr(control, "wait", wait_and_resume)

    fresh_for(monkeypatch, 60.0)
    seen = []
    monkeypatch.setattr(control, "show", lambda observation, status: seen.append((control.paused, status["step"])))
    acting({0: lambda: drive(control, person, LEFT), 1: give_back_and_pause})
    assert waits and [step for paused, step in seen if paused] == [2]  # the step under way, and no other


def test_no_episode_begins_while_a_driver_is_silent(acting, control, operator, monkeypatch):
    person, turns = operator(), []
    drive(control, person, LEFT)
    fresh_for(monkeypatch, 0.0)

    def over():
        turns.append(control.hold_reason)
        if len(turns) == 3:
            person.socket.send(lifting(control, "resume"))
        return False

    assert robot_server.session.may_act(acting.link, RobotConfig(), over, control)
    assert turns[:3] == ["the person who drives sends no commands"] * 3 and not control.read().enabled


@pytest.mark.parametrize(("step_s", "counts_s"), [(0.05, 0.15), (0.1, 0.1), (0.01, 0.19), (0.5, 0.05)])
def test_the_step_under_way_counts_for_the_dead_mans_switch(control, operator, monkeypatch, step_s, counts_s):
    control.step_s = step_s
    drive(control, operator(), LEFT)
    now = control.commanded_s
    for later_s, fresh in ((counts_s - 0.005, True), (counts_s + 0.005, False)):
        with monkeypatch.context() as patch:
            patch.setattr(control_module.time, "monotonic", lambda later_s=later_s: now + later_s)
            assert control.fresh == fresh


def test_the_gripper_stays_as_it_is(control, operator):
    person = operator()
    control.show({}, {"action": np.float32([0, 0, 0, 1])})
    for gripper, then in ((None, 1), (-1, -1), (None, -1)):
        person.socket.send(question("drive", motion=[0] * 6, gripper=gripper, enabled=True))
        until(control, lambda then=then: control.command.enabled and control.command.gripper == then)
        control.show({}, {"action": np.float32([0, 0, 0, 1])})  # what the robot did before it heard
    control.reset(1.0)
    assert control.read().gripper == 1 and ask(control, person, "state")["state"]["gripper"] == 1


@pytest.mark.parametrize(
    ("word", "success", "reward"), [("success", True, 1), ("failure", False, 0), ("end", False, 0), ("stop", False, 0)]
)
def test_a_person_ends_the_episode(acting, control, operator, word, success, reward):
    summary, episode = acting({2: lambda: ask(control, operator(), "event", event=word)})
    assert len(episode) == summary.steps == 3 and (summary.ending, summary.cut) == (word, True)
    assert (episode.succeeded, summary.success) == (success, success)
    assert episode.rewards.tolist() == [0, 0, reward] and summary.episode_return == reward
    assert (episode.terminated[-1], episode.truncated[-1]) == (word == "success", word != "success")
    assert episode.meta.get("marked") == (word if word in ("success", "failure") else None)
    assert control.stopped == (word == "stop") and word in str(summary)


def test_a_success_that_the_env_saw_too_keeps_its_reward(acting, control, operator, tiny_env, monkeypatch):
    step = tiny_env.step

    def generous(action):
        seen, _, ended, _, info = step(action)
        return seen, 2.0, ended, False, {**info, "success": True}

    monkeypatch.setattr(tiny_env, "step", generous)
    summary, episode = acting({1: lambda: ask(control, operator(), "event", event="success")})
    assert episode.rewards.tolist() == [2, 2] and summary.episode_return == 4


@pytest.mark.parametrize(
    ("word", "rewards"), [("failure", [0, 0, 0, 0]), ("success", [0, 2, 0, 1]), ("end", [0, 2, 0, 0])]
)
def test_a_verdict_covers_successes_that_were_sent_before_it(
    acting, control, operator, tiny_env, monkeypatch, word, rewards
):
    """An environment that reports a success, and goes on: the learner has that step when the person speaks."""
    step = tiny_env.step

    def passing(action):
        seen, _, ended, _, info = step(action)
        there = len(tiny_env.actions) == 2
        return seen, 2.0 * there, ended, False, {**info, "success": there}

    monkeypatch.setattr(tiny_env, "step", passing)
    summary, episode = acting({3: lambda: ask(control, operator(), "event", event=word)})
    assert episode.rewards.tolist() == rewards and episode.meta["seed"] == 0
    assert summary.success == episode.succeeded == (word != "failure")
    assert summary.episode_return == episode.episode_return == sum(rewards)
    tally = robot_server.tally.Tally("robot", acting.link)
    tally.count(summary)
    assert (tally.episodes, tally.successes) == (1, int(word != "failure"))


def test_a_discarded_episode_says_so(acting, control, operator):
    summary, episode = acting({1: lambda: ask(control, operator(), "event", event="discard")})
    assert episode.meta["marked"] == "discard" and len(episode) == 2 and summary.ending == "discard"
    _, following = acting({})
    assert "marked" not in following.meta and len(following) == 5


def test_a_pause_makes_no_step(acting, control, operator, tiny_env, monkeypatch):
    person, seen = operator(), []
    wait = control.wait

    def later(timeout_s):
        wait(timeout_s)
        seen.append(len(tiny_env.actions))
        if len(seen) == 5:
            assert control.paused
            person.socket.send(lifting(control, "resume"))

    monkeypatch.setattr(control, "wait", later)
    once = [lambda: person.socket.send(question("event", event="pause")) or time.sleep(0.2)]
    summary, episode = acting({2: lambda: once and once.pop()()})
    assert len(episode) == 5 and len(seen) >= 5 and len(set(seen)) == 1 and episode.succeeded and not summary.cut


def test_a_paused_episode_can_be_ended(acting, control, operator):
    person = operator()

    def pause():
        for event in ("pause", "failure"):
            ask(control, person, "event", event=event)

    summary, episode = acting({1: pause})
    assert len(episode) == 2 and summary.ending == "failure" and control.paused


def test_a_pause_ends_when_the_robot_server_does(acting, control, operator):
    person, asked = operator(), []

    def stop():
        asked.append(control.paused)
        return sum(asked) > 3

    summary, episode = acting({1: lambda: ask(control, person, "event", event="pause")}, stop=stop)
    assert summary.cut and not summary.ending and len(episode) == 2


def test_the_link_goes_on_in_a_pause(bench, acting, control, operator, monkeypatch, quick):
    """Newer weights arrive, and what has been recorded is delivered: a learner would take a robot for lost."""
    person, (mailbox,), wait = operator(), bench.mailboxes, control.wait
    end_s = time.monotonic() + 20

    def learn_and_resume(timeout_s):
        wait(timeout_s)
        bench.episodes.extend(mailbox.drain())
        if control.paused and (acting.link.weights.received == 2 or time.monotonic() > end_s):
            person.socket.send(lifting(control, "resume"))

    def pause():
        ask(control, person, "event", event="pause")
        mailbox.offer(2, {"w": np.array(0.2, np.float32)})
        monkeypatch.setattr(control, "wait", learn_and_resume)

    once = [pause]
    _, episode = acting({2: lambda: once and once.pop()()})
    assert episode.policy_versions.tolist() == [1, 1, 1, 2, 2]


class Asking:
    """A link whose learner asks for no more steps until `done()`, for so many waits at most."""

    def __init__(self, link, done):
        self._link, self._done, self.waits, self.free = link, done, 0, 2

    def __getattr__(self, name):
        return getattr(self._link, name)

    @property
    def hold_s(self):
        """Two steps are free."""
        self.free -= 1
        return 0.0 if self.free >= 0 or self._done() or self.waits > 1000 else 0.02

    def wait(self, timeout_s):
        self.waits += 1
        self._link.wait(timeout_s)


def test_a_stop_arrives_while_the_learner_asks_to_hold(acting, control, operator, tiny_env, tiny_policy):
    person = operator()
    told = []

    def done():
        if person.socket.poll(0):
            told.append(answer(person.socket.recv_multipart()))
        return bool(told)

    tiny_env.on_step = lambda step: step == 1 and person.socket.send(question("event", event="stop"))
    asking = Asking(acting.link, done)
    summary = run_episode(tiny_env, tiny_policy, asking, Clock(0), seed=0, control=control)
    assert told == [{"done": "stop", "stopped": True, "paused": False}] and control.stopped
    assert summary.ending == "stop" and len(tiny_env.actions) == summary.steps == 2


@pytest.mark.parametrize("event", ["stop", "pause"])
def test_an_arm_is_held_when_a_person_stops_it_between_two_steps(acting, control, operator, tiny_env, event):
    """Not only when its next step or reset finds out."""
    person, held, end_s = operator(), [], time.monotonic() + 10
    tiny_env.paced, tiny_env.hold = True, lambda: held.append(len(tiny_env.actions))
    over = lambda: bool(held) or time.monotonic() > end_s  # noqa: E731
    summary, _ = acting({1: lambda: ask(control, person, "event", event=event)}, stop=over)
    assert held == [2] and summary.steps == 2


def test_after_a_stop_nothing_moves_until_a_person_releases_it(acting, control, operator, logged):
    person, turns = operator(), []
    ask(control, person, "event", event="stop")

    def over():
        turns.append(control.stopped)
        if len(turns) == 3:
            person.socket.send(lifting(control, "release"))
        return False

    assert robot_server.session.may_act(acting.link, RobotConfig(), over, control)
    assert turns[:3] == [True] * 3 and not control.stopped and "stopped by a person" in "".join(logged())


def test_a_stop_that_waits_unread_keeps_the_next_episode_from_beginning(acting, control, operator):
    """It was pressed while an episode was saved, or an arm connected; the reset moved the arm before it was read."""
    operator().socket.send(question("event", event="stop"))
    assert control.socket.poll(20_000)
    assert not robot_server.session.may_act(acting.link, RobotConfig(), lambda: control.stopped, control)
    assert control.stopped


def test_what_was_pressed_during_the_reset_is_not_this_episodes(acting, control, operator, tiny_env, monkeypatch):
    person, reset = operator(), tiny_env.reset

    def slow_reset(**options):
        person.socket.send(question("event", event="success"))
        until(control, lambda: control.waiting)
        return reset(**options)

    monkeypatch.setattr(tiny_env, "reset", slow_reset)
    assert acting({})[0].steps == 5


def test_the_socket_answers_while_the_robot_waits_for_a_learner(bench, control, operator):
    person, link = operator(), bench.link("tcp://127.0.0.1:9")
    person.socket.send(question("state"))
    assert robot_server.session.first_policy(link, RobotConfig(), lambda: person.socket.poll(0) != 0, control) is None
    assert answer(person.socket.recv_multipart(zmq.NOBLOCK))["state"]["robot"] == "arm"


def test_the_tally_tells_how_it_goes(acting, control, operator):
    tally = robot_server.tally.Tally("arm", acting.link, SimpleNamespace(lost_replies=3, motors={"x": {"load": 12.0}}))
    control.about = tally.about
    for word in ("success", "discard", ""):
        at = {1: lambda word=word: ask(control, operator(), "event", event=word)} if word else {}
        tally.count(acting(at)[0])
    state = ask(control, operator(), "state")["state"]
    assert (state["episodes"], state["successes"], state["discarded"], state["policy_version"]) == (2, 2, 1, 1)
    assert state["link"]["trouble"] == "" and state["link"]["backlog"] == 0 and state["policy_age_s"] >= 0
    assert state["lost_replies"] == 3 and state["motors"] == {"x": {"load": 12.0}}
