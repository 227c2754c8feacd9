"""Random shift (Kostrikov et al. 2020, DrQ): the augmentation that image-based RL needs most."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_shifts(batch: int, pad: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(B, 2) int64 offsets in [-pad, pad], rows then columns."""
    return torch.randint(-pad, pad + 1, (batch, 2), generator=generator, device=device)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Move each image by its offset, repeating the border; (B, H, W, C) uint8 -> the same.

    Observation and next observation are given the same offsets: a camera does not jump between two frames.
    """
    batch, height, width, _ = images.shape
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]).clamp_(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]).clamp_(0, width - 1)  # (B, W)
    which = torch.arange(batch, device=images.device)[:, None, None]
    return images[which, rows[:, :, None], columns[:, None, :]]
