"""What tools.common.quality flags, and what it leaves alone."""

import dataclasses

import numpy as np
import pytest

from agent.action_meaning import ActionMeaning
from agent.data.frames import Frames
from agent.spec import Episode
from tools.common import quality

STEPS = 40


def good(seed=0, steps=STEPS):
    """An episode in which all is well: noise in the picture, a smooth motion, a gripper that closes once."""
    rng = np.random.default_rng(seed)
    path = np.sin(np.linspace(0, 3, steps + 1)[:, None] * [1.0, 1.3 + 0.1 * seed])
    actions = rng.uniform(0.1, 0.6, (steps, 3)) * np.sign(rng.normal(size=(steps, 3)))
    actions[:, 2] = np.where(np.arange(steps) < 20, 1, -1)
    grip = np.where(np.arange(steps + 1) < 21, 0.0, 1.0)[:, None]
    last = np.arange(steps) == steps - 1
    return Episode(
        observations={
            "front": rng.integers(60, 180, (steps + 1, 24, 32, 3)).astype(np.uint8),
            "state": np.concatenate([path, grip], axis=1).astype(np.float32),
        },
        actions=actions.astype(np.float32),
        rewards=last.astype(np.float32),
        terminated=last,
        truncated=np.zeros(steps, bool),
        success=last,
        policy_versions=np.zeros(steps, np.int64),
        interventions=np.zeros(steps, bool),
        times_s=np.arange(steps) / 10,
        observation_ages_s=np.zeros(steps, np.float32),
        action_latencies_s=np.zeros(steps, np.float32),
        meta={"state_names": {"state": ["x", "y", "gripper"]}},
    )


def found(episode, actions=None):
    return {flag.kind: flag for flag in quality.flags(episode, actions)}


def test_nothing_is_wrong_with_a_good_episode():
    assert not found(good()) and not found(good(1, steps=1)) and not found(good(2, steps=3))


def test_a_black_and_a_frozen_camera():
    episode = good()
    frames = episode.observations["front"]
    frames[10:14] = np.random.default_rng(0).integers(0, 9, (4, 24, 32, 3))
    frames[20:30] = frames[20]
    flags = found(episode)
    assert set(flags) == {"black", "frozen"}
    assert flags["black"].spans == ((10, 14),) and flags["black"].text == "front: 10% of the frames are black"
    assert flags["frozen"].spans == ((21, 30),)
    assert flags["frozen"].text == "front: the same frame for 10 steps from step 20"
    blocks = Frames(frames.shape, lambda first, end: frames[first:end])
    assert found(dataclasses.replace(episode, observations={**episode.observations, "front": blocks})) == flags


def test_a_dark_picture_with_something_bright_in_it_is_not_black():
    episode = good()
    episode.observations["front"][:] //= 60
    episode.observations["front"][:, 4:10, 4:10] = 200
    assert "black" not in found(episode)


def test_a_picture_that_does_not_change_while_the_arm_rests_is_not_frozen():
    episode = good()
    episode.observations["front"][0:12] = episode.observations["front"][0]
    episode.actions[:12, :2] = 0
    assert set(found(episode)) == {"idle"}


@pytest.mark.parametrize("kind", ["delta", "absolute"])
def test_idle_parts(kind):
    episode, meaning = good(), {"kind": kind, "names": ["x", "y", "gripper"]}
    episode.meta["env"] = {"name": "fake", "actions": meaning}
    rest = 0.0 if kind == "delta" else 0.4
    episode.actions[:12, :2] = rest
    episode.actions[34:, :2] = rest
    flag = found(episode)["idle"]
    assert flag.spans == ((0, 12), (34, 40))
    assert flag.text == "idle for 45% of it, the first 12 steps, the last 6 steps"
    episode.actions[20:23, :2] = 0  # too short
    assert found(episode)["idle"].spans == flag.spans


def test_a_slow_motion_of_a_target_is_not_idle():
    actions = np.linspace(0, 1, 100)[:, None] * [1.0, 0.5]
    assert not quality.idle_steps(actions, ActionMeaning(kind="absolute")).any()
    assert quality.idle_steps(np.repeat(actions[:1], 100, axis=0), ActionMeaning(kind="absolute")).all()


def test_clipped_actions_and_none_of_a_gripper_or_of_other_units():
    episode = good()
    episode.actions[:30, 0] = 1
    flag = found(episode)["clipped"]
    assert flag.text == "38% of the actions' numbers at their limits" and flag.spans == ((0, 30),)
    assert "clipped" not in found(episode, actions=90 * episode.actions)


def test_a_jump_of_a_state_and_none_of_a_gripper():
    episode = good()
    episode.observations["state"][17:, 1] += 2
    flag = found(episode)["jump"]
    assert flag.spans == ((16, 17),) and flag.text == "y at step 16"
    fast = np.concatenate([np.zeros(20), np.linspace(0, 1, 5), np.ones(20)])  # something that closes quickly
    assert not quality.jumps(fast + 1e-3 * np.arange(45))


@pytest.mark.parametrize("rows_at_once", [2, 256])
def test_near_duplicates_name_the_earlier_episode(rows_at_once, monkeypatch):
    monkeypatch.setattr(quality, "ROWS_AT_ONCE", rows_at_once)
    episodes = {f"e{seed}": good(seed) for seed in range(5)}
    again = good(3)
    again.observations["state"] += np.random.default_rng(1).normal(size=(STEPS + 1, 3)).astype(np.float32) * 1e-3
    episodes["e5"] = again
    episodes["e6"] = good(3, steps=STEPS + 4)
    signatures = {name: (len(episode), quality.signature(episode)) for name, episode in episodes.items()}
    assert quality.duplicates(signatures) == {"e5": "e3"}
    assert quality.duplicates({}) == quality.duplicates({"e0": signatures["e0"]}) == {}


def test_meaning_that_is_nonsense_is_not_known():
    episode = good()
    episode.meta["env"] = {"name": "fake", "actions": {"kind": 3}}
    assert quality.meaning_of(episode.meta) == ActionMeaning() and not found(episode)
