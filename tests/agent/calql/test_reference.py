"""One whole update against the authors' code (github.com/nakamotoo/Cal-QL), whose numbers are in reference/: losses,
gradients, and parameters after the step, in float64.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.calql.algorithm import CalQL, Weights
from agent.config import CalQLConfig, NetworkConfig
from agent.data.replay_buffer import Batch
from agent.spec import Spec

FILES = ("antmaze", "antmaze_cql", "adroit", "adroit_clip", "kitchen", "sac")
SAMPLES = ("target", "current", "next", "uniform", "actor")
LOSS, GRADIENT = {"rtol": 1e-12, "atol": 0}, {"rtol": 1e-10, "atol": 1e-13}
TEMPERATURES = {"temperature": "log_alpha", "lagrange": "log_alpha_prime"}


@pytest.fixture(params=FILES)
def reference(request):
    """name -> float64 tensor, and the settings."""
    numbers = dict(np.load(Path(__file__).parent / "reference" / f"{request.param}.npz"))
    settings = json.loads(str(numbers.pop("settings")))
    torch.set_default_dtype(torch.float64)
    yield {name: torch.as_tensor(value) for name, value in numbers.items()}, settings
    torch.set_default_dtype(torch.float32)


def below(numbers, prefix):
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def their_critics(numbers, one, two):
    """Their two critics, in the names and shapes of agent.networks.Critics."""
    found = {}
    for layer in range(len(below(numbers, f"{one}/FullyConnectedNetwork_0/")) // 2):
        dense = [f"{critic}/FullyConnectedNetwork_0/Dense_{layer}" for critic in (one, two)]
        found[f"weights.{layer}"] = torch.stack([numbers[f"{name}/kernel"] for name in dense])
        found[f"biases.{layer}"] = torch.stack([numbers[f"{name}/bias"][None] for name in dense])
    return found


def their_actor(numbers, action_dim):
    """Their policy, in the names and shapes of agent.networks.Actor; its last layer has mean and log std."""
    layers = below(numbers, "base_network/")
    last = len(layers) // 2 - 1
    found = {}
    for layer in range(last):
        found[f"trunk.{2 * layer}.weight"] = layers[f"Dense_{layer}/kernel"].mT
        found[f"trunk.{2 * layer}.bias"] = layers[f"Dense_{layer}/bias"]
    kernel, bias = layers[f"Dense_{last}/kernel"].mT, layers[f"Dense_{last}/bias"]
    found |= {"mean.weight": kernel[:action_dim], "log_std.weight": kernel[action_dim:]}
    found |= {"mean.bias": bias[:action_dim], "log_std.bias": bias[action_dim:]}
    return found | {f"log_std_{k}": numbers[f"log_std_{k}_module/value"][None] for k in ("multiplier", "offset")}


def assert_all_close(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name].detach(), value, **tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


def made(numbers, settings):
    """Our agent with their parameters."""
    spec = Spec({}, {"state": settings["obs"]}, settings["A"])
    config = CalQLConfig(**{k: float(v) if v in ("inf", "-inf") else v for k, v in settings["cal"].items()})
    network = NetworkConfig(**settings["net"], log_std="scaled", state_standardise=False)
    agent = CalQL(spec, network, config, torch.device("cpu"), seed=0)
    agent.critics.load_state_dict(below(numbers, "critics/"))
    agent.targets.load_state_dict(below(numbers, "targets/"))
    actor = below(numbers, "actor/")
    actor["log_std.bias"] += 1.0  # the files' is theirs with the offset in it, -1
    agent.policy.actor.load_state_dict(actor, strict=False)  # multiplier and offset are as they begin
    return agent


def test_an_update_is_that_of_the_authors(reference, monkeypatch):
    numbers, settings = reference
    agent, its = made(numbers, settings), below(numbers, "b0/")
    batch = Batch(
        {"state": its["obs"]}, {"state": its["nobs"]}, its["act"], its["r"], its["d"], its["ret"], succeeded=its["d"]
    )
    noise = {name: its[f"noise_{name}"] for name in SAMPLES}
    weights, official = Weights(settings["w"], 0.0), below(numbers, "official/")
    monkeypatch.setattr(agent, "draw", lambda *_: noise)

    losses, _ = agent.losses(batch, noise, weights, True)
    scalars = {name: official[f"loss/{theirs}"] for name, theirs in TEMPERATURES.items() if name in losses}
    both = official["loss/qf1"] + official["loss/qf2"]
    assert_all_close(losses, {"critic": both, "actor": official["loss/policy"], **scalars}, **LOSS)

    metrics = agent.update(batch, weights)
    critics, actor = dict(agent.critics.named_parameters()), dict(agent.policy.actor.named_parameters())
    gradients = below(official, "gradient/")
    assert_all_close({k: p.grad for k, p in critics.items()}, their_critics(gradients, "qf1", "qf2"), **GRADIENT)
    theirs = their_actor(below(gradients, "policy/"), settings["A"])
    assert_all_close({k: p.grad for k, p in actor.items()}, theirs, **GRADIENT)
    for name in scalars:
        torch.testing.assert_close(agent.parameters[name][0].grad, gradients[f"{TEMPERATURES[name]}/value"], **GRADIENT)

    after = below(official, "after/")
    assert_all_close(critics, their_critics(after, "qf1", "qf2"), **GRADIENT)
    targets = their_critics(after, "targets/qf1/params", "targets/qf2/params")
    assert_all_close(dict(agent.targets.named_parameters()), targets, **GRADIENT)
    theirs = their_actor(below(after, "policy/"), settings["A"])
    assert_all_close(actor, theirs, **GRADIENT)
    for name in scalars:
        torch.testing.assert_close(agent.parameters[name][0].detach(), after[f"{TEMPERATURES[name]}/value"], **GRADIENT)

    if weights.conservative:  # what is compared here depends on the calibration
        assert 0.3 < metrics["bound_rate_current"].mean() < 0.9 and 0.3 < metrics["bound_rate_next"].mean() < 0.9
