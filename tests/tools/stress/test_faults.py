"""The proof that the link loses nothing, in short; and that it would notice."""

import dataclasses
import json
import socket
import threading

import numpy as np
import pytest

import envs
from agent.spec import Episode, Transition
from envs.fake import LOG
from tools.stress import faults, namesakes, processes
from tools.stress.ledger import compare, read_log
from tools.stress.proxy import Proxy


@pytest.fixture
def life(tmp_path, monkeypatch):
    """(log, episodes): what three episodes of 4 steps left in the environment's log, and what a learner would have."""
    log = tmp_path / "made.jsonl"
    monkeypatch.setenv(LOG, str(log))
    env, rng, episodes = envs.make("fake", horizon=4, image_size=8), np.random.default_rng(0), []
    for seed in (10, 11, 12):
        steps, last = [], False
        observation, _ = env.reset(seed=seed)
        while not last:
            action = (rng.uniform(-1, 1, 2) / 10).astype(np.float32)
            seen, reward, terminated, truncated, _ = env.step(action)
            last = terminated or truncated
            final = seen if last else None
            steps.append(Transition(observation, action, reward, terminated, truncated, final_observation=final))
            observation = seen
        episodes.append(Episode.from_transitions(steps, {"robot": "arm", "seed": seed}))
    env.close()
    return log, episodes


def cut(episode, steps):
    """What is left of it when its robot server was killed after so many steps."""
    kept = episode.transitions()[: steps + 1]
    last = dataclasses.replace(kept[-2], truncated=True, final_observation=kept[-1].observation)
    return Episode.from_transitions([*kept[:-2], last], episode.meta)


def figures(tally):
    return tally.lost, tally.twice, tally.changed


def test_what_arrived_as_it_was_made_is_no_fault(life):
    log, episodes = life
    tally = compare(read_log(log, "arm", killed=False), reversed(episodes))
    assert (tally.episodes, tally.steps, figures(tally), tally.errors) == (3, 12, (0, 0, 0), [])


def test_a_lost_episode_and_a_lost_step_are_noticed(life):
    log, (first, second, third) = life
    assert figures(compare(read_log(log, "arm", killed=False), [first, third])) == (4, 0, 0)
    tally = compare(read_log(log, "arm", killed=False), [first, second, cut(third, 3)])
    assert figures(tally) == (1, 0, 0) and "seed 12: 1 of 4 steps lost" in tally.errors[0]


def test_a_doubled_episode_and_one_that_was_never_made_are_noticed(life):
    log, episodes = life
    assert figures(compare(read_log(log, "arm", killed=False), [*episodes, episodes[1]])) == (0, 4, 0)
    foreign = dataclasses.replace(episodes[0], meta={"robot": "other", "seed": 10})
    assert figures(compare(read_log(log, "arm", killed=False), [*episodes, foreign])) == (0, 0, 4)


@pytest.mark.parametrize("what", ["actions", "rewards", "terminated", "truncated", "top", "proprio"])
def test_a_changed_step_is_noticed(life, what):
    log, episodes = life
    rows = getattr(episodes[1], what, None)
    rows = episodes[1].observations[what] if rows is None else rows
    before = rows[1].copy()
    rows[1] = ~before if rows.dtype == bool else before + 1
    tally = compare(read_log(log, "arm", killed=False), episodes)
    changed = 2 if what in ("top", "proprio") else 1  # an observation belongs to the step before it too
    assert figures(tally) == (0, 0, changed) and "seed 11" in tally.errors[0]


def test_a_doubled_step_is_noticed(life):
    log, (first, second, third) = life
    steps = second.transitions()
    doubled = Episode.from_transitions([*steps[:2], *steps[1:]], second.meta)
    assert compare(read_log(log, "arm", killed=False), [first, doubled, third]).changed >= 2


def test_the_episode_under_way_when_a_robot_server_was_killed_may_be_cut_but_not_changed(life):
    log, (first, second, third) = life
    tally = compare(read_log(log, "arm", killed=True), [first, second, cut(third, 3)])
    assert (tally.episodes, tally.halves, tally.half_steps, tally.half_steps_received) == (2, 1, 4, 3)
    assert tally.halves_ended == 1
    assert figures(tally) == (0, 0, 0)
    tally = compare(read_log(log, "arm", killed=True), [first, second])
    assert figures(tally) == (0, 0, 0) and tally.halves_missing == 1
    bad = cut(third, 3)
    bad.actions[0] += 0.5
    assert compare(read_log(log, "arm", killed=True), [first, second, bad]).changed == 1
    assert compare(read_log(log, "arm", killed=True), [first, cut(second, 3), third]).lost == 1


def test_a_log_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(LOG, str(tmp_path / "none" / "made.jsonl"))
    with pytest.raises(ValueError, match=r"FAKE_ENV_LOG .*made\.jsonl: No such file"):
        envs.make("fake")


@pytest.fixture
def echo():
    """A proxy to a server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        while data := connection.recv(100):
            connection.sendall(data)
        connection.close()

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    proxy = Proxy(server.getsockname()[1])
    yield proxy
    proxy.close()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_a_proxy_carries_stalls_and_drops(echo):
    def connect():
        return socket.create_connection(("127.0.0.1", echo.port), timeout=30)

    def hung_up(end):
        try:
            return end.recv(1) == b""
        except ConnectionResetError:
            return True

    with connect() as first:
        first.sendall(b"a")
        assert first.recv(1) == b"a"
        echo.become("stall")
        with connect() as second:
            for end in (first, second):
                end.sendall(b"b")
                end.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    end.recv(1)
            echo.become("pass")
            for end in (first, second):
                end.settimeout(30)
                assert end.recv(1) == b"b"
            echo.become("drop")
            assert hung_up(first)
        with connect() as third:
            assert hung_up(third)
        echo.become("pass")
        with connect() as fourth:
            fourth.sendall(b"c")
            assert fourth.recv(1) == b"c"


@pytest.mark.timeout(600)
def test_kills_two_partitions_a_second_robot_and_a_full_disk_lose_nothing(
    tmp_path, monkeypatch, capsys, forked_commands
):
    """Eight kills; the random times are a third of the command's own, and less at the start: forked, it is short."""
    for module, names in (
        (processes, ("START_S", "WORK_S", "WRITE_S")),
        (namesakes, ("ALONE_S", "TOGETHER_S", "PAUSE_S")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name) / (20 if name == "START_S" else 3))
    words = ["--kills", 8, "--partitions", 2, "--longest-s", 3, "--fills", 2, "--robots", 2, "--namesakes", 1]
    words += ["--json", tmp_path / "out.json", "--folder", tmp_path / "faults"]
    code = faults.main([*map(str, words)])
    said = capsys.readouterr().out
    assert code == 0, said
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "out.json").read_text())["results"]}
    assert sum(value for name, value in rows.items() if name.startswith("kills of")) == 8
    assert rows["steps made in them"] > 20 and rows["lost"] == rows["twice"] == rows["changed"] == 0
    assert (rows["partitions"], rows["second robots of a name, the first cut off"]) == (2, 1)
    assert rows["full disks"] == 2 or "the full disk is SKIPPED" in said
