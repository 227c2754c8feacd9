"""Replay: every frame once, as uint8; whole episodes in, whole episodes out; pairs (s, s') that never cross a border.

An episode of T steps takes T + 1 consecutive rows. Row i and row i + 1 are s and s' of a step, for every row but an
episode's last, so the sampleable rows are exactly the steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.config import RewardConfig
from agent.data.random_shift import draw_shifts, shift
from agent.data.returns import rewards_and_returns
from agent.data.state_statistics import StateStatistics
from agent.data.storage import HOST, Storage
from agent.spec import Episode, Spec, UserError

PER_STEP = ("actions", "rewards", "terminated", "returns", "succeeded")  # columns, and a batch's last fields


@dataclass
class Batch:
    """B transitions: images uint8 (B, H, W, 3), states (B, D), actions (B, A), everything else float32 (B,).

    Over several steps (n_step) rewards, terminated and the next observations are those of all of them together:
    Replay._several.
    """

    observations: dict[str, Tensor]
    next_observations: dict[str, Tensor]
    actions: Tensor
    rewards: Tensor  # transformed: what learning sees
    terminated: Tensor  # d
    returns: Tensor  # R
    succeeded: Tensor  # 1 where the transition's episode succeeded

    @staticmethod
    def empty(spec: Spec, count: int, device: torch.device, pinned: bool = False) -> Batch:
        """Room for `count` transitions. pinned: in host memory that a GPU copies from on its own."""

        def room(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(count, *shape, dtype=dtype, device=device, pin_memory=pinned)

        def observations() -> dict[str, Tensor]:
            return {
                key: room(spec.shape(key), torch.uint8 if key in spec.cameras else torch.float32) for key in spec.keys
            }

        return Batch(observations(), observations(), room((spec.action_dim,)), *(room(()) for _ in PER_STEP[1:]))

    def tensors(self) -> list[Tensor]:
        return [t for value in vars(self).values() for t in (value.values() if isinstance(value, dict) else [value])]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of `change(tensor)` for every tensor."""
        changed: dict[str, Any] = {
            name: {k: change(v) for k, v in value.items()} if isinstance(value, dict) else change(value)
            for name, value in vars(self).items()
        }
        return Batch(**changed)

    def to(self, device: torch.device) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

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


class Replay:
    """At most `capacity` rows (a step each, and one more per episode); the oldest episodes go first."""

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        reward: RewardConfig,
        gamma: float,
        seed: int = 0,
        storage: Storage = HOST,
        n_step: int = 1,
    ) -> None:
        self.ahead = n_step  # as far as a target looks
        self.spec, self.capacity, self.reward, self.gamma = spec, capacity, reward, gamma
        columns = {f"obs/{key}": (spec.shape(key), spec.dtype(key)) for key in spec.keys}
        columns["actions"] = ((spec.action_dim,), np.dtype(np.float32))
        for name in PER_STEP[1:]:
            columns[name] = ((), np.dtype(np.float32))
        if self.ahead > 1:
            columns["left"] = ((), np.dtype(np.int64))  # steps to the end of the episode, from 1 on
        self.columns = {name: storage.column(capacity, *kind) for name, kind in columns.items()}
        self.device = storage.place  # that batches are on
        self._episodes: deque[tuple[int, int, int]] = deque()  # (first row, steps, ticket), oldest first
        self._head = 0  # where the next episode goes
        self._steps = 0
        self._index: Tensor | None = None  # rows that are steps; made when needed
        self.added = 0  # episodes taken in so far
        self.changes = 0  # of what there is to sample
        self.reward_range = (math.inf, -math.inf)  # of all of them, as learning sees them
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Sampleable steps."""
        return self._steps

    @property
    def bytes(self) -> int:
        """What the rows taken so far amount to, and the index of their steps."""
        return sum(column.bytes for column in self.columns.values()) + self.index.nbytes

    @property
    def index(self) -> Tensor:
        """The rows that are steps, int64, on the host."""
        if self._index is None:
            count = len(self._episodes)
            firsts = np.fromiter((first for first, _, _ in self._episodes), np.int64, count)
            steps = np.fromiter((steps for _, steps, _ in self._episodes), np.int64, count)
            rows = np.repeat(firsts - (steps.cumsum() - steps), steps)  # per step: how far its row lies from its place
            self._index = torch.from_numpy(np.add(rows, np.arange(len(rows)), out=rows))
        return self._index

    @property
    def episodes(self) -> int:
        return len(self._episodes)

    def reserve(self, rows: int) -> None:
        """So many rows will be filled. Raises NoSpace."""
        for column in self.columns.values():
            column.grow(rows)

    def add(self, episode: Episode) -> int:
        """Take in a finished episode, with its rewards transformed and its returns computed here and only here.

        Returns a ticket, with which `remove` takes it out again.
        Raises UserError, and changes nothing, when it does not fit the spec, the reward config or the capacity;
        NoSpace when there is no memory or disk left for it.
        """
        episode.check(self.spec)
        steps = len(episode)
        if steps + 1 > self.capacity:
            raise UserError(f"an episode of {steps} steps does not fit into a replay of {self.capacity} rows")
        rewards, returns = rewards_and_returns(episode, self.reward, self.gamma)
        first = self._head if self._head + steps + 1 <= self.capacity else 0
        end = first + steps + 1
        self.reserve(end)
        while self._episodes and self._in_the_way(*self._episodes[0][:2], end, wrapped=first < self._head):
            self._steps -= self._episodes.popleft()[1]
        for key, value in episode.observations.items():
            self.columns[f"obs/{key}"].rows[first:end] = torch.from_numpy(value)
        per_step = {
            "actions": episode.actions,
            "rewards": rewards,
            "terminated": episode.terminated.astype(np.float32),
            "returns": returns,
            "succeeded": np.full(steps, episode.succeeded, np.float32),
        }
        if self.ahead > 1:
            per_step["left"] = np.arange(steps, 0, -1)
        for name, value in per_step.items():
            self.columns[name].rows[first : end - 1] = torch.from_numpy(np.ascontiguousarray(value))
        low, high = self.reward_range
        self.reward_range = (min(low, float(rewards.min())), max(high, float(rewards.max())))
        self._episodes.append((first, steps, self.added))
        self._head = end
        self._steps += steps
        self._index = None
        self.added += 1
        self.changes += 1
        return self.added - 1

    def remove(self, ticket: int) -> None:
        """Sample no step of that episode again. Its rows stay empty until their turn comes."""
        for place, (_, steps, number) in enumerate(self._episodes):
            if number == ticket:
                del self._episodes[place]
                self._steps -= steps
                self._index = None
                self.changes += 1
                return

    def _in_the_way(self, first: int, steps: int, end: int, wrapped: bool) -> bool:
        """Whether the oldest episode has rows that are about to be written, or skipped by wrapping round."""
        if wrapped:
            return first >= self._head or first < end
        return first < end and first + steps + 1 > self._head

    def sample(self, count: int, out: Batch | None = None, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Batch:
        """`count` steps, uniformly with replacement; with `out`, into its places from `start` on.

        shard: (rank, ranks) of processes that share each batch; all draw the same `count` steps, and each gathers every
        ranks-th of them, from its own rank on.
        """
        rank, ranks = shard
        picks = torch.randint(len(self), (count,), generator=self.generator)[rank::ranks]
        out = out or Batch.empty(self.spec, len(picks), self.device)
        rows = self.index[picks].to(self.device, non_blocking=True)

        def gather(name: str, rows: Tensor, into: Tensor) -> None:
            torch.index_select(self.columns[name].rows, 0, rows, out=into[start : start + len(rows)])

        following = rows + 1
        for name in PER_STEP:
            gather(name, rows, vars(out)[name])
        if self.ahead > 1:
            following = self._several(rows, out.map(lambda tensor: tensor[start : start + len(rows)]))
        for key in self.spec.keys:
            gather(f"obs/{key}", rows, out.observations[key])
            gather(f"obs/{key}", following, out.next_observations[key])
        return out

    def _several(self, rows: Tensor, out: Batch) -> Tensor:
        """Put the rewards and ends of the steps from `rows` (B,) on, `ahead` of them or those left, into `out` as one.

        With k steps its reward is their discounted sum, and `terminated` is 1 - gamma^(k-1) (1 - d), so that
        gamma (1 - terminated) discounts the value after them. Returns the rows that follow (B,).
        """
        left = self.columns["left"].rows.index_select(0, rows)
        steps = left.clamp(max=self.ahead)  # (B,)
        count = torch.arange(self.ahead, device=rows.device)
        each = rows[:, None] + torch.minimum(count, steps[:, None] - 1)  # (B, ahead)
        discounts = (self.gamma**count) * (count < steps[:, None])
        rewards = self.columns["rewards"].rows.index_select(0, each.flatten()).view(len(rows), -1)
        out.rewards.copy_((rewards * discounts).sum(-1))
        last = self.columns["terminated"].rows.index_select(0, rows + steps - 1)
        out.terminated.copy_(1 - self.gamma ** (steps - 1) * (1 - last))
        return rows + steps

    def _of_steps(self, name: str) -> Tensor:
        return self.columns[name].rows.index_select(0, self.index.to(self.device))

    def mean_return(self) -> float:
        """Mean return-to-go over all steps."""
        return float(self._of_steps("returns").mean())

    def state_statistics(self) -> StateStatistics:
        """Of the state vectors of all steps."""
        statistics = StateStatistics(self.spec.states)
        for rows in self.index.to(self.device).split(2**16):
            parts = {key: self.columns[f"obs/{key}"].rows.index_select(0, rows) for key in self.spec.states}
            statistics.add({key: part.cpu().numpy() for key, part in parts.items()})
        return statistics


def sample_mixed(
    offline: Replay | None,
    online: Replay | None,
    batch: int,
    offline_share: float,
    shard: tuple[int, int] = (0, 1),
    out: Batch | None = None,
) -> Batch:
    """`batch` steps, a share of them offline; -1 shares by size. What one side lacks the other gives.

    Offline ones come first. Both sides' rows are on the same device. out: where to put them; nothing is copied twice.
    shard: see Replay.sample; each side's part is a multiple of the number of processes, as `batch` must be.
    """
    ranks = shard[1]
    sizes = [len(replay) if replay is not None else 0 for replay in (offline, online)]
    if offline_share < 0:
        offline_share = sizes[0] / max(1, sum(sizes))
    from_offline = ranks * round(batch * offline_share / ranks) if sizes[1] else batch
    from_offline = from_offline if sizes[0] else 0
    either = offline if offline is not None else online
    assert either is not None
    out = out or Batch.empty(either.spec, batch // ranks, either.device)
    if from_offline and offline is not None:
        offline.sample(from_offline, out, 0, shard)
    if batch - from_offline and online is not None:
        online.sample(batch - from_offline, out, from_offline // ranks, shard)
    return out
