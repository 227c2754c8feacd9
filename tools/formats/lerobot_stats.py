"""Statistics of a dataset as LeRobot keeps them: of each episode, and of all from those of each."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def statistics(rows: np.ndarray, shape: tuple[int, ...] = (-1,)) -> dict[str, np.ndarray]:
    """Of rows (N, D), over N; as lerobot keeps them for normalisation."""
    rows = rows.astype(np.float64)
    found = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
    found.update({name: np.quantile(rows, q, axis=0) for name, q in QUANTILES.items()})
    return {**{name: value.reshape(shape) for name, value in found.items()}, "count": np.array([len(rows)])}


def aggregate(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Statistics of all episodes from those of each; quantiles are weighted means, as lerobot's own are."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = counts / counts.sum()

    def mean(name: str) -> np.ndarray:
        return np.tensordot(weights, np.stack([part[name] for part in parts]), axes=1)

    centre = mean("mean")
    spread = sum(w * (p["std"] ** 2 + (p["mean"] - centre) ** 2) for w, p in zip(weights, parts, strict=True))
    found = {name: mean(name) for name in QUANTILES}
    found.update(mean=centre, std=np.sqrt(spread), count=np.array([int(counts.sum())]))
    found.update(min=np.min([p["min"] for p in parts], axis=0), max=np.max([p["max"] for p in parts], axis=0))
    return found


class Total:
    """The statistics of all episodes so far, for each feature."""

    def __init__(self) -> None:
        self.features: dict[str, dict[str, np.ndarray]] = {}

    def add(self, episode: dict[str, dict[str, np.ndarray]]) -> None:
        for name, part in episode.items():
            self.features[name] = aggregate([self.features[name], part]) if name in self.features else part

    def to_dict(self) -> dict[str, dict[str, list[Any]]]:
        return {name: {k: v.tolist() for k, v in part.items()} for name, part in self.features.items()}
