"""Scripted experts succeed when they mean to, and fail when they are told to."""

import numpy as np
import pytest

import envs
import envs.scripted


def successes(name, count, *, noise=0.0, failure_rate=0.0, retry_rate=0.0, **options):
    env = envs.make(name, **options)
    expert = envs.scripted.make(env, noise, failure_rate, seed=0, retry_rate=retry_rate)
    total = 0
    for seed in range(count):
        observation, _ = env.reset(seed=seed)
        expert.reset()
        over = False
        while not over:
            action = expert.act(observation)
            assert action.dtype == np.float32 and np.abs(action).max() <= 1
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        total += terminated
    env.close()
    return total


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"control_hz": 20.0},
        {"action": "pose"},
        {"action": "pose", "control_hz": 20.0},
        {"robot": "XArm7"},
        {"task": "Can", "horizon": 120},
        {"task": "Stack", "horizon": 80},
        {"task": "Square", "action": "pose"},
        {"task": "Door"},
    ],
    ids=["lift", "20 Hz", "pose", "pose at 20 Hz", "XArm7", "can", "stack", "square", "door"],
)
def test_experts_succeed(options):
    assert successes("sim", 4, cameras=[], **options) == 4


def test_the_fake_expert_succeeds():
    assert successes("fake", 30) == 30


@pytest.mark.parametrize("kind", envs.scripted.FAILURES)
def test_spoilt_episodes_fail(monkeypatch, kind):
    monkeypatch.setattr(envs.scripted, "FAILURES", (kind,))
    assert successes("sim", 4, cameras=[], horizon=50, failure_rate=1.0) == 0


@pytest.mark.parametrize(
    "task", [{"task": "Stack"}, {"task": "Square", "action": "pose"}, {"task": "Door"}], ids=["stack", "square", "door"]
)
def test_a_thing_dropped_on_the_way_is_not_picked_up_again(monkeypatch, task):
    monkeypatch.setattr(envs.scripted, "FAILURES", ("drop",))
    assert successes("sim", 2, cameras=[], horizon=50, failure_rate=1.0, **task) == 0


def test_the_square_nut_needs_a_hand_that_turns():
    with pytest.raises(ValueError, match=r"'Square'.*env\.action"):
        envs.scripted.make(envs.make("sim", task="Square", cameras=[]))


@pytest.mark.parametrize(
    "task, kind",
    [
        ("Lift", "beside"),
        ("Lift", "short"),
        ("Can", "short"),
        ("Stack", "beside"),
        ("Door", "beside"),
        ("Door", "short"),
    ],
)
def test_a_missed_grasp_is_seen_and_tried_again(monkeypatch, task, kind):
    expert_class = type(envs.scripted.make(envs.make("sim", task=task, cameras=[])))
    assert kind in expert_class.misses
    monkeypatch.setattr(expert_class, "misses", (kind,))
    env = envs.make("sim", cameras=[], task=task, horizon=160)
    expert = envs.scripted.make(env, seed=0, retry_rate=1.0)
    observation, _ = env.reset(seed=1)
    expert.reset()
    assert not expert.failing
    grips, over = [], False
    while not over:
        action = expert.act(observation)
        grips.append(action[-1])
        observation, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
    env.close()
    assert terminated
    closings = [step for step in range(1, len(grips)) if grips[step] > 0 > grips[step - 1]]
    assert len(closings) == 2
    assert closings[1] - closings[0] > envs.scripted.OPENING_STEPS  # opened in between, all the way


@pytest.mark.parametrize("kind", ["beside", "short"])
def test_a_hand_that_missed_the_handle_on_purpose_leaves_the_door_alone(monkeypatch, kind):
    monkeypatch.setattr(envs.scripted, "FAILURES", (kind,))
    assert successes("sim", 2, cameras=[], horizon=80, failure_rate=1.0, task="Door") == 0


def test_a_hand_that_comes_down_on_the_cube_does_not_stay_there():
    """Of these twelve first grasps one meets the cube's top, and never gets as low as the fingers should close."""
    assert successes("sim", 12, cameras=[], retry_rate=1.0) == 12


def test_a_can_that_was_missed_is_grasped_at_the_second_attempt():
    """Noisy: a first grasp that closes on the can's upper end moves it out of reach of a second."""
    assert successes("sim", 7, task="Can", cameras=[], horizon=160, noise=0.2, retry_rate=1.0) == 7


def test_spoilt_episodes_of_the_fake_fail():
    assert successes("fake", 20, failure_rate=1.0) == 0


def test_noise_changes_actions_but_not_the_gripper():
    env = envs.make("sim", cameras=[])
    quiet, noisy = envs.scripted.make(env), envs.scripted.make(env, noise=0.3, seed=1)
    observation, _ = env.reset(seed=0)
    quiet.reset()
    noisy.reset()
    left, right = quiet.act(observation), noisy.act(observation)
    env.close()
    assert np.abs(left[:3] - right[:3]).max() > 0.01 and left[3] == right[3]


def test_there_is_not_one_for_everything():
    with pytest.raises(ValueError, match="Wipe"):
        envs.scripted.make(envs.make("sim", task="Wipe", cameras=[]))


def test_nor_for_every_robot():
    with pytest.raises(ValueError, match="UR5e"):
        envs.scripted.make(envs.make("sim", robot="UR5e", cameras=[]))


def test_an_experts_seed_is_its_noise_and_its_failures():
    env = envs.make("fake")

    def played(seed):
        expert = envs.scripted.make(env, noise=0.3, failure_rate=0.5, seed=seed)
        seen = []
        for episode in range(6):
            observation, _ = env.reset(seed=episode)
            expert.reset()
            seen.append((expert.failing, expert.act(observation).tolist()))
        return seen

    assert played(3) == played(3) != played(4)
    assert {failing for failing, _ in played(3)} == {True, False}
