"""Settings of tools.train_reward: the section `success`."""

from __future__ import annotations

from dataclasses import dataclass

from agent.options import option


@dataclass
class SuccessConfig:
    cameras: list[str] = option([], "those that the classifier looks at; empty: all of the recordings")
    end_frames: int = option(1, "how many last frames of a successful episode show the success", low=1)
    updates: int = option(3000, "gradient updates", low=1)
    batch: int = option(64, "frames per update", low=2)
    negatives: float = option(2.5, "frames without success for each with, in a batch", low=0.1, high=100)
    lr: float = option(2e-3, "learning rate at its highest, a third of the way", low=0)
    augment_pad: int = option(2, "random shift of images by up to this many pixels; 0 is off", low=0)
    jitter: float = option(
        0.2, "brightness, contrast and each colour vary by up to this share; 0 is off", low=0, high=1
    )
    validation_share: float = option(0.2, "of the episodes, from which the threshold is chosen", low=0.01, high=0.8)
    test_share: float = option(0.2, "of the episodes, on which it is measured", low=0.01, high=0.8)
    max_false_positive_rate: float = option(
        0.005, "of frames without success, by which the threshold is chosen", low=0, high=1
    )
    k: int = option(3, "frames of the last n that must show a success", low=1)
    n: int = option(3, "see k", low=1)
    seed: int = option(0, "random seed", low=0, high=2**31)
    threads: int = option(0, "CPU threads; 0: torch's choice", low=0)
