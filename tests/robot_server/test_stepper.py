"""Steps of an environment as they are recorded."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from agent.spec import Spec, SpecError
from robot_server.stepper import ObservationFault, Stepper, own

SPEC = Spec({}, {"state": 2}, 1)


class Scripted:
    """Answers what it is given; its one buffer is used again and again."""

    def __init__(self, *infos, dtype=np.float64):
        self._infos, self.buffer, self.asked = list(infos), np.zeros(2, dtype), []

    def reset(self, *, seed, options):
        self.asked.append((seed, options))
        return {"state": self.buffer}, self._infos.pop(0)

    def step(self, action):
        self.asked.append(action)
        self.buffer += 1
        last = len(self._infos) == 1
        return {"state": self.buffer}, np.float64(0.5), np.bool_(last), False, self._infos.pop(0)


def test_a_step_has_the_age_of_what_was_seen_before_it_and_the_latency_of_its_own_action():
    env = Scripted(
        {"observation_age_s": 0.01},
        {"observation_age_s": 0.02, "action_latency_s": 0.1, "action": np.array([0.25]), "intervention": True},
        {"observation_age_s": 0.03, "action_latency_s": 0.2, "success": True},
    )
    stepper = Stepper(env, SPEC)
    seen = stepper.reset(7, {"a": 1})
    assert env.asked == [(7, {"a": 1})] and seen["state"].dtype == np.float32
    began_s = time.time()
    first, second = (stepper.step(np.array([1.0], np.float32)) for _ in range(2))
    assert [made.observation_age_s for made in (first, second)] == [0.01, 0.02]
    assert [made.action_latency_s for made in (first, second)] == [0.1, 0.2]
    assert [float(made.action[0]) for made in (first, second)] == [0.25, 1.0] and first.action.dtype == np.float32
    assert [made.intervention for made in (first, second)] == [True, False]
    assert [(made.terminated, made.truncated, made.success) for made in (first, second)] == [
        (False, False, False),
        (True, False, True),
    ]
    assert [made.reward for made in (first, second)] == [0.5, 0.5]
    assert began_s <= first.time_s <= second.time_s <= time.time()
    for made, before in ((first, 0), (second, 1)):  # copies: the buffer has gone on
        assert made.observation["state"].tolist() == [before] * 2
        assert made.final_observation["state"].tolist() == [before + 1] * 2
    second.check(SPEC)
    assert stepper.info["observation_age_s"] == 0.03 and stepper.observation["state"].tolist() == [2, 2]


def test_what_says_nothing_has_no_age():
    stepper = Stepper(Scripted({}, {}), SPEC)
    stepper.reset(0)
    made = stepper.step(np.zeros(1, np.float32))
    assert (made.observation_age_s, made.action_latency_s, made.intervention, made.success) == (0, 0, False, False)


def test_observations_of_another_kind_are_refused():
    with pytest.raises(SpecError, match=r"observation: .*float32"):
        Stepper(Scripted({}, dtype=np.complex128), SPEC).reset(0)
    assert own({"state": np.arange(2.0)}, SPEC)["state"].dtype == np.float32


def test_a_step_that_fails_leaves_the_last_that_was_seen():
    env = Scripted({}, {})
    stepper = Stepper(env, SPEC)
    stepper.reset(0)
    env.step = SimpleNamespace(__call__=None)
    with pytest.raises(TypeError):
        stepper.step(np.zeros(1, np.float32))
    assert stepper.observation["state"].tolist() == [0, 0]


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity"), (1e300, "")])
def test_an_observation_that_is_not_finite_is_the_observations_fault(value, word):
    env = Scripted({}, {}, {}, {})
    stepper = Stepper(env, SPEC)
    stepper.reset(7)
    stepper.step(np.zeros(1, np.float32))
    env.buffer[1] = value
    with pytest.raises(ObservationFault, match=rf"^observation 'state' has {word or 'inf'}.* at step 2 .* seed 7"):
        stepper.step(np.zeros(1, np.float32))
    assert stepper.observation["state"].tolist() == [1, 1]  # the last that can be acted on
    env.buffer[1] = np.nan
    with pytest.raises(ObservationFault, match=r"^observation 'state' has NaN after the reset"):
        stepper.reset(7)


def test_a_reward_that_is_not_finite_is_named_with_its_step():
    env = Scripted({}, {}, {})
    stepper = Stepper(env, SPEC)
    stepper.reset(7)
    env.step = lambda action: ({"state": np.zeros(2)}, float("nan"), False, False, {})
    with pytest.raises(ObservationFault, match=r"^the reward is nan at step 1 of the episode with seed 7"):
        stepper.step(np.zeros(1, np.float32))
