"""Random shift (Kostrikov et al. 2020, DrQ): the augmentation that image-based RL needs most."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_shifts(
    batch: int, pad: int, generator: torch.Generator, device: torch.device, shard: tuple[int, int] = (0, 1)
) -> Tensor:
    """(B, 2) int64 offsets in [-pad, pad], rows then columns. shard: see Replay.sample."""
    rank, ranks = shard
    return torch.randint(-pad, pad + 1, (batch * ranks, 2), generator=generator, device=device)[rank::ranks]


def shift(images: Tensor, offsets: Tensor, pad: int) -> Tensor:
    """Move each image by its offset (rows, columns; each in [-pad, pad]), repeating the border.

    (B, H, W, C) uint8, (B, 2) int64 -> (B, H, W, C). Observation and next observation are given the same offsets: a
    camera does not jump between two frames.
    """
    batch, height, width, channels = images.shape
    wide = images.new_empty(batch, height + 2 * pad, width + 2 * pad, channels)
    wide[:, pad:-pad, pad:-pad] = images
    wide[:, :pad, pad:-pad], wide[:, -pad:, pad:-pad] = images[:, :1], images[:, -1:]
    wide[:, :, :pad], wide[:, :, -pad:] = wide[:, :, pad : pad + 1], wide[:, :, -pad - 1 : -pad]
    by_image, by_row, by_column, _ = wide.stride()
    windows = wide.as_strided(
        (batch, 2 * pad + 1, 2 * pad + 1, height, width * channels), (by_image, by_row, by_column, by_row, 1)
    )  # every window of the image's size, as views; one gather takes the one wanted of each image
    which = torch.arange(batch, device=images.device)
    picked = windows[which, offsets[:, 0] + pad, offsets[:, 1] + pad]
    return picked.view(batch, height, width, channels)
