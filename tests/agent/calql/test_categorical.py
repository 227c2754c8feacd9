"""Categorical critics: what their histogram must be, and that all that uses Q takes the expectation."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from agent.calql.algorithm import Weights
from agent.calql.categorical import MARGIN, SIGMA, CategoricalCritics
from agent.config import NetworkConfig, RunConfig
from agent.spec import UserError

SMALL = NetworkConfig(critics=3, critic_hidden=[8], critic_bins=51)


@pytest.fixture
def critics():
    torch.manual_seed(0)
    made = CategoricalCritics(6, 2, SMALL)
    made.start(-20.0, 0.0, None)
    return made


def test_bins_cover_the_returns_and_a_margin(critics):
    assert critics.edges[0] == pytest.approx(-20 - 20 * MARGIN) and critics.edges[-1] == pytest.approx(20 * MARGIN)
    critics.start(1.0, 1.0, None)  # one return only
    assert (critics.edges.diff() > 0).all()


def test_a_target_is_the_share_of_a_gaussian_in_each_bin(critics):
    edges = critics.edges.numpy().astype(np.float64)
    gaussian = norm(-7.3, SIGMA * (edges[1] - edges[0]))
    shares = np.diff(gaussian.cdf(edges)) / (gaussian.cdf(edges[-1]) - gaussian.cdf(edges[0]))
    np.testing.assert_allclose(critics.distribution(torch.tensor([-7.3]))[0], shares, atol=1e-6)


@pytest.mark.parametrize("target", [-20.0, -11.4, -3.0, 0.0])
def test_the_expectation_of_a_target_is_the_target(critics, target):
    logits = critics.distribution(torch.tensor([target])).clamp(1e-30).log()
    assert critics.values(logits).item() == pytest.approx(target, abs=0.01)


def test_targets_beyond_the_bins_are_at_their_ends(critics):
    shares = critics.distribution(torch.tensor([-1e6, 1e6]))
    assert shares.isfinite().all() and torch.allclose(shares.sum(1), torch.ones(2))
    assert shares[0].argmax() == 0 and shares[1].argmax() == 50


def test_critics_start_at_the_return_they_are_given(critics):
    critics.start(-20.0, 0.0, -12.0)
    critics.weights[-1].data.zero_()
    values = critics(torch.randn(5, 6), torch.rand(5, 4, 2))
    assert values.shape == (3, 5, 4) and (values + 12).abs().max() < 1  # the ends of the bins cut the Gaussian
    assert critics.biases[-1].softmax(-1).min() > 1e-6  # every bin can be reached


def test_the_loss_is_the_cross_entropy(critics):
    outputs, target = torch.randn(3, 4, 51), torch.tensor([-9.5, -3.0, 0.0, -20.0])
    wanted = torch.nn.functional.cross_entropy(outputs[1], critics.distribution(target))
    assert critics.td_loss(outputs, target).shape == (3,)
    assert torch.allclose(critics.td_loss(outputs, target)[1], wanted)


def test_one_transition_cannot_have_a_gradient_beyond_all_bounds(critics):
    """What a squared error lacks: twice as far off is not twice the gradient."""
    steep = []
    for target in (-10.0, -1000.0):
        logits = torch.zeros(3, 1, 51, requires_grad=True)
        (gradient,) = torch.autograd.grad(critics.td_loss(logits, torch.tensor([target])).sum(), logits)
        steep.append(gradient.norm().item())
    assert steep[1] < 2 * steep[0]


@pytest.mark.parametrize("members, frozen", [(None, False), (torch.tensor([2, 0]), False), (None, True)])
def test_members_and_frozen_parameters(critics, members, frozen):
    features, actions = torch.randn(5, 6, requires_grad=True), torch.rand(5, 4, 2)
    values = critics(features, actions, members, frozen)
    every = critics(features, actions)
    assert torch.allclose(values, every if members is None else every[members])
    values.sum().backward()
    assert features.grad.abs().max() > 0 and (critics.weights[-1].grad is None) == frozen


def test_agents_learn_and_go_on_from_their_state(make_agent, make_batch):
    agent, batch = make_agent(critic_bins=11), make_batch(returns=np.linspace(-2, 2, 6))
    agent.start_critics(-2, 2, 0.5)
    assert torch.equal(agent.targets.edges, agent.critics.edges) and agent.targets.edges[0] < -2
    losses = [agent.update(batch, Weights(1.0, 0.0))["td_loss"].item() for _ in range(60)]
    assert all(map(math.isfinite, losses)) and np.mean(losses[-5:]) < np.mean(losses[:5])
    again = make_agent(critic_bins=11)
    again.load_state_dict(agent.state_dict())
    assert torch.equal(again.critics.edges, agent.critics.edges)


def test_the_target_takes_expectations(make_agent, make_batch):
    """y = r + gamma min_i E_i, of an agent whose histograms are all at one value."""
    agent, batch = make_agent(critic_bins=41), make_batch(returns=np.zeros(6))
    agent.start_critics(-3, 3, None)
    for critics in (agent.critics, agent.targets):
        critics.weights[-1].data.zero_()
        critics.biases[-1].data.copy_(critics.distribution(torch.tensor([1.5])).log().clamp(min=-50))
    with torch.no_grad():
        following = agent.policy.encoder(batch.next_observations)
        target = agent.target(following, agent.policy.actor(following), batch, agent.draw(6, False, False))
    wanted = batch.rewards + agent.config.gamma * (1 - batch.terminated) * 1.5
    assert torch.allclose(target, wanted, atol=0.02)


def test_one_bin_is_refused():
    """Its share is always 1: nothing could be learnt."""
    with pytest.raises(UserError, match=r"critic_bins is 1: .*; it must be 2 or more, or 0 for off"):
        RunConfig(network=NetworkConfig(critic_bins=1)).checked()
