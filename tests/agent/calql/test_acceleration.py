"""Compiled, captured and bf16 updates against the eager ones. Those of a GPU run where there is one."""

import functools

import pytest
import torch

from agent.calql import acceleration
from agent.calql.acceleration import Graphs, accelerate, bf16_cost, has_compiler
from agent.calql.algorithm import Weights
from agent.config import LearnerConfig
from agent.spec import UserError

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
@pytest.mark.parametrize(
    "options, backend",
    [
        ({"lagrange_threshold": 0.8, "max_target_backup": True}, "aot_eager"),
        ({"critic_hidden": [16], "state_features": 0}, "inductor"),  # small: each kernel's C++ takes seconds
    ],
    ids=str,
)
def test_compiled_and_eager_updates_agree(make_agent, make_batch, monkeypatch, options, backend):
    """Same seed, 50 updates, a conservative weight that changes at each."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    eager, compiled, began = (make_agent(**options) for _ in range(3))
    accelerate(compiled, LearnerConfig(mode="compile"))
    metrics = [train(agent, make_batch, 50) for agent in (eager, compiled)]
    assert difference(eager, began) > 1e-2
    assert difference(eager, compiled) < 1e-5
    assert metrics[0].keys() == metrics[1].keys()
    for name, value in metrics[0].items():
        torch.testing.assert_close(value, metrics[1][name], rtol=1e-3, atol=1e-4)
    average = zip(eager.average.parameters(), compiled.average.parameters(), strict=True)
    assert all((a - b).abs().max() < 1e-5 for a, b in average)


@pytest.mark.parametrize("kind, best_of_n", [("encoder", False), ("all", True)])
def test_bf16_is_near_and_keeps_parameters_and_metrics_in_float32(make_agent, make_batch, kind, best_of_n, monkeypatch):
    monkeypatch.setattr(acceleration, "bf16_cost", lambda: 0.3)  # whatever this machine's
    plain, half = (make_agent(max_target_backup=best_of_n) for _ in range(2))
    accelerate(half, LearnerConfig(bf16=kind))
    batch = make_batch()
    metrics = [agent.learn(batch, Weights(1.0, 0.5)) for agent in (plain, half)]
    assert 0 < difference(plain, half) < 3e-3  # one step of Adam moves by at most its learning rate, 1e-3
    for name, value in metrics[0].items():
        torch.testing.assert_close(metrics[1][name].float(), value, rtol=0.1, atol=0.1)
    assert all(p.dtype == torch.float32 for group in half.parameters.values() for p in group)
    gradients = [torch.cat([p.grad.flatten() for p in agent.parameters["critic"]]) for agent in (plain, half)]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_cpu_slow_in_bf16_computes_in_float32_and_says_so_in_one_line(make_agent, monkeypatch):
    def accelerated(cost, config, device="cpu"):
        monkeypatch.setattr(acceleration, "bf16_cost", lambda: cost)
        agent = make_agent()
        agent.device = torch.device(device)
        return accelerate(agent, LearnerConfig(bf16=config)), agent.bf16

    for kind in ("encoder", "all"):
        assert accelerated(19.0, kind) == (
            f"learner.bf16 is '{kind}', but this CPU takes 19 times as long for a product in bfloat16 as in float32: "
            "updates are computed in float32",
            "off",
        )
        assert accelerated(1.1, kind) == ("", kind)  # equal, but for noise
        assert accelerated(19.0, kind, "cuda") == ("", kind)  # the CPU's product says nothing of it
    assert accelerated(1.6, "all")[1] == "off" and accelerated(0.3, "all")[1] == "all"
    assert accelerated(19.0, "off") == ("", "off")  # not asked for


def test_the_cost_of_bf16_is_the_ratio_of_the_fastest_products_and_draws_no_random_numbers(monkeypatch):
    """With a clock that a product in bf16 moves by 8 s, one in fp32 by 2 s, and the first of either by 100 s more."""
    now, seen = 0.0, []

    def product(left, right):
        nonlocal now
        now += (8.0 if left.dtype == torch.bfloat16 else 2.0) + (0.0 if left.dtype in seen else 100.0)
        seen.append(left.dtype)
        return left

    monkeypatch.setattr(acceleration.torch, "mm", product)
    monkeypatch.setattr(acceleration.time, "perf_counter", lambda: now)
    before = torch.get_rng_state()
    assert bf16_cost.__wrapped__() == 4.0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_cost_of_bf16_is_measured_once():
    bf16_cost.cache_clear()
    assert bf16_cost() > 0 and bf16_cost() == bf16_cost() and bf16_cost.cache_info().misses == 1


def test_what_this_machine_cannot_do_is_one_line(make_agent, monkeypatch):
    with pytest.raises(UserError, match="'graph' needs a CUDA device"):
        accelerate(make_agent(), LearnerConfig(mode="graph"))
    monkeypatch.setattr("agent.calql.acceleration.shutil.which", lambda name: None)
    for name in ("CC", "CXX"):  # a compiler named there would be the only one that the message names
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        accelerate(make_agent(), LearnerConfig(mode="compile"))
    on_gpu = make_agent()
    on_gpu.device = torch.device("cuda")
    with pytest.raises(UserError, match=r"'graph' needs a C compiler \(\S+ or \S+ is not here; \$CC"):
        accelerate(on_gpu, LearnerConfig(mode="graph"))
    monkeypatch.setenv("CC", "/opt/absent/gcc -m64")
    with pytest.raises(UserError, match=r"'graph' needs a C compiler \(/opt/absent/gcc is not here; \$CC"):
        accelerate(on_gpu, LearnerConfig(mode="graph"))


@pytest.mark.parametrize(
    "environment, present, cuda, found",
    [
        ({}, "g++", False, True),
        ({}, "gcc", False, False),  # is no C++ compiler
        ({"CXX": "/opt/ours -m64"}, "/opt/ours", False, True),
        ({"CXX": "absent"}, "g++", False, False),  # torch would not look for another
        ({}, "gcc", True, True),
        ({}, "clang", True, True),
        ({}, "g++", True, False),
        ({"CC": "cc"}, "cc", True, True),
        ({"CC": "absent"}, "gcc", True, False),
    ],
)
def test_the_compiler_looked_for_is_the_one_that_is_going_to_be_used(monkeypatch, environment, present, cuda, found):
    monkeypatch.setattr("agent.calql.acceleration.sys.platform", "linux")
    monkeypatch.setattr("agent.calql.acceleration.shutil.which", lambda name: name if name == present else None)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert has_compiler(cuda) == found


@pytest.mark.parametrize("average", [0.995, 1.0, 0.0])
def test_updates_are_captured_after_the_first_of_their_kind_whatever_the_mean(
    make_agent, make_batch, monkeypatch, average
):
    """What goes in and out of a graph, with a make-believe one that makes the captured step again."""
    captured = []

    class Graph:
        def __init__(self, replay):
            self.replay = replay

    def capture(graphs, batch, weights, update_actor):
        agent, place, metrics = graphs.agent, batch.map(torch.clone), {}
        captured.append(agent.updates)

        def replay():
            shifted = place.augmented(agent.config.augment_pad, agent.generator, agent.shard)
            metrics.update(agent.step(shifted, weights.conservative, update_actor))

        return Graph(replay), place, metrics

    monkeypatch.setattr(Graphs, "_capture", capture)
    plain, graphed = make_agent(policy_average=average), make_agent(policy_average=average)
    graphed.learn = Graphs(graphed).learn
    for agent in (plain, graphed):
        train(agent, make_batch, 12, actor_every=2)
    assert captured == [6, 7]  # three of each kind before
    assert difference(plain, graphed) == 0 and plain.updates == graphed.updates == 12
    for one, two in zip(plain.average.parameters(), graphed.average.parameters(), strict=True):
        assert torch.equal(one, two)


@needs_gpu
@pytest.mark.parametrize("actor_every", [1, 3])
def test_captured_and_eager_updates_agree(make_agent, make_batch, actor_every):
    agents = [make_agent(device="cuda") for _ in range(2)]
    accelerate(agents[1], LearnerConfig(mode="graph"))
    for agent in agents:
        train(agent, make_batch, 60, actor_every)
    assert difference(*agents) < 1e-4
    assert torch.equal(agents[0].generator.get_state(), agents[1].generator.get_state())
    assert agents[0].updates == agents[1].updates == 60
    pairs = zip(*(agent.average.parameters() for agent in agents), strict=True)
    assert all((a - b).abs().max() < 1e-4 for a, b in pairs)
