import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from agent.spec import (
    STEP_COLUMNS,
    STEP_FIELDS,
    Episode,
    Spec,
    SpecError,
    Transition,
    UserError,
    plural,
)

SPEC = Spec({"front": (4, 6, 3)}, {"state": 3}, 2)
ACTIONS = Box(-1, 1, (2,), np.float32)


def observation(value=0):
    return {"front": np.full((4, 6, 3), value, np.uint8), "state": np.full(3, value, np.float32)}


def steps_of(count, **end):
    """Transitions whose every number says which step it is."""
    made = [
        Transition(
            observation(t),
            np.full(2, t / 10, np.float32),
            reward=t / 2,
            terminated=False,
            truncated=False,
            success=t % 2 == 1,
            policy_version=100 + t,
            intervention=t % 3 == 0,
            time_s=1.7e9 + t / 10,
        )
        for t in range(count)
    ]
    made[-1] = dataclasses.replace(made[-1], **(end or {"terminated": True}), final_observation=observation(count))
    return made


def test_from_spaces():
    space = Dict(
        {
            "wrist": Box(0, 255, (8, 8, 3), np.uint8),
            "front": Box(0, 255, (4, 6, 3), np.uint8),
            "state": Box(-np.inf, np.inf, (3,), np.float64),
        }
    )
    spec = Spec.from_spaces(space, ACTIONS)
    assert spec == Spec({"front": (4, 6, 3), "wrist": (8, 8, 3)}, {"state": 3}, 2)
    assert spec.keys == ["front", "wrist", "state"]
    assert spec.shape("front") == (4, 6, 3) and spec.shape("state") == (3,)
    assert spec.dtype("front") == np.uint8 and spec.dtype("state") == np.float32


@pytest.mark.parametrize(
    "box",
    [
        Box(0, 255, (4, 6, 1), np.uint8),
        Box(0, 255, (3, 4, 6), np.uint8),
        Box(0, 1, (4, 6, 3), np.float32),
        Box(0, 1, (2, 2), np.float32),
        Box(0, 9, (3,), np.int64),
        Discrete(4),
    ],
)
def test_other_observations_are_refused_by_name(box):
    with pytest.raises(SpecError, match="'odd'"):
        Spec.from_spaces(Dict({"odd": box}), ACTIONS)


def test_an_observation_space_without_names_is_refused():
    with pytest.raises(SpecError, match="must be a Dict"):
        Spec.from_spaces(Box(0, 1, (3,)), ACTIONS)


@pytest.mark.parametrize(
    "space", [Box(-2, 2, (2,)), Box(0, 1, (2,)), Box(-1, 1, (2, 2)), Box(np.float32([-1, 0]), np.float32([1, 1]))]
)
def test_other_actions_are_refused(space):
    with pytest.raises(SpecError, match="action space"):
        Spec.from_spaces(Dict({"state": Box(-1, 1, (3,))}), space)


def test_an_action_space_that_is_no_box_is_refused():
    with pytest.raises(SpecError, match="action space"):
        Spec.from_spaces(Dict({"state": Box(-1, 1, (3,))}), gymnasium.spaces.Discrete(3))


def test_to_dict_and_back():
    assert Spec.from_dict(SPEC.to_dict()) == SPEC


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"cameras": {}, "states": {}},
        {"cameras": [], "states": {}, "action_dim": 2},
        {"cameras": {"a": 3}, "states": {}, "action_dim": 2},
        {"cameras": {"a": [4, 4]}, "states": {}, "action_dim": 2},
        {"cameras": {}, "states": {"s": "x"}, "action_dim": 2},
        {"cameras": {}, "states": {"s": None}, "action_dim": 2},
        {"cameras": {}, "states": {}, "action_dim": []},
        {"cameras": {}, "states": {"s": float("inf")}, "action_dim": 2},
        [],
        None,
    ],
)
def test_a_malformed_spec_is_a_spec_error(data):
    with pytest.raises(SpecError, match="malformed"):
        Spec.from_dict(data)


@pytest.mark.parametrize("key", ["", "a/b", ".", "..", "a b", "-a", "a\n", "/etc"])
def test_a_name_that_no_file_could_hold_is_refused(key):
    with pytest.raises(SpecError, match="observation key"):
        Spec({key: (4, 4, 3)}, {}, 2)
    with pytest.raises(SpecError, match="observation key"):
        Spec.from_dict({"cameras": {}, "states": {key: 3}, "action_dim": 2})


@pytest.mark.parametrize("shape", [(4, 6, 1), (4, 6, 4), (4, 6)])
def test_a_camera_has_three_channels(shape):
    with pytest.raises(SpecError, match=r"camera 'eye' is \[4, 6"):
        Spec({"eye": shape}, {}, 2)


def test_a_name_is_a_camera_or_a_state():
    with pytest.raises(SpecError, match="'a'"):
        Spec({"a": (4, 4, 3)}, {"a": 3}, 2)


def test_differences_name_each_key():
    other = Spec({"front": (8, 6, 3), "wrist": (4, 4, 3)}, {}, 7)
    found = "; ".join(SPEC.differences(other))
    for text in (
        "camera 'front': (4, 6, 3) against (8, 6, 3)",
        "camera 'wrist': none against (4, 4, 3)",
        "state 'state': 3 against none",
        "action_dim: 2 against 7",
    ):
        assert text in found
    assert SPEC.differences(Spec.from_dict(SPEC.to_dict())) == []


def test_a_spec_error_is_the_users_and_a_value_error():
    assert issubclass(SpecError, UserError) and issubclass(SpecError, ValueError)


BAD_OBSERVATIONS = {
    "missing": ({"front": observation()["front"]}, "missing .*'state'"),
    "unexpected": ({**observation(), "extra": np.zeros(1)}, "unexpected .*'extra'"),
    "shape": ({**observation(), "state": np.zeros(4, np.float32)}, r"'state' is float32\[4\], expected float32\[3\]"),
    "dtype": ({**observation(), "state": np.zeros(3)}, "'state' is float64"),
    "image dtype": ({**observation(), "front": np.zeros((4, 6, 3), np.float32)}, "'front' is float32"),
    "not finite": (
        {**observation(), "state": np.array([0, np.nan, 0], np.float32)},
        r"'state' .* not finite: nan at .1.",
    ),
}


@pytest.mark.parametrize("name", BAD_OBSERVATIONS)
def test_observations_that_do_not_fit(name):
    bad, text = BAD_OBSERVATIONS[name]
    SPEC.check_observation(observation())
    with pytest.raises(SpecError, match=text):
        SPEC.check_observation(bad)
    with pytest.raises(SpecError, match=text):
        dataclasses.replace(steps_of(2)[0], observation=bad).check(SPEC)
    with pytest.raises(SpecError, match=text):
        dataclasses.replace(steps_of(1)[0], final_observation=bad).check(SPEC)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"action": np.zeros(3, np.float32)}, "'action'"),
        ({"action": np.zeros(2)}, "'action' is float64"),
        ({"action": np.array([0, np.inf], np.float32)}, "'action'"),
        ({"action": np.array([0, 1.1], np.float32)}, "outside"),
        ({"action": np.array([-1.1, 0], np.float32)}, "outside"),
        ({"reward": float("nan")}, "reward"),
        ({"terminated": True}, "final observation"),
        ({"truncated": True}, "final observation"),
        ({"final_observation": observation()}, "final observation"),
    ],
)
def test_transitions_that_do_not_fit(change, text):
    step = steps_of(2)[0]
    step.check(SPEC)
    with pytest.raises(SpecError, match=text):
        dataclasses.replace(step, **change).check(SPEC)


@pytest.mark.parametrize("end", [{"terminated": True}, {"truncated": True}])
def test_an_episode_is_its_transitions(end):
    steps = steps_of(5, **end)
    episode = Episode.from_transitions(steps, {"seed": 3})
    episode.check(SPEC)
    assert len(episode) == 5 and episode.spec == SPEC and episode.meta == {"seed": 3}
    np.testing.assert_array_equal(episode.observations["state"][:, 0], range(6))
    np.testing.assert_array_equal(episode.observations["front"][:, 3, 5, 2], range(6))
    np.testing.assert_array_equal(episode.rewards, [0, 0.5, 1, 1.5, 2])
    assert episode.episode_return == 5.0 and episode.succeeded
    for name, dtype in STEP_COLUMNS.items():
        assert getattr(episode, name).dtype == dtype, name
    back = episode.transitions()
    assert [step.last for step in back] == [False] * 4 + [True]
    assert [step.final_observation is None for step in back] == [True] * 4 + [False]
    for mine, theirs in zip(steps, back, strict=True):
        theirs.check(SPEC)
        np.testing.assert_array_equal(mine.action, theirs.action)
        for name in STEP_FIELDS.values():
            assert getattr(mine, name) == getattr(theirs, name), name
    assert Episode.from_transitions(back, episode.meta).equals(episode)


def test_an_episode_without_an_end_is_refused():
    for steps in ([], steps_of(3)[:2]):
        with pytest.raises(SpecError, match="final observation"):
            Episode.from_transitions(steps)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rewards": np.zeros(4, np.float32)}, "'rewards'"),
        ({"rewards": np.zeros(3, np.float64)}, "'rewards'"),
        ({"actions": np.zeros((3, 3), np.float32)}, "'actions'"),
        ({"actions": np.array([[0, 0], [0, 1.1], [0, 0]], np.float32)}, r"'actions' has values outside .*: 1\.1"),
        ({"actions": np.array([[0, 0], [0, -1.1], [0, 0]], np.float32)}, "outside"),
        ({"times_s": np.full(3, np.nan)}, "'times_s'"),
        ({"observations": {key: np.stack([value] * 3) for key, value in observation().items()}}, "'front'"),
        ({"terminated": np.array([False, True, True])}, "only there"),
        ({"terminated": np.zeros(3, bool)}, "only there"),
    ],
)
def test_episodes_that_do_not_fit(change, text):
    episode = Episode.from_transitions(steps_of(3))
    episode.check(SPEC)
    with pytest.raises(SpecError, match=text):
        dataclasses.replace(episode, **change).check(SPEC)


def test_equals_sees_every_bit():
    make = lambda: Episode.from_transitions(steps_of(3), {"seed": 1})  # noqa: E731
    assert make().equals(make())
    for name in STEP_COLUMNS:
        other = make()
        column = getattr(other, name)
        column[1] = ~column[1] if column.dtype == bool else column[1] + 1
        assert not make().equals(other), name
    for change in (lambda e: e.observations["front"].__setitem__((3, 0, 0, 0), 9), lambda e: e.meta.update(seed=2)):
        other = make()
        change(other)
        assert not make().equals(other)


@pytest.mark.parametrize(("count", "text"), [(0, "0 robots"), (1, "1 robot"), (2, "2 robots")])
def test_one_robot_is_one_robot(count, text):
    assert plural(count, "robot") == text
