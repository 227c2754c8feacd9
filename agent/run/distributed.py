"""One learner on several devices: `torchrun --nproc-per-node N -m agent.learner ...`, data-parallel.

Rank 0 has the link, the log and the checkpoints, and leads; the others follow. Every process has all the data (an
episode is a file before anybody learns from it, so only its path is told) and the same random state; each gathers its
rows of the batch, and gradients are averaged. So the parameters stay equal, and equal to those of one process with the
whole batch.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from agent.calql.algorithm import CalQL, Weights
from agent.signals import SIGNALS
from agent.spec import UserError
from agent.wire.messages import EpisodeKey

TIMEOUT = timedelta(days=30)  # followers wait as long as the robots do


@dataclass(frozen=True)
class Order:
    """What the leader is about to do: make an update.

    episodes: what it took in before: the file of each; None: it dropped that one.
    """

    weights: Weights
    update_actor: bool
    episodes: tuple[tuple[EpisodeKey, str | None], ...]


class Ranks:
    """The processes of this run: one, unless torchrun started several. Raises UserError when they can't be."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.local = int(os.environ.get("LOCAL_RANK", 0))
        self._news: list[tuple[EpisodeKey, str | None]] = []
        if self.count > 1:
            # Orders go over the CPU, gradients over whatever device they are on.
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            try:
                dist.init_process_group(backend, timeout=TIMEOUT)
            except (RuntimeError, ValueError) as error:
                raise UserError(f"torchrun: processes can't meet: {str(error).splitlines()[0]}") from None
        if self.rank:
            for number in SIGNALS:  # Ctrl-C reaches everybody; the leader says when to stop
                signal.signal(number, signal.SIG_IGN)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def join(self, agent: CalQL, batch: int) -> None:
        """Let `agent` share its batches with the other processes. Raises UserError when they can't be shared evenly."""
        if batch % self.count:
            raise UserError(f"online.batch {batch} can't be shared by {self.count} processes")
        agent.shard = (self.rank, self.count)
        if self.count > 1:
            agent.reduce = self._mean

    def _mean(self, gradients: list[Tensor]) -> None:
        """Replace each gradient by its mean over the processes; one message for all of them."""
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([gradient.numel() for gradient in gradients])
        for part, gradient in zip(parts, gradients, strict=True):
            gradient.copy_(part.view_as(gradient))

    def tell(self, key: EpisodeKey, path: Path | None) -> None:
        """The leader has taken in the episode at `path`, or dropped it; the others do before the next update."""
        if self.count > 1:
            self._news.append((key, str(path) if path else None))

    def order(self, weights: Weights | None, update_actor: bool = False) -> None:
        """Tell the others what comes next; without weights, that it is over."""
        if self.count > 1:
            order = [weights and [weights.cql, weights.bc], update_actor, self._news]
            text = torch.frombuffer(bytearray(json.dumps(order).encode()), dtype=torch.uint8)
            dist.broadcast(torch.tensor([len(text)]), src=0)
            dist.broadcast(text, src=0)
            self._news = []

    def orders(self) -> Iterator[Order]:
        """What a follower has to do, until it is over."""
        while True:
            size = torch.zeros(1, dtype=torch.int64)
            try:
                dist.broadcast(size, src=0)
                text = torch.empty(int(size), dtype=torch.uint8)
                dist.broadcast(text, src=0)
            except RuntimeError:  # the leader has gone, and has said why
                return
            weights, update_actor, episodes = json.loads(text.numpy().tobytes())
            if weights is None:
                return
            yield Order(Weights(*weights), update_actor, tuple((tuple(key), path) for key, path in episodes))

    def close(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()
