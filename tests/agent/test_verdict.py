"""A person's verdict: one rule, whichever way an episode and its verdict come together."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_data import SPEC, observation

from agent.data.episode_file import read_episode, read_head, read_steps, write_episode
from agent.data.episode_store import Store
from agent.mailbox.assembly import Assembly
from agent.spec import STEP_COLUMNS, Episode, Transition
from agent.verdict import COLUMNS, outcome, with_recorded_verdict, with_verdict, without_verdict
from agent.wire.messages import read_step, unpack
from robot_server.outgoing import Outgoing

KEY = ("arm", "0badcafe", 7)
WORDS = ["success", "failure", "discard", "end", "stop", ""]


def episode_of(rewards, success, meta=None):
    """Steps that a person ends after the last one."""
    rng = np.random.default_rng(len(rewards))
    steps = [
        Transition(observation(rng), np.zeros(2, np.float32), float(np.float32(reward)), False, False, bool(good))
        for reward, good in zip(rewards, success, strict=True)
    ]
    steps[-1] = dataclasses.replace(steps[-1], truncated=True, final_observation=observation(rng))
    return Episode.from_transitions(steps, meta)


def by_hand(episode, word):
    """As tools.recording.recorder keeps it; None: it does not."""
    if word == "discard":
        return None
    return with_verdict(episode, word) if word in ("success", "failure") else episode


def streamed(episode, word, told=len):
    """As the learner puts it together, where `told(steps)` steps had been sent when the person spoke."""
    robot, assembly = Outgoing(KEY, {"seed": 1}), Assembly([])
    steps = [dataclasses.replace(step, truncated=False, final_observation=None) for step in episode.transitions()]
    sent = [robot.append(step) for step in steps][: told(steps)]
    assert robot.cut({key: rows[-1] for key, rows in episode.observations.items()}, word)
    frames = [*sent, *(robot.frames(step) for step in range(min(len(sent), robot.length - 1), robot.length))]
    for message in map(unpack, frames):
        assembly.add(KEY, message.fields["step"], read_step(message), message.fields["meta"], b"route")
    (found,) = assembly.take()
    return found, robot


@given(
    st.lists(st.tuples(st.floats(-10, 10, width=32), st.booleans()), min_size=1, max_size=12),
    st.sampled_from(WORDS),
    st.sampled_from([len, lambda steps: 0, lambda steps: len(steps) // 2]),
)
def test_streaming_and_recording_by_hand_give_equal_episodes(steps, word, told):
    rewards, success = zip(*steps, strict=True)
    episode = episode_of(rewards, success)
    found, _ = streamed(episode, word, told)
    kept = by_hand(episode, word) or episode  # of a discarded one, the learner keeps the steps as they were
    for name in (*STEP_COLUMNS, "actions"):
        assert np.array_equal(getattr(found, name), getattr(kept, name)), name
    identity = {"seed": 1, "robot": KEY[0], "boot": KEY[1], "number": KEY[2]}
    assert found.meta == {**identity, **kept.meta, **({"marked": "discard"} if word == "discard" else {})}
    found.check(SPEC)


@given(
    st.lists(st.tuples(st.floats(-10, 10, width=32), st.booleans()), min_size=1, max_size=12), st.sampled_from(WORDS)
)
def test_a_summary_counts_what_the_episode_holds(steps, word):
    rewards, success = map(np.array, zip(*steps, strict=True))
    found, _ = streamed(episode_of(rewards, success), word)
    given, successful = outcome(word, rewards.astype(np.float32), success)
    assert np.array_equal(found.rewards, given) and found.succeeded == bool(successful.any())


def test_a_failure_takes_back_successes_that_were_sent_before_it_was_said():
    episode = episode_of([0, 0, 5, 0, 0.5, 1], [0, 0, 1, 0, 0, 1])
    found, _ = streamed(episode, "failure")
    assert found.rewards.tolist() == [0, 0, 0, 0, 0.5, 0] and not found.succeeded and not found.terminated.any()
    assert found.meta["env_success"] is True
    assert np.array_equal(without_verdict(found).rewards, episode.rewards)


@pytest.mark.parametrize("word", WORDS)
def test_the_spool_and_the_run_folder_read_back_the_same(tmp_path, word):
    episode = episode_of([0, 2, 0, 1, 0], [0, 1, 0, 1, 0])
    found, robot = streamed(episode, word)
    path = tmp_path / "spooled.hdf5"
    write_episode(path, robot.episode())
    assert read_episode(path).equals(found)
    again, steps = Assembly([]), read_steps(path, 0, 9)  # delivered from the file after a restart
    meta = {key: value for key, value in read_head(path)[1].items() if key not in ("robot", "boot", "number")}
    resent = Outgoing(KEY, meta, file=path, length=len(steps), ended=True)
    for k in range(resent.length):
        message = unpack(resent.frames(k))
        again.add(KEY, k, read_step(message), message.fields["meta"], b"route")
    assert again.take()[0].equals(found)
    taken, back = [], []
    Store(tmp_path, taken.append, lambda key: None).take(found)
    Store(tmp_path, back.append, lambda key: None).read_back()
    assert len(taken) == len(back) == (word != "discard")
    assert all(one.equals(other) for one, other in zip(taken, back, strict=True))


def test_a_long_episode_of_successes_that_failed_fits_the_wire(tmp_path):
    found, robot = streamed(episode_of(np.linspace(0, 1, 3000), np.ones(3000)), "failure")
    assert not found.rewards.any() and not found.succeeded
    write_episode(tmp_path / "long.hdf5", robot.episode())
    assert read_episode(tmp_path / "long.hdf5").equals(found)


def test_files_of_older_releases_read_as_the_verdict_says(tmp_path):
    failed = episode_of([0, 1, 1], [0, 1, 1], {"marked": "failure"})  # their rewards were left as they were
    success = episode_of([0, 0, 1], [0, 0, 1], {"marked": "success"})
    success.terminated[-1], success.truncated[-1] = True, False
    for name, episode in (("failed", failed), ("success", success)):
        write_episode(tmp_path / f"{name}.hdf5", episode)
    read = read_episode(tmp_path / "failed.hdf5")
    assert not read.rewards.any() and not read.succeeded and read.meta["env_success"] is True
    assert read_episode(tmp_path / "success.hdf5").equals(success)


@pytest.mark.parametrize("word", ["success", "failure"])
def test_a_verdict_is_applied_once_and_replaced_by_the_next(word):
    episode = episode_of([0, 3, 0], [0, 1, 0])
    once = with_verdict(episode, word)
    assert with_recorded_verdict(once) is once and with_verdict(once, word).equals(once)
    other = "failure" if word == "success" else "success"
    assert with_verdict(once, other).equals(with_verdict(episode, other)) and without_verdict(once).equals(episode)
    assert all(np.array_equal(getattr(episode, name), getattr(without_verdict(once), name)) for name in COLUMNS)


@pytest.mark.parametrize("word", [5, None, ["failure"], {"a": 1}, "spam"])
def test_a_foreign_verdict_changes_nothing(word):
    episode = episode_of([0, 1], [0, 1], {"marked": word})
    assert with_recorded_verdict(episode) is episode
