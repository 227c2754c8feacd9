"""Replay: every frame once, as uint8; whole episodes in, whole episodes out; pairs (s, s') that never cross a border.

An episode of T steps takes T + 1 consecutive rows. Row i and row i + 1 are s and s' of a step, for every row but an
episode's last, so the sampleable rows are exactly the steps.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agent.augment import draw_shifts, shift
from agent.config import RewardConfig
from agent.returns import rewards_and_returns
from agent.spec import Episode, Spec, UserError


@dataclass
class Batch:
    """B transitions: images uint8 (B, H, W, 3), states (B, D), actions (B, A), everything else float32 (B,)."""

    observations: dict[str, Tensor]
    next_observations: dict[str, Tensor]
    actions: Tensor
    rewards: Tensor  # transformed: what learning sees
    terminated: Tensor  # d
    returns: Tensor  # R
    succeeded: Tensor  # 1 where the transition's episode succeeded

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of `change(tensor)` for every tensor."""
        changed = {
            name: {k: change(v) for k, v in value.items()} if isinstance(value, dict) else change(value)
            for name, value in vars(self).items()
        }
        return Batch(**changed)  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    @staticmethod
    def cat(parts: list[Batch]) -> Batch:
        def join(values: list) -> Tensor | dict[str, Tensor]:
            if isinstance(values[0], dict):
                return {k: torch.cat([v[k] for v in values]) for k in values[0]}
            return torch.cat(values)

        if len(parts) == 1:
            return parts[0]
        return Batch(**{name: join([vars(p)[name] for p in parts]) for name in vars(parts[0])})  # type: ignore[arg-type]

    def augmented(self, pad: int, generator: torch.Generator, shard: tuple[int, int] = (0, 1)) -> Batch:
        """Images moved by a random shift, the same for s and s'; `generator` lives on the batch's device."""
        if pad <= 0:
            return self
        now, following = dict(self.observations), dict(self.next_observations)
        for key, images in now.items():
            if images.dtype == torch.uint8:
                offsets = draw_shifts(len(images), pad, generator, images.device, shard)
                now[key], following[key] = shift(images, offsets, pad), shift(following[key], offsets, pad)
        return Batch(**{**vars(self), "observations": now, "next_observations": following})


def _reserve(rows: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that take memory only where they have been written."""
    count = rows * int(np.prod(shape, dtype=np.int64))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    return np.frombuffer(mmap.mmap(-1, max(1, count * dtype.itemsize), flags=flags), dtype, count).reshape(rows, *shape)


class Replay:
    """At most `capacity` rows (a step each, and one more per episode); the oldest episodes go first."""

    def __init__(self, spec: Spec, capacity: int, reward: RewardConfig, gamma: float, seed: int = 0) -> None:
        self.spec, self.capacity, self.reward, self.gamma = spec, capacity, reward, gamma
        columns = {f"obs/{key}": (spec.shape(key), spec.dtype(key)) for key in spec.keys}
        columns["actions"] = ((spec.action_dim,), np.dtype(np.float32))
        for name in ("rewards", "terminated", "returns", "succeeded"):
            columns[name] = ((), np.dtype(np.float32))
        self._rows = {name: torch.from_numpy(_reserve(capacity, *kind)) for name, kind in columns.items()}
        self._episodes: deque[tuple[int, int]] = deque()  # (first row, steps), oldest first
        self._head = 0  # where the next episode goes
        self._index = torch.empty(0, dtype=torch.int64)  # rows that are steps
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Sampleable steps."""
        return len(self._index)

    @property
    def episodes(self) -> int:
        return len(self._episodes)

    def add(self, episode: Episode) -> None:
        """Take in a finished episode, with its rewards transformed and its returns computed here and only here.

        Raises UserError, and changes nothing, when it does not fit the spec, the reward config or the capacity.
        """
        episode.check(self.spec)
        steps = len(episode)
        if steps + 1 > self.capacity:
            raise UserError(f"an episode of {steps} steps does not fit into a replay of {self.capacity} rows")
        rewards, returns = rewards_and_returns(episode, self.reward, self.gamma)
        first = self._head if self._head + steps + 1 <= self.capacity else 0
        end = first + steps + 1
        while self._episodes and self._in_the_way(*self._episodes[0], end, wrapped=first < self._head):
            self._episodes.popleft()
        for key, value in episode.observations.items():
            self._rows[f"obs/{key}"][first:end] = torch.from_numpy(value)
        per_step = {
            "actions": episode.actions,
            "rewards": rewards,
            "terminated": episode.terminated.astype(np.float32),
            "returns": returns,
            "succeeded": np.full(steps, episode.succeeded, np.float32),
        }
        for name, value in per_step.items():
            self._rows[name][first : end - 1] = torch.from_numpy(np.ascontiguousarray(value))
        self._episodes.append((first, steps))
        self._head = end
        self._index = torch.cat([torch.arange(start, start + count) for start, count in self._episodes])

    def _in_the_way(self, first: int, steps: int, end: int, wrapped: bool) -> bool:
        """Whether the oldest episode has rows that are about to be written, or skipped by wrapping round."""
        if wrapped:
            return first >= self._head or first < end
        return first < end and first + steps + 1 > self._head

    def sample(self, count: int, shard: tuple[int, int] = (0, 1)) -> Batch:
        """`count` steps, uniformly with replacement.

        shard: (rank, ranks) of processes that share each batch; all draw the same `count` steps, and each gathers every
        ranks-th of them, from its own rank on.
        """
        rank, ranks = shard
        picks = torch.randint(len(self._index), (count,), generator=self.generator)
        rows = self._index[picks[rank::ranks]]

        def gather(offset: int) -> dict[str, Tensor]:
            return {key: self._rows[f"obs/{key}"].index_select(0, rows + offset) for key in self.spec.keys}

        names = ("actions", "rewards", "terminated", "returns", "succeeded")
        return Batch(gather(0), gather(1), **{name: self._rows[name].index_select(0, rows) for name in names})

    def mean_return(self) -> float:
        """Mean return-to-go over all steps."""
        return float(self._rows["returns"].index_select(0, self._index).mean())

    def state_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (at least 0.01) of the concatenated state vectors, each (sum of lengths,)."""
        if not self.spec.states:
            return torch.zeros(0), torch.ones(0)
        rows = torch.cat([self._rows[f"obs/{key}"].index_select(0, self._index) for key in self.spec.states], -1)
        return rows.mean(0), rows.std(0, correction=0).clamp_min(0.01)


def sample_mixed(
    offline: Replay | None, online: Replay | None, batch: int, offline_share: float, shard: tuple[int, int] = (0, 1)
) -> Batch:
    """`batch` steps, a share of them offline; -1 shares by size. What one side lacks the other gives.

    shard: see Replay.sample; each side's part is a multiple of the number of processes, as `batch` must be.
    """
    ranks = shard[1]
    sizes = [len(replay) if replay is not None else 0 for replay in (offline, online)]
    if offline_share < 0:
        offline_share = sizes[0] / max(1, sum(sizes))
    from_offline = ranks * round(batch * offline_share / ranks) if sizes[1] else batch
    from_offline = from_offline if sizes[0] else 0
    parts = []
    if from_offline and offline is not None:
        parts.append(offline.sample(from_offline, shard))
    if batch - from_offline and online is not None:
        parts.append(online.sample(batch - from_offline, shard))
    return Batch.cat(parts)
