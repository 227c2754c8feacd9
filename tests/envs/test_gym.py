"""What `--env gym:` makes of other people's observations and success signals."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

import envs
from agent.env_record import EnvRecord, agreed
from agent.spec import Spec, UserError
from envs.base import action_meaning

ID = "test/Seen-v0"


class Seen(gymnasium.Env):
    """One observation of any space, and any info."""

    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, space, info=None, at=(), reward=0.0):
        self.observation_space, self.info, self.at, self.reward = space, info or {}, at or range(99), reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(1)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        info = self.info if self.steps in self.at else {}
        return self.observation_space.sample(), self.reward * self.steps, False, False, info


gymnasium.register(ID, Seen, max_episode_steps=4, disable_env_checker=True)
VECTOR = Box(-1, 1, (3,), np.float32)


def images(*shape, dtype=np.uint8, high=255):
    return Box(0, high, shape, dtype)


def make(space, **chosen):
    kwargs = {"space": space, **{key: chosen.pop(key) for key in ("info", "at", "reward") if key in chosen}}
    return envs.make(f"gym:{ID}", kwargs=kwargs, **chosen)


@pytest.mark.parametrize(
    ("space", "rgb"),
    [
        (images(24, 32, 3), lambda x: x),
        (images(3, 24, 32), lambda x: x.transpose(1, 2, 0)),
        (images(1, 24, 32), lambda x: np.stack([x[0]] * 3, -1)),
        (images(24, 32), lambda x: np.stack([x] * 3, -1)),
        (images(24, 32, 1), lambda x: np.stack([x[..., 0]] * 3, -1)),
        (images(24, 32, 4), lambda x: x[..., :3]),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
@pytest.mark.parametrize("lone", [True, False])
def test_images_of_every_clear_layout_are_cameras(space, rgb, lone):
    env = make(space if lone else Dict({"eye": space, "arm": VECTOR}))
    key = "image" if lone else "eye"
    assert Spec.from_spaces(env.observation_space, env.action_space).cameras == {key: (24, 32, 3)}
    observation, _ = env.reset(seed=0)
    seen = env.unwrapped.observation_space
    seen.seed(1)
    source = seen.sample()
    np.testing.assert_array_equal(observation[key], rgb(source if lone else source["eye"]))
    assert env.observation_space.contains(observation)
    assert env.observation_space.contains(env.step(np.zeros(2))[0])


@pytest.mark.parametrize(
    "space",
    [
        images(24, 32, 3, dtype=np.float32, high=1),
        images(24, 32, 3, dtype=np.float32),
        images(3, 24, 32, dtype=np.float64, high=1),
        images(24, 32, dtype=np.float32, high=1),
        images(24, 32, dtype=np.uint16, high=65535),  # depth
        images(24, 32, 1, dtype=np.float32, high=10),
        images(24, 32, 3, high=1),  # [0, 1] as uint8 would be black
        images(4, 24, 32),  # stacked gray frames, or RGBA
        images(2, 24, 32),
        images(8, 24, 32),
        images(4, 24, 32, 3),
        images(24, 32, 9),
        images(3, 24, 3),
    ],
    ids=lambda space: f"{space.dtype}{space.shape}",
)
def test_images_that_are_ambiguous_are_refused_by_name(space):
    with pytest.raises(ValueError, match=r"observation 'wrist\.rgb'") as caught:
        make(Dict({"wrist": Dict({"rgb": space}), "arm": VECTOR}))
    message = str(caught.value)
    assert "\n" not in message and str(list(space.shape)) in message and "cameras must be uint8 [0, 255]" in message


@pytest.mark.parametrize("space", [Box(-1, 1, (2, 3)), Box(-1, 1, (1, 1, 5)), Box(-1, 1, (3, 40)), images(4, 4)])
def test_small_tables_of_numbers_are_still_states(space):
    env = make(Dict({"arm": space}))
    assert env.observation_space["arm"].shape == (int(np.prod(space.shape)),)
    assert env.reset(seed=0)[0]["arm"].dtype == np.float32


def successes(env):
    env.reset(seed=0)
    return [env.step(np.zeros(2))[4]["success"] for _ in range(4)]


@pytest.mark.parametrize(
    ("value", "success"),
    [
        (True, True),
        (np.True_, True),
        (1, True),
        (np.float32(1), True),
        (np.array([True]), True),
        (False, False),
        (0.0, False),
        ("False", False),
        ("True", False),
        ("", False),
        ([0], False),
        (0.4, False),
        (None, False),
        (np.array([False, True]), False),
    ],
)
def test_only_true_or_one_is_a_success(value, success, caplog):
    found = successes(make(VECTOR, info={"success": value}, at=[2]))
    assert found == [False, success, False, False]
    strange = not envs.base.is_flag(value)
    assert len(caplog.messages) == strange
    assert not strange or f"info['success'] is a {type(value).__name__}" in caplog.messages[0]


def test_a_success_key_that_never_came_is_reported_once_with_those_that_did(caplog):
    env = make(VECTOR, info={"task_success": True, "grasped": np.False_, "distance": 0.3, "note": "yes"}, at=[4])
    for _ in range(3):
        assert not any(successes(env))
    (line,) = caplog.messages
    assert "no 'success' or 'is_success'" in line and "grasped, task_success (choose one with --success-key" in line


def test_nothing_is_reported_while_the_first_episode_runs(caplog):
    env = make(VECTOR, info={"is_success": True}, at=[4])
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(2))
    assert not caplog.messages
    assert env.step(np.zeros(2))[4]["success"] and not caplog.messages
    env.reset(seed=1)
    assert not caplog.messages


def test_success_key_chooses_the_signal_and_a_wrong_one_is_reported(caplog):
    info = {"task_success": True, "success": False}
    assert successes(make(VECTOR, info=info, at=[3], success_key="task_success")) == [False, False, True, False]
    assert not caplog.messages
    assert not any(successes(make(VECTOR, info=info, success_key="task_succes")))
    assert "no 'task_succes'" in caplog.messages[0] and "success, task_success" in caplog.messages[0]


@pytest.mark.parametrize(("repeat", "steps", "returns", "last"), [(1, 2, [0, 1], 2), (3, 1, [1], 2), (2, 1, [1], 2)])
def test_an_action_is_repeated_until_the_episode_ends(repeat, steps, returns, last):
    env = make(VECTOR, info={"success": True}, at=(2,), binary=True, repeat=repeat)
    env.reset(seed=0)
    seen = [env.step(np.zeros(2)) for _ in range(steps)]
    assert [step[1] for step in seen] == returns and env.unwrapped.steps == last
    assert [(step[2], step[4]["success"]) for step in seen] == [(False, False)] * (steps - 1) + [(True, True)]


def test_the_rewards_of_the_repetitions_are_summed():
    env = make(VECTOR, reward=1.0, repeat=3)  # 1, 2, 3 and, the time limit, 4
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[1] for _ in range(2)] == [6.0, 4.0]


def test_actions_that_are_repeated_mean_something_else_in_records():
    metas = [("e", {"env": {"actions": action_meaning(make(VECTOR, repeat=repeat))}}) for repeat in (None, 1, 5)]
    assert agreed(metas[:2])
    with pytest.raises(UserError, match="their actions mean different things: repeat: 5 against 1"):
        agreed(metas)


def test_a_success_within_the_repetitions_is_not_lost_and_the_time_limit_ends_them():
    env = make(VECTOR, info={"success": True}, at=(2,), repeat=3)  # of the environment's 4 steps
    env.reset(seed=0)
    first, second = env.step(np.zeros(2)), env.step(np.zeros(2))
    assert first[4]["success"] and not first[2] and not first[3]
    assert second[3] and env.unwrapped.steps == 4


def test_a_record_from_before_actions_could_be_repeated_is_of_the_same_environment():
    before = {"kwargs": {}, "binary": True, "max_episode_steps": None, "success_key": None}
    now = dataclasses.asdict(envs.options("gym:CartPole-v1")(binary=True))
    assert not EnvRecord("gym:CartPole-v1", {**now, **before}).differences(EnvRecord("gym:CartPole-v1", now))
    old = {key: value for key, value in now.items() if key != "repeat"}
    assert not EnvRecord("gym:CartPole-v1", old).differences(EnvRecord("gym:CartPole-v1", now))
