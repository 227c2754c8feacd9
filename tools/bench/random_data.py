"""Random episodes and batches, the same ones each time."""

from __future__ import annotations

import numpy as np
import torch

from agent.config import RewardConfig
from agent.data.prefetch import Prefetch
from agent.data.replay_buffer import Batch, Replay
from agent.data.storage import Storage
from agent.spec import Episode, Spec

EPISODE_STEPS = 100
EPISODES = 10  # in each replay that batches are drawn from


def episode(seed: int, spec: Spec) -> Episode:
    rng, steps = np.random.default_rng(seed), EPISODE_STEPS
    images = {key: rng.integers(0, 256, (steps + 1, *shape), dtype=np.uint8) for key, shape in spec.cameras.items()}
    states = {key: rng.normal(size=(steps + 1, n)).astype(np.float32) for key, n in spec.states.items()}
    last, none = np.arange(steps) == steps - 1, np.zeros(steps, bool)
    return Episode(
        observations={**images, **states},
        actions=rng.uniform(-1, 1, (steps, spec.action_dim)).astype(np.float32),
        rewards=last.astype(np.float32),
        terminated=last,
        truncated=none,
        success=last,
        policy_versions=np.zeros(steps, np.int64),
        interventions=none,
        times_s=np.arange(steps, dtype=np.float64),
        observation_ages_s=np.zeros(steps, np.float32),
        action_latencies_s=np.zeros(steps, np.float32),
    )


def random_batch(spec: Spec, count: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def observations() -> dict[str, torch.Tensor]:
        images = {
            key: torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
            for key, shape in spec.cameras.items()
        }
        return images | {key: torch.randn(count, length, generator=generator) for key, length in spec.states.items()}

    return Batch(
        observations(),
        observations(),
        actions=torch.rand(count, spec.action_dim, generator=generator) * 2 - 1,
        rewards=torch.full((count,), -5.0),
        terminated=torch.zeros(count),
        returns=torch.randn(count, generator=generator) - 300,
        succeeded=torch.ones(count),
    ).to(device)


def drawn(like: Batch, storage: str, device: torch.device) -> Prefetch:
    """Batches of the spec and the size of `like`, half and half from two replays of random episodes."""
    cameras, states = {}, {}
    for key, value in like.observations.items():
        if value.dtype == torch.uint8:
            cameras[key] = (value.shape[1], value.shape[2], value.shape[3])
        else:
            states[key] = value.shape[1]
    spec, where = Spec(cameras, states, like.actions.shape[1]), Storage(storage, device=device)
    offline, online = (
        Replay(spec, EPISODES * (EPISODE_STEPS + 1), RewardConfig(), 0.95, side, where) for side in range(2)
    )
    for number in range(EPISODES):
        offline.add(episode(number, spec))
        online.add(episode(EPISODES + number, spec))
    return Prefetch(offline, online, len(like.actions), 0.5, device)
