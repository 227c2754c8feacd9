"""The policy as a robot uses it: act, and weights that travel."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agent.policy import Policy
from robot_server import session
from robot_server.config import RobotConfig


@pytest.fixture
def policy(spec, network):
    torch.manual_seed(0)
    return Policy(spec, network)


@pytest.fixture
def observation():
    rng = np.random.default_rng(0)
    return {"cam": rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), "pos": rng.normal(size=3).astype(np.float32)}


def test_act_gives_one_action_in_range(policy, observation):
    with torch.no_grad():
        policy.actor.mean.bias.fill_(30.0)  # as far out as it gets
    for deterministic in (False, True):
        action = policy.act(observation, deterministic)
        assert isinstance(action, np.ndarray) and action.shape == (2,) and action.dtype == np.float32
        assert np.abs(action).max() <= 1


def test_act_samples_or_takes_the_mode(policy, observation):
    assert not np.array_equal(policy.act(observation), policy.act(observation))
    mode = policy.act(observation, deterministic=True)
    np.testing.assert_array_equal(mode, policy.act(observation, deterministic=True))
    batch = {key: torch.as_tensor(value)[None] for key, value in observation.items()}
    np.testing.assert_allclose(mode, policy(batch).mean[0].tanh().detach().numpy(), rtol=1e-5)
    samples = np.stack([policy.act(observation) for _ in range(300)])
    np.testing.assert_allclose(np.arctanh(samples).std(0), 1.0, atol=0.2)  # log std starts at about 0


def test_act_takes_arrays_as_a_camera_gives_them(policy, observation):
    """Read-only, not contiguous (a mirrored picture), with keys in another order and some to spare."""
    odd = {"unused": np.zeros(1), "pos": observation["pos"], "cam": observation["cam"][:, ::-1].copy()[:, ::-1]}
    odd["pos"].flags.writeable = False
    np.testing.assert_allclose(policy.act(odd, True), policy.act(observation, True), rtol=1e-5)


def test_weights_travel(policy, spec, network, observation):
    torch.manual_seed(1)
    other = Policy(spec, network)
    policy.encoder.standardise(torch.ones(3), torch.full((3,), 2.0))
    weights = policy.weights()
    assert all(isinstance(value, np.ndarray) for value in weights.values())
    assert not np.array_equal(policy.act(observation, True), other.act(observation, True))
    other.load_weights({name: np.frombuffer(w.tobytes(), w.dtype).reshape(w.shape) for name, w in weights.items()})
    np.testing.assert_array_equal(policy.act(observation, True), other.act(observation, True))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in policy.state_dict().items())


def test_weights_are_a_copy(policy):
    weights = policy.weights()
    before = copy.deepcopy(weights)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 1
    assert all(np.array_equal(weights[name], before[name]) for name in weights)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_other_weights_are_refused_and_nothing_changes(policy, fault):
    before = policy.weights()
    weights = {name: value + 1 for name, value in before.items()}
    name = list(weights)[-1]  # the last, so that a loop which copies as it checks has changed the others
    if fault == "missing":
        del weights[name]
    elif fault == "extra":
        weights["more"] = np.zeros(1)
    else:
        weights[name] = np.zeros((7, 7), np.float32)
    with pytest.raises(ValueError, match="more" if fault == "extra" else name):
        policy.load_weights(weights)
    assert all(np.array_equal(value, before[name]) for name, value in policy.weights().items())


def test_the_first_policy_has_acted_before_the_control_loop_begins(policy, network, monkeypatch):
    """What the first action builds (the encoder's CPU kernel) would hold the arm up."""
    acted, act = [], Policy.act

    def spied(self, observation, deterministic=False):
        acted.append(sum(parameter.sum().item() for parameter in self.parameters()))
        return act(self, observation, deterministic)

    monkeypatch.setattr(Policy, "act", spied)
    link = SimpleNamespace(
        address="here", spec=policy.spec, run="", network=vars(network),
        connection_error="", connect=lambda timeout_s: True, has_weights=lambda timeout_s: True,
        newest_weights=lambda: (1, policy.weights()),
    )  # fmt: skip
    first = session.first_policy(link, RobotConfig(threads=torch.get_num_threads()), lambda: False)
    assert acted == [sum(parameter.sum().item() for parameter in first.parameters())]  # with the weights
    assert acted == [sum(parameter.sum().item() for parameter in policy.parameters())]
