"""What every environment promises, on every environment."""

import json
import warnings
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from agent.action_meaning import ActionMeaning
from agent.spec import Spec

SMALL_LIFT = {"task": "Lift", "image_size": 32, "horizon": 6}


class Nested(gymnasium.Env):
    """A camera, a matrix and a nested vector; actions of an odd shape and range; success in its info."""

    observation_space = gymnasium.spaces.Dict(
        {
            "eye": gymnasium.spaces.Box(0, 255, (8, 10, 3), np.uint8),
            "arm": gymnasium.spaces.Dict({"joints": gymnasium.spaces.Box(-4, 4, (2, 2), np.float64)}),
        }
    )
    action_space = gymnasium.spaces.Box(np.array([[-2.0], [0.0]]), np.array([[2.0], [10.0]]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.action = np.zeros((2, 1))
        return self._look(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.action = action
        done = bool(action[1, 0] > 9.9)
        return self._look(), float(action.sum()), done, False, {"is_success": done}

    def _look(self):
        eye = self.np_random.integers(0, 255, (8, 10, 3), dtype=np.uint8)
        return {"eye": eye, "arm": {"joints": self.np_random.uniform(-4, 4, (2, 2))}}


class Pixels(Nested):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def _look(self):
        return self.np_random.integers(0, 255, (8, 8, 3), dtype=np.uint8)


class Boundless(Nested):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))


class Words(Nested):
    observation_space = gymnasium.spaces.Dict({"said": gymnasium.spaces.Text(5)})


class Chores(Nested):
    """Says what is left to do, as Franka Kitchen does."""

    def step(self, action):
        observation, reward, _, _, _ = super().step(action)
        return observation, reward, False, False, {"tasks_to_complete": [] if action[1, 0] > 9.9 else ["kettle"]}


class Kitchen(Nested):
    """Franka Kitchen that removes no tasks: what is done at each step, and what has been done so far."""

    episode_task_completions: ClassVar[list[str]] = []

    def reset(self, **kwargs):
        self.episode_task_completions = []
        return super().reset(**kwargs)

    def step(self, action):
        observation, _, _, _, _ = super().step(action)
        done = [task for task, high in zip(("kettle", "microwave"), action[:, 0] > (1.9, 9.9), strict=True) if high]
        self.episode_task_completions += [task for task in done if task not in self.episode_task_completions]
        info = {"tasks_to_complete": ["kettle", "microwave"], "step_task_completions": done}
        return observation, len(done), False, False, {**info, "episode_task_completions": self.episode_task_completions}


class Rooms(Nested):
    """Its names have spaces, as Franka Kitchen's."""

    observation_space = gymnasium.spaces.Dict(
        {
            "observation": gymnasium.spaces.Box(-4, 4, (3,)),
            "desired goal": gymnasium.spaces.Dict({"light switch": gymnasium.spaces.Box(-4, 4, (2,), np.float64)}),
        }
    )

    def _look(self):
        goal = {"light switch": self.np_random.uniform(-4, 4, 2)}
        return {"observation": np.full(3, 2, np.float32), "desired goal": goal}


gymnasium.register("test/Rooms-v0", Rooms, max_episode_steps=6)
gymnasium.register("test/Chores-v0", Chores, max_episode_steps=6)
gymnasium.register("test/Kitchen-v0", Kitchen, max_episode_steps=6)
gymnasium.register("test/Boundless-v0", Boundless)
gymnasium.register("test/Words-v0", Words)
gymnasium.register("test/Nested-v0", Nested, max_episode_steps=6)
gymnasium.register("test/Pixels-v0", Pixels, max_episode_steps=6)

CASES = {
    "fake": ("fake", {"horizon": 6}),
    "lift": ("sim", SMALL_LIFT),
    "pose": ("sim", {**SMALL_LIFT, "action": "pose", "privileged": True}),
    "stateless cameras": ("sim", {**SMALL_LIFT, "cameras": []}),
    "pendulum": ("gym:Pendulum-v1", {"max_episode_steps": 6}),
    "nested": ("gym:test/Nested-v0", {}),
    "pixels": ("gym:test/Pixels-v0", {}),
    "rooms": ("gym:test/Rooms-v0", {}),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def env(request):
    name, options = CASES[request.param]
    made = envs.make(name, **options)
    yield made
    made.close()


def rollout(env, seed, actions):
    """Everything that a seed determines: observations, rewards, ends."""
    seen = [env.reset(seed=seed)[0]]
    ends = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        assert isinstance(info["success"], bool) and isinstance(reward, float)
        seen.append(observation)
        ends.append((reward, terminated, truncated, info["success"]))
        if terminated or truncated:
            break
    return seen, ends


def same(left, right):
    return left[1] == right[1] and all(
        np.array_equal(a[key], b[key]) for a, b in zip(left[0], right[0], strict=True) for key in a
    )


def some_actions(env, count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.8, 0.8, env.action_space.shape).astype(np.float32) for _ in range(count)]


def test_gymnasium_agrees(env):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env, skip_render_check=True)


def test_spaces(env):
    assert env.action_space.dtype == np.float32 and len(env.action_space.shape) == 1
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    observation, info = env.reset(seed=0)
    assert info["success"] is False
    assert set(observation) == set(env.observation_space.spaces)
    for key, box in env.observation_space.spaces.items():
        value = observation[key]
        camera = value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3
        assert camera or (value.dtype == np.float32 and value.ndim == 1), key
        assert value.shape == box.shape and value.dtype == box.dtype


def test_a_seed_is_an_episode(env):
    """Also after other episodes, and on another environment that is alive at the same time."""
    actions = some_actions(env, 4)
    first = rollout(env, 3, actions)
    other = rollout(env, 4, some_actions(env, 4, seed=1))
    assert not same(first, other)
    assert same(first, rollout(env, 3, actions))


@pytest.mark.parametrize("case", ["fake", "lift", "pendulum", "nested"])
def test_environments_alive_together_do_not_mix(case):
    name, options = CASES[case]
    left, right = envs.make(name, **options), envs.make(name, **options)
    actions = some_actions(left, 3)
    alone = rollout(left, 3, actions)
    seen, ends = [left.reset(seed=3)[0]], []
    right.reset(seed=8)
    for action in actions:
        right.step(-action)
        observation, *end, info = left.step(action)
        seen.append(observation)
        ends.append((*end, info["success"]))
    assert same(alone, (seen, ends))
    assert same(alone, rollout(right, 3, actions))
    left.close()
    right.close()


def test_a_reset_without_a_seed_goes_on(env):
    env.reset(seed=0)
    first, second = env.reset()[0], env.reset()[0]
    env.reset(seed=0)
    again = env.reset()[0]
    assert any(not np.array_equal(first[key], second[key]) for key in first)
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_the_time_limit_truncates(env):
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape, np.float32)
    for step in range(1, 7):
        *_, terminated, truncated, info = env.step(still)
        assert not terminated and not info["success"]
        assert truncated == (step == 6)


def test_actions_beyond_the_limits_count_as_the_limits(env):
    ones = np.ones(env.action_space.shape, np.float32)
    assert same(rollout(env, 5, [ones]), rollout(env, 5, [3 * ones]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_none_are_refused(env, value):
    env.reset(seed=0)
    size = env.action_space.shape[0]
    for action in (np.full(size, value), np.zeros(size + 1), np.zeros((1, size))):
        with pytest.raises(ValueError, match=f"action must be {size} finite numbers"):
            env.step(action)


@pytest.mark.parametrize("last", [True, False], ids=["last step", "before"])
def test_success_terminates_and_does_not_truncate_also_on_the_last_step(last):
    for name, limit in (("fake", "horizon"), ("gym:test/Nested-v0", "max_episode_steps")):
        env = envs.make(name, **{limit: 1 if last else 2})
        env.reset(seed=0)
        if name == "fake":
            env.target = env.position + [0.0, 0.2]
        reward, terminated, truncated, info = env.step(np.array([0.0, 1.0]))[1:]
        assert (terminated, truncated, info["success"]) == (True, False, True) and reward > 0


def test_the_limits_are_not_all_there_is():
    """What the clipping test above must be able to see: half an action does something else than a whole one."""
    for case in ("fake", "lift", "nested"):
        name, options = CASES[case]
        env = envs.make(name, **options)
        ones = np.ones(env.action_space.shape, np.float32)
        assert not same(rollout(env, 5, [ones]), rollout(env, 5, [0.5 * ones]))
        env.close()


def test_gym_scales_actions_and_names_observations():
    env = envs.make("gym:test/Nested-v0")
    observation, _ = env.reset(seed=0)
    assert observation["eye"].shape == (8, 10, 3) and observation["arm.joints"].shape == (4,)
    env.step(np.array([-1.0, 0.0], np.float32))
    np.testing.assert_allclose(env.unwrapped.action, [[-2.0], [5.0]])
    *_, terminated, _, info = env.step(np.array([0.0, 1.0], np.float32))
    assert terminated and info["success"]
    observation, *_ = env.step(np.array([1.0, -1.0], np.float32))
    np.testing.assert_allclose(env.unwrapped.action, [[2.0], [0.0]])
    assert set(envs.make("gym:test/Pixels-v0").observation_space.spaces) == {"image"}


def test_names_with_spaces_become_names_that_a_file_can_hold():
    env = envs.make("gym:test/Rooms-v0")
    assert Spec.from_spaces(env.observation_space, env.action_space).states == {
        "desired_goal.light_switch": 2, "observation": 3,
    }  # fmt: skip
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation["observation"], 2)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("simm", {}, "simm"),
        ("sim", {"tusk": "Lift"}, "task"),
        ("sim", {"task": "Lyft"}, "Lift"),
        ("sim", {"robot": "Pando"}, "Panda"),
        ("sim", {"cameras": ["agentvieww"]}, "agentview"),
        ("sim", {"control_hz": 0}, "control_hz"),
        ("sim", {"image_size": -3}, "image_size"),
        ("sim", {"action": "joints"}, "action"),
        ("sim", {"render": "faster"}, "fast"),
        ("sim", {"robot": "Baxter"}, "Baxter"),
        ("sim", {"robot": "SpotArm"}, "SpotArm"),
        ("sim", {"task": "Can", "placement_m": 0.1}, "placement_m"),
        ("fake", {"image_size": 2}, "image_size"),
        ("fake", {"image_size": 100_000}, "image_size"),
        ("fake", {"horizon": 0}, "horizon"),
        ("fake", {"image_size": "big"}, "image_size is 'big'; it must be a whole number"),
        ("fake", {"step_ms": -1.0}, "step_ms"),
        ("fake", {"step_ms": np.inf}, "step_ms"),
        ("fake", {"reach": -1.0}, "reach"),
        ("sim", {"image_size": 100_000}, "image_size"),
        ("sim", {"control_hz": np.nan}, "control_hz"),
        ("gym:Pendulumm-v1", {}, "Pendulumm-v1"),
        ("gym:Pendulum-v1", {"kwargs": {"gravitty": 1}}, "gravitty"),
        ("gym:", {}, "gym:"),
        ("gym:CartPole-v1", {}, "Discrete"),
        ("gym:test/Boundless-v0", {}, "finite bounds"),
        ("gym:test/Words-v0", {}, "observation 'said'"),
        ("sim", {"control_hz": 3000}, "control_hz"),
        ("sim", {"horizon": 0}, "horizon"),
        ("sim", {"placement_m": -0.1}, "placement_m"),
        ("sim", {"placement_m": np.nan}, "placement_m"),
        ("sim", {"placement_m": np.inf}, "placement_m"),
    ],
)
def test_bad_input_is_one_line_that_names_it(name, options, named):
    with pytest.raises(ValueError, match=named) as caught:
        envs.make(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gym:test/Nested-v0", "gym:test/Chores-v0"])
def test_binary_a_success_is_the_only_reward_and_the_end(name):
    env = envs.make(name, binary=True)
    env.reset(seed=0)
    assert env.step(np.array([0.9, 0.0]))[1:4] == (0.0, False, False)
    _, reward, terminated, truncated, info = env.step(np.ones(2))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_success_is_that_nothing_is_left_to_do():
    env = envs.make("gym:test/Chores-v0")
    env.reset(seed=0)
    assert env.step(np.zeros(2))[4]["success"] is False
    _, reward, terminated, _, info = env.step(np.ones(2))
    assert info["success"] and not terminated and reward == 12.0


def test_success_is_that_each_task_has_been_completed_where_none_is_removed():
    """First the kettle, then the microwave: not at once, but both in the episode."""
    env = envs.make("gym:test/Kitchen-v0")
    for _ in range(2):
        env.reset(seed=0)
        steps = [env.step(np.array(action)) for action in ([1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0])]
        assert [step[4]["success"] for step in steps] == [False, False, True, True]
        assert [step[1] for step in steps] == [1.0, 0.0, 1.0, 0.0]


def test_completed_tasks_can_be_the_reward():
    env = envs.make("gym:test/Kitchen-v0", count_tasks=True)
    env.reset(seed=0)
    steps = [env.step(np.array(action)) for action in ([-1.0, -1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0])]
    assert [step[1] for step in steps] == [0.0, 1.0, 1.0, 2.0]
    env = envs.make("gym:test/Kitchen-v0", count_tasks=True, repeat=3)
    env.reset(seed=0)
    assert [env.step(np.array(action))[1] for action in ([1.0, -1.0], [-1.0, 1.0])] == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"Nested-v0: it has no episode_task_completions to count; .*--count-tasks"):
        envs.make("gym:test/Nested-v0", count_tasks=True)


def test_it_says_what_its_actions_mean(env):
    stated = envs.base.action_meaning(env)
    meaning = ActionMeaning.from_dict(json.loads(json.dumps(stated)))
    assert meaning.to_dict() == stated and meaning.kind
    assert len(meaning.low) == env.action_space.shape[0] and len(meaning.names) in (0, len(meaning.low))


def test_the_stated_range_is_that_of_the_environment():
    def step(name, action, **options):
        env = envs.make(name, **options)
        env.reset(seed=0)
        env.step(np.array(action))
        return env

    env = step("gym:test/Nested-v0", [1.0, -1.0])
    stated = envs.base.action_meaning(env)
    assert stated["kind"] == "normalized"
    assert env.unwrapped.action.ravel().tolist() == [stated["high"][0], stated["low"][1]] == [2.0, 0.0]
    env = step("fake", [0.0, -1.0])
    np.testing.assert_allclose(env.unwrapped.velocity[1], envs.base.action_meaning(env)["low"][1])
    env = envs.make("sim", **SMALL_LIFT)
    stated = envs.base.action_meaning(env)
    assert stated["names"] == ["x", "y", "z", "gripper"] and stated["high"] == [0.05, 0.05, 0.05, 1.0]
    assert (stated["kind"], stated["robot"], stated["control_hz"]) == (
        "delta",
        "Panda",
        env.unwrapped.options.control_hz,
    )
    env.close()


def test_an_environment_of_gymnasium_can_state_its_own_meaning(monkeypatch):
    own = {"kind": "absolute", "quantity": "joint position", "units": "rad", "robot": "fr3"}
    monkeypatch.setattr(Nested, "action_meaning", own, raising=False)
    assert envs.base.action_meaning(envs.make("gym:test/Nested-v0")) == own | {"repeat": 1}
    monkeypatch.setattr(Nested, "action_meaning", own | {"control_hz": 50.0}, raising=False)
    stated = envs.base.action_meaning(envs.make("gym:test/Nested-v0", repeat=5))
    assert (stated["control_hz"], stated["repeat"]) == (10.0, 5)
