"""What the peer is given: the same steps, with our rewards and returns, and settings that mean the same."""

import dataclasses
import importlib.util
import math
import sys

import numpy as np
import pytest
import torch

from agent.config import CalQLConfig, NetworkConfig, OfflineConfig, RewardConfig
from agent.data.replay_buffer import Replay
from agent.spec import Episode, Spec, Transition, UserError
from tools.learning import peer_d3rlpy

SPEC = Spec({}, {"arm": 2, "thing": 1}, 1)


def episode(values, success):
    """States (v, 2 v) and (-v,), one after the other; the last one is only seen."""

    def seen(v):
        return {"arm": np.array([v, 2 * v], np.float32), "thing": np.array([-v], np.float32)}

    steps = []
    for number, (v, following) in enumerate(zip(values, values[1:])):
        last = number == len(values) - 2
        steps.append(
            Transition(
                seen(v), np.array([v / 10], np.float32), float(last and success), last and success,
                last and not success, last and success, final_observation=seen(following) if last else None,
            )
        )  # fmt: skip
    return Episode.from_transitions(steps)


@pytest.fixture
def replay():
    made = Replay(SPEC, 20, RewardConfig(), gamma=0.5)
    made.add(episode([1.0, 2.0, 3.0], success=True))
    made.add(episode([5.0, 6.0, 7.0], success=False))
    return made


@pytest.fixture
def steps(replay):
    return peer_d3rlpy.steps_of(replay)


@pytest.mark.skipif(importlib.util.find_spec("d3rlpy") is not None, reason="d3rlpy is here")
def test_a_peer_without_d3rlpy_is_named_with_what_it_lacks(replay, sections):
    asked = peer_d3rlpy.asked_of_them(sections, 1, 0)
    with (
        pytest.raises(UserError, match="No module named 'd3rlpy'"),
        peer_d3rlpy.trained_by_them(sys.executable, replay, asked),
    ):
        pass


def test_every_step_is_given_once_with_the_state_that_followed_it(steps):
    before, after = (steps[name] * steps["std"] + steps["mean"] for name in ("states", "following"))
    assert before[:, 0] == pytest.approx([1, 2, 5, 6]) and before[:, 2] == pytest.approx([-1, -2, -5, -6])
    assert after[:, 0] == pytest.approx([2, 3, 6, 7])  # never across the border of two episodes
    assert steps["actions"][:, 0] == pytest.approx([0.1, 0.2, 0.5, 0.6])


def test_rewards_ends_and_returns_are_ours(steps):
    assert steps["rewards"].tolist() == [-1, 0, -1, -1] and steps["terminated"].tolist() == [0, 1, 0, 0]
    assert steps["returns"].tolist() == [-1, 0, -2, -2]  # -1 / (1 - 0.5) where all is failure


@pytest.fixture
def sections():
    """Nothing but what they have, too; every number another."""
    calql = CalQLConfig(
        **peer_d3rlpy.NOT_THEIRS["calql"], gamma=0.9, target_rate=0.02, actor_lr=1e-4, critic_lr=2e-4,
        temperature_lr=3e-4, lagrange_lr=4e-4, cql_weight=5.0, cql_actions=7, initial_temperature=0.3,
        max_target_backup=True,
    )  # fmt: skip
    network = NetworkConfig(**peer_d3rlpy.NOT_THEIRS["network"], critics=3, actor_hidden=[8], critic_hidden=[9, 9])
    return {"calql": calql, "network": network, "offline": OfflineConfig(batch=32)}


def test_what_they_do_not_have_or_have_otherwise_is_named(sections):
    assert peer_d3rlpy.differences(sections) == []
    calql = dataclasses.replace(sections["calql"], bc_weight=1.0, actor_q="mean", cql_clip_low=-5.0)
    network = dataclasses.replace(sections["network"], actor_layer_norm=True, state_features=64)
    found = peer_d3rlpy.differences({**sections, "calql": calql, "network": network})
    assert found == ["bc_weight 1.0", "actor_q mean", "cql_clip_low -5.0", "state_features 64", "actor_layer_norm True"]


def test_what_both_have_is_handed_on(sections):
    expected = {
        "gamma": 0.9, "tau": 0.02, "actor_learning_rate": 1e-4, "critic_learning_rate": 2e-4,
        "temp_learning_rate": 3e-4, "alpha_learning_rate": 0.0, "initial_alpha": 1.0, "alpha_threshold": 0.0,
        "conservative_weight": 5.0, "n_action_samples": 7, "max_q_backup": True, "n_critics": 3,
        "initial_temperature": 0.3,
    }  # fmt: skip
    asked = peer_d3rlpy.asked_of_them(sections, 10, seed=4)
    assert asked == {
        "updates": 10, "batch": 32, "seed": 4, "actor_hidden": [8], "critic_hidden": [9, 9],
        "actor_layer_norm": False, "critic_layer_norm": False, "config": expected,
    }  # fmt: skip
    lagrange = {"alpha_learning_rate": 4e-4, "initial_alpha": math.e, "alpha_threshold": 0.8}
    sections["calql"] = dataclasses.replace(sections["calql"], lagrange_threshold=0.8)
    assert peer_d3rlpy.asked_of_them(sections, 10, seed=4)["config"] == {**expected, **lagrange}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_their_policy_sees_standardised_states_in_the_replays_order(tmp_path):
    class Shows(torch.nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * states

    torch.jit.script(Shows()).save(str(tmp_path / "policy.pt"))
    mean, std = np.array([1.0, 1.0, 1.0], np.float32), np.array([1.0, 2.0, 4.0], np.float32)
    policy = peer_d3rlpy.Theirs(tmp_path / "policy.pt", mean, std, ["arm", "thing"])
    seen = {"thing": np.array([5.0], np.float32), "arm": np.array([2.0, 3.0], np.float32)}
    assert policy.act(seen).tolist() == [2.0, 2.0, 2.0]
