"""E critics as one module; on a CPU each is computed by itself, with a gradient of its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.config import NetworkConfig
from agent.critic import EPSILON, Critic
from agent.networks import initialise


class Critics(nn.Module):
    """E independent Q-functions evaluated as one: features (B, F), actions (B, N, A) -> (E, B, N).

    The features' share of the first layer is computed once per state, not once per action.
    """

    def __init__(self, features: int, action_dim: int, config: NetworkConfig) -> None:
        super().__init__()
        count = config.critics
        sizes = [features + action_dim, *config.critic_hidden, 1]
        self.features, self.layer_norm = features, config.critic_layer_norm
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales, self.offsets = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(count, 1, outputs).uniform_(-bound, bound))
            if self.layer_norm and len(self.weights) < len(sizes) - 1:
                self.scales.append(torch.ones(count, 1, outputs))
                self.offsets.append(torch.zeros(count, 1, outputs))
        if config.init != "torch":
            self._initialise(config)

    @torch.no_grad()
    def _initialise(self, config: NetworkConfig) -> None:
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            bias.zero_()
            for member in weight:
                initialise(member, config, last=layer == len(self.weights))

    def forward(self, features: Tensor, actions: Tensor, members: Tensor | None = None, frozen: bool = False) -> Tensor:
        """members: indices of those asked for, or all. frozen: gradients reach the inputs, not the parameters."""
        groups = [
            [parameter.detach() if frozen else parameter for parameter in group]
            for group in (self.weights, self.biases, self.scales, self.offsets)
        ]
        if one_by_one(features):
            each = list(zip(*(parameter.unbind() for group in groups for parameter in group), strict=True))
            chosen = each if members is None else [each[member] for member in members.tolist()]
            each_values = [Critic.apply(features, actions, len(self.weights), *own) for own in chosen]
            return torch.stack(each_values)  # (E, B, N)
        if members is not None:
            groups = [[parameter[members] for parameter in group] for group in groups]
        weights, biases, scales, offsets = groups
        batch, count, _ = actions.shape
        first = weights[0]
        of_state = torch.baddbmm(
            biases[0], features.expand(len(first), *features.shape), first[:, : self.features]
        )  # (E, B, H)
        of_action = actions.flatten(0, 1).expand(len(first), -1, -1) @ first[:, self.features :]  # (E, B N, H)
        hidden = (of_action.unflatten(1, (batch, count)) + of_state[:, :, None]).flatten(1, 2)
        for layer in range(1, len(weights)):
            if self.layer_norm:
                hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=EPSILON)
                hidden = torch.addcmul(offsets[layer - 1], hidden, scales[layer - 1])
            hidden = hidden.relu()
            if layer < len(weights) - 1:
                hidden = torch.baddbmm(biases[layer], hidden, weights[layer])  # (E, B N, H)
        with torch.autocast(hidden.device.type, enabled=False):  # values of hundreds need all of their digits
            hidden = torch.baddbmm(biases[-1], hidden.to(weights[-1].dtype), weights[-1])
        values: Tensor = hidden.unflatten(1, (batch, count)).squeeze(-1)
        return values


def one_by_one(features: Tensor) -> bool:
    """Whether critics are computed one after the other: on a CPU, unless they are compiled or in bfloat16."""
    other = torch.compiler.is_compiling() or torch.is_autocast_enabled(features.device.type)
    return features.device.type == "cpu" and not other
