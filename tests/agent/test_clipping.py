"""Gradients that are far longer than usual, by Adam's own measure."""

import copy

import numpy as np
import pytest
import torch

from agent.calql import Weights
from agent.clipping import clip
from agent.spec import Spec


@pytest.fixture(params=["fused", "plain"])
def adam(request):
    """(parameters, optimizer, step): step(lengths) makes one step for each, clipped; returns what reached Adam."""
    g = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(3, 4, generator=g)), torch.nn.Parameter(torch.randn(5, generator=g))]
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=request.param == "fused")

    def step(lengths, times):
        reached = []
        for length in lengths:
            gradients = [torch.randn(p.shape, generator=g) for p in parameters]
            scale = length / np.sqrt(sum(float(x.square().sum()) for x in gradients))
            gradients = [x * scale for x in gradients]
            before = copy.deepcopy(gradients)
            if times:
                clip(gradients, optimizer, times)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            reached.append((before, gradients))
        return reached

    return optimizer, step


def length(gradients):
    return float(torch.cat([x.flatten() for x in gradients]).norm())


def test_a_gradient_of_usual_length_stays_bit_for_bit_as_it_is(adam):
    _, step = adam
    for before, after in step([1.0, 1.9, 0.1, 1.0, 1.5], times=2.0):
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_one_of_fifty_times_that_is_as_long_as_the_second_moments_say_and_points_where_it_did(adam):
    _, step = adam
    lengths = [1.0, 1.2, 0.8, 1.1]
    step(lengths, times=2.0)
    ((before, after),) = step([50.0], times=2.0)
    usual, steps = 0.0, len(lengths)
    for one in lengths:  # by hand, of the length alone: the sum of second moments is that of squared lengths
        usual = 0.999 * usual + 0.001 * one**2
    usual = np.sqrt(usual / (1 - 0.999**steps))
    assert length(after) == pytest.approx(2 * usual, rel=1e-5)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(two / length(after), one / length(before))


def test_the_first_step_knows_nothing_usual(adam):
    _, step = adam
    ((before, after),) = step([1e6], times=0.5)
    assert length(after) == length(before) == pytest.approx(1e6)


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_the_scale_of_the_loss_changes_nothing(adam, scale):
    _, step = adam
    lengths = [1.0, 0.7, 30.0, 1.0, 8.0]
    reached = step([scale * one for one in lengths], times=2.0)
    assert length(reached[2][1]) == pytest.approx(2 * scale * np.sqrt((0.999 + 0.7**2) / 1.999), rel=1e-4)
    assert length(reached[3][1]) == pytest.approx(scale, rel=1e-4)
    assert length(reached[4][1]) < 4 * scale


def test_gradients_that_stay_larger_are_let_through_after_a_while(adam):
    _, step = adam
    step([1.0] * 3000, times=0)
    reached = step([10.0] * 2000, times=2.0)
    assert length(reached[0][1]) == pytest.approx(2, rel=0.05)
    assert length(reached[-1][1]) == pytest.approx(10)


def test_a_zero_gradient_stays_zero(adam):
    _, step = adam
    reached = step([1.0, 0.0, 0.0], times=2.0)
    assert length(reached[-1][1]) == 0


def surprised(make_agent, make_batch, **options):
    """An agent after updates on usual batches, and a batch whose rewards surprise the critics."""
    spec = Spec({}, {"pos": 3}, 2)
    agent, usual, odd = make_agent(spec, **options), make_batch(8, spec), make_batch(8, spec, seed=1)
    for _ in range(5):
        agent.update(usual, Weights(1.0, 0.5))
    odd.rewards[3] = 1e4
    return agent, odd


def lengths_of(agent):
    return {name: length([p.grad for p in agent.parameters[name]]) for name in ("critic", "actor", "temperature")}


def test_a_surprise_of_the_critics_is_cut_and_the_actors_gradient_is_not(make_agent, make_batch):
    found = {}
    for times in (0.0, 2.0):
        agent, odd = surprised(make_agent, make_batch, gradient_clip=times)
        agent.update(odd, Weights(1.0, 0.5))
        found[times] = lengths_of(agent)
    assert found[0.0]["critic"] > 100 * found[2.0]["critic"]
    assert found[0.0]["actor"] == pytest.approx(found[2.0]["actor"], rel=0.3)  # its own limit, a usual batch
    assert found[0.0]["temperature"] == pytest.approx(found[2.0]["temperature"], rel=1e-3)


def test_zero_is_plain_adam(make_agent, make_batch):
    spec = Spec({}, {"pos": 3}, 2)
    ours, theirs = make_agent(spec, gradient_clip=0.0), make_agent(spec, gradient_clip=1e9)
    for seed in range(3):
        for agent in (ours, theirs):
            agent.update(make_batch(8, spec, seed=seed), Weights(1.0, 0.5))
    for one, two in zip(ours.critics.parameters(), theirs.critics.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_update_without_the_actor_is_clipped_alike(make_agent, make_batch):
    agent, odd = surprised(make_agent, make_batch, gradient_clip=2.0)
    alone = copy.deepcopy(agent)
    agent.update(odd, Weights(1.0, 0.5))
    alone.update(odd, Weights(1.0, 0.5), update_actor=False)
    assert lengths_of(agent)["critic"] == pytest.approx(length([p.grad for p in alone.parameters["critic"]]), rel=1e-4)
