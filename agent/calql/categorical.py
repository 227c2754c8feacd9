"""Critics that learn a histogram of the return by cross-entropy: HL-Gauss (Farebrother et al. 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agent.calql.critics import Critics
from agent.config import NetworkConfig

SIGMA = 0.75  # of the target's Gaussian, in bins, as published
MARGIN = 0.1  # of the range of returns, below and above: room for a target's tails


class CategoricalCritics(Critics):
    """E critics whose K outputs are logits of bins; Q is the expectation, so all that uses Q is unchanged."""

    edges: Tensor  # (K + 1,) of the bins, in units of return

    def __init__(self, features: int, action_dim: int, config: NetworkConfig) -> None:
        super().__init__(features, action_dim, config)
        self.register_buffer("edges", torch.linspace(0, 1, config.critic_bins + 1))

    @torch.no_grad()
    def start(self, low: float, high: float, value: float | None) -> None:
        """Lay the bins over the returns from low to high and a margin; Q begins near `value`, unless it is None."""
        margin = max(MARGIN * (high - low), 1e-3)
        self.edges.copy_(torch.linspace(low - margin, high + margin, len(self.edges)))
        if value is not None:  # a wide Gaussian, so that no bin is out of reach
            wide = (self.edges[-1] - self.edges[0]) / 4
            self.biases[-1].copy_((-0.5 * ((self._centres() - value) / wide).square()).expand_as(self.biases[-1]))

    def values(self, outputs: Tensor) -> Tensor:
        """Expected returns (E, B, N) of logits (E, B, N, K)."""
        return outputs.softmax(-1) @ self._centres()

    def td_loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of each critic; logits (E, B, K), targets (B,) -> (E,)."""
        return -(self.distribution(target) * outputs.log_softmax(-1)).sum(-1).mean(-1)

    def distribution(self, target: Tensor) -> Tensor:
        """The share of a Gaussian around each target in each bin; (B,), clamped to the bins' range -> (B, K)."""
        sigma = SIGMA * (self.edges[1] - self.edges[0])
        target = target.clamp(self.edges[0], self.edges[-1])
        below = torch.erf((self.edges - target[:, None]) / (math.sqrt(2) * sigma))  # (B, K + 1)
        return below.diff(dim=-1) / (below[:, -1:] - below[:, :1])

    def _centres(self) -> Tensor:
        return (self.edges[1:] + self.edges[:-1]) / 2
