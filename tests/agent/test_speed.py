"""Compiled, captured and bf16 updates against the eager ones. Those of a GPU run where there is one."""

import pytest
import torch

from agent.calql import Weights
from agent.config import LearnerConfig
from agent.spec import UserError
from agent.speed import accelerate, has_compiler

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def difference(one, other):
    """The largest one between the networks' parameters, the temperature and the multiplier."""
    pairs = zip(*([p for group in agent.parameters.values() for p in group] for agent in (one, other)), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def train(agent, make_batch, updates, actor_every=1):
    for step in range(updates):
        metrics = agent.learn(make_batch(seed=step).to(agent.device), Weights(1.0 + step, 0.5), step % actor_every == 0)
    return metrics


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_and_eager_updates_agree(make_agent, make_batch):
    """Same seed, 50 updates, a conservative weight that changes at each."""
    eager, compiled = make_agent(lagrange_threshold=0.8), make_agent(lagrange_threshold=0.8)
    accelerate(compiled, LearnerConfig(mode="compile"))
    began = make_agent(lagrange_threshold=0.8)
    metrics = [train(agent, make_batch, 50) for agent in (eager, compiled)]
    assert difference(eager, began) > 1e-2
    assert difference(eager, compiled) < 1e-5
    assert metrics[0].keys() == metrics[1].keys()
    for name, value in metrics[0].items():
        torch.testing.assert_close(value, metrics[1][name], rtol=1e-3, atol=1e-4)
    average = zip(eager.average.parameters(), compiled.average.parameters(), strict=True)
    assert all((a - b).abs().max() < 1e-5 for a, b in average)


@pytest.mark.parametrize("kind", ["encoder", "all"])
def test_bf16_is_near_and_keeps_parameters_and_metrics_in_float32(make_agent, make_batch, kind):
    plain, half = make_agent(), make_agent()
    accelerate(half, LearnerConfig(bf16=kind))
    batch = make_batch()
    metrics = [agent.learn(batch, Weights(1.0, 0.5)) for agent in (plain, half)]
    assert 0 < difference(plain, half) < 3e-3  # one step of Adam moves by at most its learning rate, 1e-3
    for name, value in metrics[0].items():
        torch.testing.assert_close(metrics[1][name].float(), value, rtol=0.1, atol=0.1)
    assert all(p.dtype == torch.float32 for group in half.parameters.values() for p in group)
    gradients = [torch.cat([p.grad.flatten() for p in agent.parameters["critic"]]) for agent in (plain, half)]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_what_this_machine_cannot_do_is_one_line(make_agent, monkeypatch):
    with pytest.raises(UserError, match="'graph' needs a CUDA device"):
        accelerate(make_agent(), LearnerConfig(mode="graph"))
    monkeypatch.setattr("agent.speed.shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        accelerate(make_agent(), LearnerConfig(mode="compile"))


@needs_gpu
@pytest.mark.parametrize("actor_every", [1, 3])
def test_captured_and_eager_updates_agree(make_agent, make_batch, actor_every):
    agents = [make_agent(device="cuda", policy_average=0.9) for _ in range(2)]
    accelerate(agents[1], LearnerConfig(mode="graph"))
    for agent in agents:
        train(agent, make_batch, 60, actor_every)
    assert difference(*agents) < 1e-4
    assert torch.equal(agents[0].generator.get_state(), agents[1].generator.get_state())
    assert agents[0].updates == agents[1].updates == 60
