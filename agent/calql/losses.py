"""Cal-QL's terms as functions of tensors: nothing here knows of networks, stages or optimisers.

E critics, B batch, n sampled actions, A action dimensions; d = 1 only where the episode really terminated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agent.config import CalQLConfig


def td_target(q_next: Tensor, rewards: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) max_j min_i Q-bar_i(s', a'_j); q_next (members, B, n) -> (B,)."""
    return rewards + gamma * (1 - terminated) * q_next.amin(0).amax(-1)


def td_loss(q_data: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each critic, without 1/2; (E, B), (B,) -> (E,)."""
    return (q_data - target).square().mean(-1)


def calibrated(q: Tensor, returns: Tensor) -> Tensor:
    """max(Q_i, R): a policy sample is not pushed below what the data achieved. (E, B, n), (B,) -> (E, B, n)."""
    return torch.maximum(q, returns[:, None])


def conservative_difference(
    q_uniform: Tensor,  # (E, B, n)
    q_current: Tensor,  # (E, B, n), a ~ pi(.|s)
    q_next: Tensor,  # (E, B, n), a ~ pi(.|s'), valued at s
    q_data: Tensor,  # (E, B)
    log_current: Tensor,  # (B, n)
    log_next: Tensor,  # (B, n)
    returns: Tensor,  # (B,)
    action_dim: int,
    config: CalQLConfig,
) -> Tensor:
    """Delta_i = mean of clip(LSE_i - Q_i(s, a_data)) over the batch, for each critic by itself -> (E,)."""
    if config.calibrate:  # this is Cal-QL; without it the rest is CQL
        q_current, q_next = calibrated(q_current, returns), calibrated(q_next, returns)
    if config.importance_sampling:
        terms = [q_uniform + action_dim * math.log(2), q_next - log_next, q_current - log_current]
    else:
        terms = [q_uniform, q_next, q_current, q_data[..., None]]
    lse = torch.cat(terms, -1).logsumexp(-1)  # (E, B)
    return (lse - q_data).clamp(config.cql_clip_low, config.cql_clip_high).mean(-1)


def lagrange_loss(log_multiplier: Tensor, difference: Tensor, weight: float | Tensor, threshold: float) -> Tensor:
    """-1/2 sum_i alpha' w (Delta_i - tau): alpha' = exp(lambda) rises while the mean Delta exceeds tau."""
    return -0.5 * (multiplier(log_multiplier) * weight * (difference.detach() - threshold)).sum()


def multiplier(log_multiplier: Tensor) -> Tensor:
    return log_multiplier.exp().clamp(0, 1e6)
