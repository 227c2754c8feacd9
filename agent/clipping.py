"""Gradients that are far longer than they use to be are made shorter, by a measure that Adam keeps anyway."""

from __future__ import annotations

import torch
from torch import Tensor


def clip(gradients: list[Tensor], optimizer: torch.optim.Adam, times: float) -> None:
    """Scale `gradients` (of all the optimiser's parameters, in its order) in place, to `times` their usual length.

    The usual length is the root of the sum of Adam's second moments, freed of their bias: whatever the networks and the
    scale of the rewards, no number to choose anew. Before the optimiser's first step nothing is usual. A transition
    that surprises the critics, the first of its kind online, has been seen with 50 times that length.
    """
    states = [optimizer.state[parameter] for parameter in optimizer.param_groups[0]["params"]]
    if not all(states):
        return
    _, decay = optimizer.param_groups[0]["betas"]
    seconds = torch.stack(torch._foreach_norm([state["exp_avg_sq"] for state in states], 1)).sum()
    usual = (seconds / (1 - decay ** states[0]["step"])).sqrt()
    length = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, (times * usual / length.clamp_min(1e-30)).clamp_max(1.0))
