"""Gradients that are far longer than usual, by Adam's own measure."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from agent.calql.algorithm import Weights
from agent.calql.gradient_clipping import clip
from agent.config import CalQLConfig, RunConfig
from agent.env_record import EnvRecord
from agent.run import checkpoint
from agent.run.checkpoint import Checkpoint
from agent.spec import Spec, UserError


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


@pytest.mark.parametrize("lengths", [[1.0, 0.0, 0.0], [0.0, 0.0]])
def test_a_zero_gradient_stays_zero(adam, lengths):
    _, step = adam
    assert length(step(lengths, times=2.0)[-1][1]) == 0


def test_a_first_gradient_of_zero_does_not_freeze_the_group(adam):
    _, step = adam
    reached = step([0.0, 3.0, 3.0], times=2.0)
    assert length(reached[1][1]) == length(reached[1][0]) == pytest.approx(3)
    assert length(reached[2][1]) == pytest.approx(3)


def test_what_is_not_finite_stays_so(adam):
    """So that CalQL.check_alive sees it."""
    optimizer, step = adam
    step([1.0], times=2.0)
    for value in (torch.nan, torch.inf):
        gradients = [torch.full_like(p, value) for p in optimizer.param_groups[0]["params"]]
        clip(gradients, optimizer, 2.0)
        assert not any(gradient.isfinite().any() for gradient in gradients)


@pytest.mark.parametrize("times", [0.0, 2.0])
def test_how_long_it_was_is_said(adam, times):
    optimizer, step = adam
    step([1.0], times=0)
    gradients = [torch.zeros_like(p) for p in optimizer.param_groups[0]["params"]]
    gradients[1][2] = 30.0
    assert float(clip(gradients, optimizer, times)) == pytest.approx(30, rel=1e-5)
    assert float(gradients[1][2]) == pytest.approx(2 if times else 30, rel=1e-5)


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


def test_what_is_cut_are_the_critics_and_the_actors_own_gradients(make_agent, make_batch, monkeypatch):
    spec, cut = Spec({}, {"pos": 3}, 2), []
    agent = make_agent(spec, lagrange_threshold=0.8)

    def spy(gradients, optimizer, times):
        cut.append(([tuple(g.shape) for g in gradients], optimizer, times))
        return torch.ones(())

    monkeypatch.setattr("agent.calql.algorithm.clip", spy)
    agent.update(make_batch(8, spec), Weights(1.0, 0.5))
    assert [optimizer for _, optimizer, _ in cut] == [agent.optimizers["critic"], agent.optimizers["actor"]]
    for (shapes, _, times), name in zip(cut, ("critic", "actor"), strict=True):
        assert shapes == [tuple(p.shape) for p in agent.parameters[name]] and times == 2.0


def test_a_surprise_of_the_actor_is_cut(make_agent, make_batch):
    spec = Spec({}, {"pos": 3}, 2)
    agent, batch = make_agent(spec), make_batch(8, spec)
    for _ in range(5):
        usual = agent.update(batch, Weights(1.0, 0.5))
    odd = agent.update(batch, Weights(1.0, 1e4))
    assert odd["actor_gradient"] > 100 * usual["actor_gradient"] and odd["critic_gradient"] < 2
    cut = lengths_of(agent)["actor"]
    agent.update(batch, Weights(1.0, 0.5))
    assert cut < 5 * lengths_of(agent)["actor"]


def test_zero_is_plain_adam(make_agent, make_batch, monkeypatch):
    spec = Spec({}, {"pos": 3}, 2)
    ours, theirs = make_agent(spec, gradient_clip=0.0), make_agent(spec)
    for seed in range(3):
        ours.update(make_batch(8, spec, seed=seed), Weights(1.0, 0.5))
    monkeypatch.setattr("agent.calql.algorithm.clip", lambda *given: torch.ones(()))
    for seed in range(3):
        theirs.update(make_batch(8, spec, seed=seed), Weights(1.0, 0.5))
    for one, two in zip(ours.critics.parameters(), theirs.critics.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("times", [0.5, 1.0])
def test_a_limit_below_the_usual_is_refused(times):
    config = RunConfig(calql=CalQLConfig(gradient_clip=times))
    with pytest.raises(UserError, match=f"gradient_clip is {times}; it must be above 1, or 0"):
        config.checked()


def test_a_checkpoint_from_before_was_made_without(make_agent, tmp_path):
    """A published preset, or a run that was begun without, does not go on with it unsaid."""
    agent, config = make_agent(Spec({}, {"pos": 3}, 2)), dataclasses.asdict(CalQLConfig())
    del config["gradient_clip"]
    old = Checkpoint(Spec({}, {"pos": 3}, 2), EnvRecord("fake"), {"calql": config}, agent.state_dict(), {})
    old.save(tmp_path / "old.pt")
    assert checkpoint.load(tmp_path / "old.pt").section("calql").gradient_clip == 0
    old.config["calql"]["gradient_clip"] = 3.0
    old.save(tmp_path / "new.pt")
    assert checkpoint.load(tmp_path / "new.pt").section("calql").gradient_clip == 3


def test_an_update_without_the_actor_is_clipped_alike(make_agent, make_batch):
    agent, odd = surprised(make_agent, make_batch, gradient_clip=2.0)
    alone = copy.deepcopy(agent)
    agent.update(odd, Weights(1.0, 0.5))
    alone.update(odd, Weights(1.0, 0.5), update_actor=False)
    assert lengths_of(agent)["critic"] == pytest.approx(length([p.grad for p in alone.parameters["critic"]]), rel=1e-4)
