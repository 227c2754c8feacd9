"""A policy that can have several modes: a flow from normal noise to actions, learnt by flow matching.

Lipman et al. 2023; as a policy of action chunks whose best sample by Q acts: Q-chunking (Li et al. 2025).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agent.config import NetworkConfig
from agent.networks import actor_layers, initialise, initialise_layers


class FlowActor(nn.Module):
    """Features (B, F) -> a distribution over vectors of length A in [-1, 1]."""

    def __init__(self, features: int, size: int, config: NetworkConfig) -> None:
        super().__init__()
        self.size, self.steps = size, config.flow_steps
        layers, width = actor_layers(features + size + 1, config)
        last = nn.Linear(width, size)
        self.velocity = nn.Sequential(*layers, last)
        if config.init != "torch":
            initialise_layers(self.velocity[:-1], config)
            initialise(last.weight, config, last=True)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Flow:
        return Flow(self, features)


class Flow:
    """The actor's distribution at features (B, F)."""

    def __init__(self, actor: FlowActor, features: Tensor) -> None:
        self.actor, self.features = actor, features

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, n, A) from standard normals of that shape, by Euler's method; and zeros (B, n): no densities."""
        features = self.features[:, None].expand(*noise.shape[:2], -1)
        actions, steps = noise, self.actor.steps
        for step in range(steps):
            time = noise.new_full((*noise.shape[:2], 1), step / steps)
            actions = actions + self.actor.velocity(torch.cat([features, actions, time], -1)) / steps
        return actions.clamp(-1, 1), noise.new_zeros(noise.shape[:2])

    @property
    def mode(self) -> Tensor:
        """Where the middle of the noise flows to (B, A): one action for a curve, not the most likely one."""
        return self.sample(self.features.new_zeros(len(self.features), 1, self.actor.size))[0][:, 0]

    def matching_loss(self, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Squared error (B,) of the velocity on the way from noise (B, A) to actions (B, A), at time (B, 1)."""
        there = torch.lerp(noise, actions, time)
        velocity: Tensor = self.actor.velocity(torch.cat([self.features, there, time], -1))
        return (velocity - (actions - noise)).square().sum(-1)
