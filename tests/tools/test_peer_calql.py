"""What the peer is given: the same steps, with our rewards and returns, and settings that mean the same."""

import dataclasses

import numpy as np
import pytest
import torch

from agent.config import CalQLConfig, NetworkConfig, OfflineConfig, RewardConfig
from agent.replay import Replay
from agent.spec import Episode, Spec, Transition
from tools.bench import peer_calql

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
def steps():
    replay = Replay(SPEC, 20, RewardConfig(), gamma=0.5)
    replay.add(episode([1.0, 2.0, 3.0], success=True))
    replay.add(episode([5.0, 6.0, 7.0], success=False))
    return peer_calql.steps_of(replay)


def test_every_step_is_given_once_with_the_state_that_followed_it(steps):
    before, after = (steps[name] * steps["std"] + steps["mean"] for name in ("states", "following"))
    assert before[:, 0] == pytest.approx([1, 2, 5, 6]) and before[:, 2] == pytest.approx([-1, -2, -5, -6])
    assert after[:, 0] == pytest.approx([2, 3, 6, 7])  # never across the border of two episodes
    assert steps["actions"][:, 0] == pytest.approx([0.1, 0.2, 0.5, 0.6])


def test_rewards_ends_and_returns_are_ours(steps):
    assert steps["rewards"].tolist() == [-1, 0, -1, -1] and steps["terminated"].tolist() == [0, 1, 0, 0]
    assert steps["returns"].tolist() == [-1, 0, -2, -2]  # -1 / (1 - 0.5) where all is failure


def test_what_they_do_not_have_is_named_and_what_both_have_is_handed_on():
    plain = CalQLConfig(**peer_calql.NOT_THEIRS, gamma=0.9)
    assert peer_calql.differences(plain) == []
    found = peer_calql.differences(dataclasses.replace(plain, bc_weight=1.0, actor_q="mean"))
    assert found == ["bc_weight 1.0", "actor_q mean"]
    sections = {"calql": plain, "network": NetworkConfig(critics=3), "offline": OfflineConfig(batch=32)}
    asked = peer_calql.asked_of_them(sections, 10, seed=4)
    assert (asked["updates"], asked["batch"], asked["seed"]) == (10, 32, 4)
    config = asked["config"]
    assert (config["gamma"], config["n_critics"], config["alpha_threshold"]) == (0.9, 3, 0.0)
    assert config["alpha_learning_rate"] == 0.0  # no Lagrange form


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_their_policy_sees_standardised_states_in_the_replays_order(tmp_path):
    class Shows(torch.nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * states

    torch.jit.script(Shows()).save(str(tmp_path / "policy.pt"))
    mean, std = np.array([1.0, 1.0, 1.0], np.float32), np.array([1.0, 2.0, 4.0], np.float32)
    policy = peer_calql.Theirs(tmp_path / "policy.pt", mean, std, ["arm", "thing"])
    seen = {"thing": np.array([5.0], np.float32), "arm": np.array([2.0, 3.0], np.float32)}
    assert policy.act(seen).tolist() == [2.0, 2.0, 2.0]
