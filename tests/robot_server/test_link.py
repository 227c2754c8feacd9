"""The two ends of the link together, over real sockets: restarts of either, in every order, lose and repeat nothing."""

import dataclasses
import time

import msgpack
import numpy as np
import pytest
import zmq

from agent import wire
from agent.episode_file import episode_paths, read_episode, write_episode
from agent.spec import Episode, Spec, SpecError, UserError
from robot_server import link as link_module


@pytest.fixture
def quick(monkeypatch):
    """Losses are noticed in hundredths of a second instead of seconds."""
    monkeypatch.setattr(link_module, "PULL_EVERY_S", 0.03)
    monkeypatch.setattr("agent.mailbox.ASK_AGAIN_S", 0.02)


def play(link, steps, meta=None):
    link.begin({"seed": 1, **(meta or {})})
    for transition in steps:
        link.send(transition)


def identities(episodes):
    return [(e.meta["robot"], e.meta["boot"], e.meta["number"]) for e in episodes]


def same(episode, steps):
    return episode.equals(Episode.from_transitions(steps, episode.meta))


def test_learner_first(bench, episode_steps, empty):
    mailbox, link = bench.pair(run="runs/a")
    assert link.network == {"features": 16, "channels": [8, 8]} and link.run == "runs/a"
    steps = episode_steps(7)
    play(link, steps)
    bench.turn(lambda: empty(link))
    (episode,) = bench.episodes
    env = {"name": "fake", "options": {"size": 8}}
    meta = {"robot": "robot", "boot": link.boot, "number": 0, "seed": 1, "env": env}
    assert episode.equals(Episode.from_transitions(steps, meta))
    assert mailbox.steps == 7


def test_robot_first(bench, episode_steps, empty):
    probe = bench.mailbox()
    bench.close(probe)
    link = bench.link(probe.address)
    assert not link.connect(0.05)
    play(link, episode_steps(3))
    bench.mailbox(probe.address)
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1


@pytest.mark.parametrize("acknowledged", [True, False])
def test_learner_restarted_in_mid_episode(bench, episode_steps, empty, acknowledged):
    """Episode 0 is complete and on disk (or was lost with the learner), episode 1 is half sent."""
    mailbox, link = bench.pair()
    bench.acknowledge = acknowledged
    first, second = episode_steps(4, seed=1), episode_steps(9, seed=2)
    play(link, first)
    link.begin({"seed": 2})
    for transition in second[:5]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps == 9 and empty(link) is False)
    if acknowledged:
        bench.turn(lambda: len(bench.links[0]._outbox) == 1)
    else:
        bench.episodes.clear()  # nothing of it reached the disk
    mailbox = bench.restart(mailbox)
    bench.acknowledge = True
    for transition in second[5:]:
        link.send(transition)
        link.pump()
    bench.turn(lambda: empty(link))
    assert identities(bench.episodes) == [("robot", link.boot, 0), ("robot", link.boot, 1)]
    assert same(bench.episodes[0], first) and same(bench.episodes[1], second)
    assert bench.episodes[1].meta["seed"] == 2  # the meta of its first step was sent again too
    assert not mailbox.counts and not link.counts


def test_a_lost_acknowledgement_is_given_again(bench, episode_steps, empty, monkeypatch, quick):
    mailbox, link = bench.pair()
    bench.acknowledge = False
    play(link, episode_steps(3))
    bench.turn(lambda: bench.episodes)
    with monkeypatch.context() as patch:
        patch.setattr(mailbox, "_send", lambda *ignored: None)
        mailbox.acknowledge(bench.episodes[0])
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1 and mailbox.steps == 3


def test_steps_lost_on_the_way_are_sent_again(bench, episode_steps, empty, monkeypatch, quick):
    """Every third message that the robot thinks it has sent goes nowhere, the last step included."""
    mailbox, link = bench.pair()
    put, count = link._put, 0

    def lossy(frames):
        nonlocal count
        count += 1
        return True if count % 3 == 0 else put(frames)

    monkeypatch.setattr(link, "_put", lossy)
    sent = [episode_steps(6, seed) for seed in range(3)]
    for steps in sent:
        play(link, steps)
    bench.turn(lambda: empty(link), seconds=20)
    assert sorted(identities(bench.episodes)) == [("robot", link.boot, number) for number in range(3)]
    for episode in bench.episodes:
        assert same(episode, sent[episode.meta["number"]])
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
        for source, target, mine, other in ((front, back, "to_robot", "to_learner"), (back, front, "to_learner", "to_robot")):
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
    boot = link._learner_boot
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
    bench.turn(lambda: empty(link), seconds=10)
    assert link._learner_boot == boot
    assert len(bench.episodes) == 1 and same(bench.episodes[0], steps) and mailbox.steps == 30
    front.close(linger=0)
    back.close(linger=0)
    context.term()


def test_what_is_not_delivered_waits_in_the_spool(bench, episode_steps, empty, tmp_path):
    """Learner gone for good; one episode complete, one running. The next robot server delivers both, under their boot."""
    mailbox, link = bench.pair()
    bench.acknowledge = False
    first, second = episode_steps(3, seed=1), episode_steps(6, seed=2)
    play(link, first, {"seed": 11})
    link.begin({"seed": 12})
    for transition in second[:4]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps == 7)
    bench.episodes.clear()
    bench.close(mailbox)
    link.cut(second[4].observation)
    assert link.close(timeout_s=0.05) == 2
    bench.links.remove(link)
    names = [path.name for path in episode_paths([bench.spool])]
    assert names == [f"robot-{link.boot}-000000.hdf5", f"robot-{link.boot}-000001.hdf5"]
    cut = [*second[:3], dataclasses.replace(second[3], truncated=True, final_observation=second[4].observation)]
    assert same(read_episode(bench.spool / names[1]), cut)

    bench.acknowledge = True
    bench.mailbox(mailbox.address)
    again = bench.link(mailbox.address)
    fresh = episode_steps(2, seed=3)
    play(again, fresh)
    bench.turn(lambda: empty(again))
    expected = {("robot", link.boot, 0): first, ("robot", link.boot, 1): cut, ("robot", again.boot, 0): fresh}
    assert dict.fromkeys(identities(bench.episodes)) == dict.fromkeys(expected)
    assert len(bench.episodes) == 3
    for identity, episode in zip(identities(bench.episodes), bench.episodes, strict=True):
        assert same(episode, expected[identity])
    assert {e.meta["number"]: e.meta["seed"] for e in bench.episodes if e.meta["boot"] == link.boot} == {0: 11, 1: 12}
    assert list(bench.spool.iterdir()) == []


def test_a_running_episode_that_the_learner_has_already_is_cut_once(bench, episode_steps, empty):
    """The learner lives on and holds all steps of the episode; the robot server is closed and started again."""
    mailbox, link = bench.pair()
    steps = episode_steps(6)
    link.begin()
    for transition in steps[:4]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps == 4)
    assert link.close(timeout_s=0) == 1  # no observation after the last step: it is given up, its own is the final one
    bench.links.remove(link)
    again = bench.link(mailbox)
    bench.turn(lambda: empty(again))
    (episode,) = bench.episodes
    assert same(episode, [*steps[:2], dataclasses.replace(steps[2], truncated=True, final_observation=steps[3].observation)])
    assert mailbox.steps == 4 and list(bench.spool.iterdir()) == []


def test_the_spool_is_not_sent_twice(bench, episode_steps, empty):
    """The learner stored the episode, but its acknowledgement never came: the file is only deleted."""
    mailbox, link = bench.pair()
    bench.acknowledge = False
    play(link, episode_steps(3))
    bench.turn(lambda: bench.episodes)
    assert link.close(timeout_s=0) == 1
    bench.links.remove(link)
    mailbox.acknowledge(bench.episodes[0])
    again = bench.link(mailbox)
    bench.turn(lambda: empty(again))
    assert len(bench.episodes) == 1 and mailbox.steps == 3 and list(bench.spool.iterdir()) == []


def test_close_delivers_while_the_learner_is_there(bench, episode_steps, tmp_path):
    """close() blocks, so the learner is another thread here."""
    import threading

    mailbox, link = bench.pair()
    link.begin()
    steps = episode_steps(5)
    for transition in steps[:3]:
        link.send(transition)
    link.cut(steps[3].observation)
    bench.links.remove(link)
    left = []
    closing = threading.Thread(target=lambda: left.append(link.close(5.0)))
    closing.start()
    bench.turn(lambda: left)
    closing.join()
    assert left == [0] and len(bench.episodes) == 1 and bench.episodes[0].truncated[-1]
    assert list(bench.spool.iterdir()) == []
    bench.turn(lambda: not mailbox.robots)  # it said BYE


def test_foreign_files_stay_in_the_spool(bench, episode_steps, empty, caplog):
    other = Spec({}, {"state": 2}, 2)
    step = dataclasses.replace(
        episode_steps(1)[0],
        observation={"state": np.zeros(2, np.float32)},
        final_observation={"state": np.zeros(2, np.float32)},
    )
    write_episode(bench.spool / "other-spec.hdf5", Episode.from_transitions([step], {"robot": "r", "boot": "b", "number": 0}))
    Episode.from_transitions([step]).check(other)
    write_episode(bench.spool / "no-identity.hdf5", Episode.from_transitions(episode_steps(2)))
    evil = {"robot": "../r", "boot": "b", "number": 0}
    write_episode(bench.spool / "evil-identity.hdf5", Episode.from_transitions(episode_steps(2), evil))
    (bench.spool / "damaged.hdf5").write_bytes(b"not HDF5")
    _, link = bench.pair()
    play(link, episode_steps(2))
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1
    for name in ("other-spec", "no-identity", "evil-identity", "damaged"):
        assert (bench.spool / f"{name}.hdf5").exists() and name in caplog.text


def test_an_episode_without_steps_is_dropped(bench, episode_steps, empty):
    mailbox, link = bench.pair()
    link.begin()
    link.cut(episode_steps(1)[0].observation)
    play(link, episode_steps(2))
    bench.turn(lambda: empty(link))
    assert identities(bench.episodes) == [("robot", link.boot, 1)]


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
    sent = {(name, number): episode_steps(8, seed=10 * number + len(name)) for name in ("left", "right") for number in range(3)}
    for number in range(3):
        for link in links:
            link.begin()
        for t in range(8):
            for link in links:
                link.send(sent[link.name, number][t])
                link.pump()
    bench.turn(lambda: all(map(empty, links)))
    assert len(bench.episodes) == 6 and mailbox.steps == 48
    assert all(same(e, sent[e.meta["robot"], e.meta["number"]]) for e in bench.episodes)
    assert sorted(robot.name for robot in mailbox.robots) == ["left", "right"]


def test_weights_newest_only(bench):
    mailbox, link = bench.pair()
    bench.turn(lambda: mailbox.robots[0].ask >= 0)
    assert link.newest_weights() is None and not link.has_weights(0.01)
    for version in range(1, 51):  # the robot is busy
        mailbox.offer(version, {"w": np.full(2, version, np.float32)})
    arrived = []
    on_weights = link._on_weights
    link._on_weights = lambda message: (arrived.append(message.fields["version"]), on_weights(message))
    bench.turn(lambda: link._have == 50)
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
    bench.turn(lambda: link._have == 40)
    mailbox = bench.restart(mailbox)
    mailbox.offer(30, {"w": np.ones(1, np.float32)})
    bench.turn(lambda: link._have == 30)


def test_lost_weights_are_asked_for_again(bench, monkeypatch, quick):
    mailbox, link = bench.pair()
    bench.turn(lambda: mailbox.robots[0].ask >= 0)
    with monkeypatch.context() as patch:
        patch.setattr(mailbox, "_send", lambda *ignored: None)
        mailbox.offer(1, {"w": np.zeros(1, np.float32)})
    bench.turn(lambda: link._have == 1)


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
    bench.turn(lambda: link.hold_s == 0, seconds=0.3)


def test_another_spec_is_a_user_error_that_names_it(bench):
    mailbox = bench.mailbox()
    link = bench.link(mailbox, spec=Spec({"front": (16, 8, 3)}, {"state": 3}, 2))
    with pytest.raises(UserError, match=r"'front': \(16, 8, 3\) against \(8, 8, 3\)"):
        bench.turn(lambda: False)


def test_another_protocol_is_a_user_error(bench, monkeypatch):
    mailbox = bench.mailbox()
    link = bench.link(mailbox)
    packed = wire.pack

    def from_the_future(kind, arrays=None, **fields):
        head, *body = packed(kind, arrays, **fields)
        return [msgpack.packb({**msgpack.unpackb(head), "v": 2}), *body]

    monkeypatch.setattr(link_module, "pack", from_the_future)
    with pytest.raises(UserError, match="refused: protocol version 2, here 1"):
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
    monkeypatch.setattr(link_module, "REFUSED_FOR_S", 0.0)
    with pytest.raises(UserError, match="'robot' is connected already"):
        bench.turn(lambda: False)
    monkeypatch.setattr(link_module, "REFUSED_FOR_S", 15.0)
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
        assert wire.unpack(hello).kind == "HELLO"
        play(link, episode_steps(2))
        link.begin()
        link.send(dataclasses.replace(episode_steps(1)[0], terminated=False, final_observation=None))
        bad = [
            [b"noise"], [b"", b""], [b""], [msgpack.packb({"v": 9, "kind": "ACK", "arrays": []})],
            wire.pack("HELLO", robot="a", boot="b", spec={}, env={}, outbox=[]),
            wire.pack("PACE", hold_s=float("nan")), wire.pack("PACE", hold_s=-1.0), wire.pack("PACE", hold_s=float("inf")),
            wire.pack("ACK", robot="robot", boot=link.boot, episode=1),  # that one has not ended
            wire.pack("WEIGHTS", {"w": np.zeros(3)}, version=1)[:1],
        ]  # fmt: skip
        harmless = [
            wire.pack("ACK", robot="robot", boot="other", episode=7),
            wire.pack("RESEND", robot="robot", boot=link.boot, episode=0, step=10**6),
            wire.pack("RESEND", robot="robot", boot="other", episode=0, step=0),
        ]
        for frames in [*bad, *harmless]:
            router.send_multipart([route, *frames])
        welcome = wire.pack("WELCOME", run="", learner_boot="x", spec={}, network={})
        router.send_multipart([route, *welcome])
        bench.turn(lambda: link.network is not None)
        assert sum(link.counts.values()) == len(bad) and link.hold_s == 0
        assert len(caplog.records) == 1 and str(port) in caplog.text
        bench.close(link)


def test_an_endless_hold_is_bounded(bench):
    mailbox, link = bench.pair()
    mailbox.pace(1e9)
    bench.turn(lambda: link.hold_s > 0)
    assert link.hold_s <= link_module.LONGEST_HOLD_S


def test_send_and_pump_do_not_wait_for_a_learner_that_is_not_there(bench, episode_steps):
    link = bench.link("tcp://127.0.0.1:1")
    steps = episode_steps(300)
    started_s = time.perf_counter()
    link.begin()
    for transition in steps:
        link.send(transition)
        link.pump()
    assert (time.perf_counter() - started_s) / 300 < 0.002


def test_a_learner_that_does_not_listen_does_not_block_the_robot(bench, episode_steps, empty):
    """It is connected, but does not drain: its queue and the socket's fill up, then the outbox holds the rest."""
    mailbox, link = bench.pair()
    bench.mailboxes.remove(mailbox)
    slowest_s = 0.0
    sent = [episode_steps(100, seed) for seed in range(30)]
    for steps in sent:
        link.begin()
        for transition in steps:
            started_s = time.perf_counter()
            link.send(transition)
            link.pump()
            slowest_s = max(slowest_s, time.perf_counter() - started_s)
    assert slowest_s < 0.1
    bench.mailboxes.append(mailbox)
    bench.turn(lambda: empty(link), seconds=10)
    assert mailbox.steps == 3000 and len(bench.episodes) == 30
