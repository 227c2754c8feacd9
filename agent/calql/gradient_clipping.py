"""Gradients that are far longer than usual are cut, by a measure that Adam keeps anyway."""

from __future__ import annotations

import torch
from torch import Tensor


def clip(gradients: list[Tensor], optimizer: torch.optim.Adam, times: float) -> Tensor:
    """Cut `gradients` (of all the optimiser's parameters, in its order), in place, to `times` their usual length.

    The usual length is the root of the sum of Adam's second moments, freed of their bias: nothing to choose anew for
    other networks or another scale of rewards. Adam sees what was cut, so `times` must be above 1, or what is usual
    could only fall; at 0 nothing is cut. Returns the length over the usual one, before; 1 where nothing is usual yet.
    Why: a transition that surprises the critics, the first of its kind online, can have 50 times that length, and Adam
    goes its way for ten updates.
    """
    states = [optimizer.state[parameter] for parameter in optimizer.param_groups[0]["params"]]
    if not all(states):  # before the first step
        return torch.ones((), device=gradients[0].device)
    _, decay = optimizer.param_groups[0]["betas"]
    seconds = torch.stack(torch._foreach_norm([state["exp_avg_sq"] for state in states], 1)).sum()
    usual = (seconds / (1 - decay ** states[0]["step"])).sqrt()
    length = torch.stack(torch._foreach_norm(gradients)).norm()
    ratio = torch.where(usual > 0, length / usual, torch.ones_like(length))
    if times:
        torch._foreach_mul_(gradients, (times / ratio).clamp_max(1.0))
    return ratio
