"""Small things that the agent's tests share: a tiny spec, tiny networks, random episodes and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agent.calql.algorithm import CalQL
from agent.config import CalQLConfig, NetworkConfig
from agent.critics import Critics
from agent.data.replay_buffer import Batch
from agent.spec import Episode, Spec

torch.set_num_threads(1)

SPEC = Spec({"cam": (12, 12, 3)}, {"pos": 3}, 2)
STATE_SPEC = Spec({}, {"pos": 3}, 2)
NETWORK: dict[str, Any] = {
    "channels": [4],
    "strides": [2],
    "features": 8,
    "state_features": 8,
    "actor_hidden": [16],
    "critic_hidden": [16, 16],
    "critics": 3,
}


@pytest.fixture
def spec() -> Spec:
    """One 12 x 12 camera, three state numbers, two actions."""
    return SPEC


@pytest.fixture
def state_spec() -> Spec:
    return STATE_SPEC


@pytest.fixture
def network() -> NetworkConfig:
    return NetworkConfig(**NETWORK)


@pytest.fixture
def critics(network: NetworkConfig, layer_norm: bool) -> Critics:
    """Four, none of whose parameters is 0 or 1; for tests with a parameter layer_norm."""
    torch.manual_seed(0)
    found = Critics(6, 2, dataclasses.replace(network, critics=4, critic_layer_norm=layer_norm))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return found


@pytest.fixture
def tiny_flags() -> list[str]:
    """NETWORK and small batches, as flags of agent.pretrain and agent.learner."""
    sizes = {k: ",".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in NETWORK.items()}
    sizes |= {"offline.batch": "16", "online.batch": "16", "cql_actions": "2", "threads": "1", "device": "cpu"}
    return [word for key, value in sizes.items() for word in (f"--{key.replace('_', '-')}", value)]


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    """make_episode(5, seed=1, success=True): random contents; success ends it (terminated), else a time limit does."""

    def make(
        steps: int,
        seed: int = 0,
        success: bool = False,
        spec: Spec = SPEC,
        rewards: np.ndarray | None = None,
        terminated: bool | None = None,
        number: int = 0,
    ) -> Episode:
        rng = np.random.default_rng(seed)
        observations: dict[str, np.ndarray] = {
            key: rng.integers(0, 256, (steps + 1, *shape), dtype=np.uint8) for key, shape in spec.cameras.items()
        }
        observations |= {key: rng.normal(size=(steps + 1, n)).astype(np.float32) for key, n in spec.states.items()}
        flags = np.arange(steps) == steps - 1
        ends = success if terminated is None else terminated
        return Episode(
            observations=observations,
            actions=rng.uniform(-0.9, 0.9, (steps, spec.action_dim)).astype(np.float32),
            rewards=(flags & success).astype(np.float32) if rewards is None else np.asarray(rewards, np.float32),
            terminated=flags & ends,
            truncated=flags & (not ends),
            success=flags & success,
            policy_versions=np.zeros(steps, np.int64),
            interventions=np.zeros(steps, bool),
            times_s=np.arange(steps, dtype=np.float64),
            observation_ages_s=np.zeros(steps, np.float32),
            action_latencies_s=np.zeros(steps, np.float32),
            meta={"robot": "arm", "boot": "b0", "number": number, "env": {"name": "fake", "options": {}}},
        )

    return make


@pytest.fixture
def make_agent(network: NetworkConfig) -> Callable[..., CalQL]:
    """make_agent(spec=..., seed=0, critics=2, calibrate=False): keywords are fields of the network and calql sections.

    Its policy and critics are pulled away from their nearly constant initial outputs, so that errors show.
    """

    def make(spec: Spec = SPEC, seed: int = 0, device: str = "cpu", **options: Any) -> CalQL:
        sizes = {**NETWORK, **{k: v for k, v in options.items() if hasattr(network, k)}}
        rest = {k: v for k, v in options.items() if not hasattr(network, k)}
        config = CalQLConfig(**{"cql_actions": 3, "augment_pad": 2, **rest})
        agent = CalQL(spec, NetworkConfig(**sizes), config, torch.device(device), seed)
        with torch.no_grad():
            for parameter in agent.policy.actor.parameters():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
                parameter += 0.3 * noise.to(device)
            for parameter, target in zip(agent.critics.parameters(), agent.targets.parameters(), strict=True):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7 + parameter.numel()))
                parameter += 0.3 * noise.to(device)
                target -= 0.3 * noise.to(device)
        return agent

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """make_batch(6, returns=-inf): random numbers; returns are a scalar, an array, or random."""

    def make(size: int = 6, spec: Spec = SPEC, seed: int = 0, returns: Any = None) -> Batch:
        random = torch.Generator().manual_seed(seed)

        def observe() -> dict[str, torch.Tensor]:
            images = {
                key: torch.randint(0, 256, (size, *shape), generator=random, dtype=torch.uint8)
                for key, shape in spec.cameras.items()
            }
            return images | {key: torch.randn(size, n, generator=random) for key, n in spec.states.items()}

        numbers = torch.randn(size, generator=random) if returns is None else torch.as_tensor(returns).float()
        return Batch(
            observations=observe(),
            next_observations=observe(),
            actions=torch.rand(size, spec.action_dim, generator=random) * 1.8 - 0.9,
            rewards=torch.randn(size, generator=random),
            terminated=(torch.arange(size) % 3 == 0).float(),
            returns=numbers.expand(size).clone(),
            succeeded=(torch.arange(size) % 2 == 0).float(),
        )

    return make
