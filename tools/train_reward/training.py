"""The training of a success classifier, its file, and its scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agent.calql.adam import Adam
from agent.data.random_shift import draw_shifts, shift
from agent.files import written
from agent.progress import Progress
from envs.reward_classifier import SuccessClassifier, network
from tools.train_reward.config import SuccessConfig
from tools.train_reward.frames import Labelled

PART = 256  # frames looked at at once


def jitter(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Another light: brightness, contrast and the weight of each colour change by up to `amount`, image by image.

    uint8 (B, H, W, 3) -> the same.
    """

    def draw(*shape: int) -> Tensor:
        return 1 + amount * (2 * torch.rand(len(images), *shape, generator=generator) - 1)

    x = images.float()
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * draw(1, 1, 1) + mean * draw(1, 1, 1)).mul_(draw(1, 1, 3)).clamp_(0, 255).to(torch.uint8)


def draw_batch(success: np.ndarray, config: SuccessConfig, rng: np.random.Generator) -> np.ndarray:
    """Frame numbers (B,): of each kind drawn evenly, `negatives` times as many without success as with."""
    positives = min(max(1, round(config.batch / (1 + config.negatives))), config.batch - 1)
    with_it = rng.choice(np.flatnonzero(success), positives)
    return np.concatenate([with_it, rng.choice(np.flatnonzero(~success), config.batch - positives)])


def train(frames: Labelled, config: SuccessConfig) -> SuccessClassifier:
    """A classifier of these frames; its threshold is still to be chosen."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    generator, rng = torch.Generator().manual_seed(config.seed), np.random.default_rng(config.seed)
    cameras = {name: (rows.shape[1], rows.shape[2], 3) for name, rows in frames.images.items()}
    net = network(cameras).train()
    optimiser = Adam(net.parameters(), config.lr, weight_decay=1e-3, decoupled_weight_decay=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.updates + 1)
    note = ""
    with Progress(config.updates, "train", "updates") as progress:
        for update in range(config.updates):
            numbers = draw_batch(frames.success, config, rng)
            images = [augmented(torch.from_numpy(frames.images[name][numbers]), config, generator) for name in cameras]
            wanted = torch.from_numpy(frames.success[numbers]).float()
            loss = F.binary_cross_entropy_with_logits(net(images), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            note = f"loss {loss.item():.3f}" if update % 20 == 0 else note
            progress.show(update + 1, note)
    return SuccessClassifier(net, cameras, k=config.k, n=config.n)


def augmented(images: Tensor, config: SuccessConfig, generator: torch.Generator) -> Tensor:
    """uint8 (B, H, W, 3) -> the same, shifted and in another light."""
    if config.augment_pad:
        offsets = draw_shifts(len(images), config.augment_pad, generator, images.device)
        images = shift(images, offsets, config.augment_pad)
    return jitter(images, config.jitter, generator) if config.jitter else images


def save(classifier: SuccessClassifier, path: str | Path) -> None:
    """Write the classifier's file, whole or not at all. Raises OSError."""
    with written(path) as file:
        torch.save(classifier.contents(), file)


def score(classifier: SuccessClassifier, frames: Labelled) -> np.ndarray:
    """Probability of success: float32 (N,)."""
    starts = range(0, len(frames.success), PART)
    parts = [classifier.probabilities({k: rows[at : at + PART] for k, rows in frames.images.items()}) for at in starts]
    return np.concatenate(parts)
