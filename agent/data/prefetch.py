"""The batches of a run; on a GPU each one is on its way before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agent.data.replay_buffer import Batch, Replay, sample_mixed


@dataclass
class _Slot:
    """Host memory for one batch, and the event after which the copy from it is done (None: not copied yet)."""

    batch: Batch
    copied: Any = None


@dataclass
class _Ready:
    """A batch that was drawn ahead: from which contents, from which state of the generators, copied by when."""

    batch: Batch
    contents: list[int]
    generators: dict[str, Tensor]
    copied: Any


class Prefetch:
    """`next` gives what sample_mixed would give there and then, to the bit, on `device`; valid until the call after.

    With the frames on the host and the learner on a GPU, `draw_ahead`, called once an update is launched, gathers the
    next batch into pinned memory, while the GPU works through that update, and copies it on a stream of its own. That
    takes no thread, since an update only queues work for the GPU. A batch that an episode taken in since has outdated
    is drawn again, and `generators` are those from before a batch that nobody has had yet: resumed runs repeat to the
    bit.
    ahead: whether to work in this way; None to find out.
    """

    def __init__(
        self,
        offline: Replay | None,
        online: Replay | None,
        batch: int,
        offline_share: float,
        device: torch.device,
        shard: tuple[int, int] = (0, 1),
        ahead: bool | None = None,
    ) -> None:
        self._draw = (offline, online, batch, offline_share, shard)
        self._size = batch // shard[1]
        self.replays = {name: side for name, side in (("offline", offline), ("online", online)) if side is not None}
        on_host = all(replay.device.type == "cpu" for replay in self.replays.values())
        on_gpu = device.type == "cuda"
        self.device, self.ahead = device, on_host and on_gpu if ahead is None else ahead
        self._stream = torch.cuda.Stream(device) if self.ahead and on_gpu else None
        self._batch: Batch | None = None
        self._slots: list[_Slot] = []
        self._ready: _Ready | None = None

    def next(self) -> Batch:
        if not self.ahead:
            self._batch = sample_mixed(*self._draw, out=self._batch)  # new memory each time would cost as much again
            return self._batch.to(self.device)
        ready, self._ready = self._ready, None
        if ready is not None and ready.contents != self._contents():
            for name, state in ready.generators.items():
                self.replays[name].generator.set_state(state)
            ready = None
        ready = ready or self._fetch()
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready.copied)
            for tensor in ready.batch.tensors():  # allocated on the other stream, which must not reuse it too early
                tensor.record_stream(current)
        return ready.batch

    def draw_ahead(self) -> None:
        """The update on the last batch is on its way; draw the next one meanwhile, where that is worth it."""
        if self.ahead and self._ready is None:
            self._ready = self._fetch()

    def generators(self) -> dict[str, Tensor]:
        """The state of each replay's generator, as if nothing had been drawn ahead."""
        return self._ready.generators if self._ready else self._states()

    def _contents(self) -> list[int]:
        return [replay.changes for replay in self.replays.values()]

    def _states(self) -> dict[str, Tensor]:
        return {name: replay.generator.get_state() for name, replay in self.replays.items()}

    def _fetch(self) -> _Ready:
        """Draw a batch, and start its copy to the device."""
        contents, generators = self._contents(), self._states()
        if len(self._slots) < 2:
            replay = next(iter(self.replays.values()))
            pinned = self._stream is not None
            self._slots.append(_Slot(Batch.empty(replay.spec, self._size, torch.device("cpu"), pinned)))
        else:
            self._slots.reverse()
        slot = self._slots[-1]
        if slot.copied is not None:
            slot.copied.synchronize()  # over long ago: that batch has been used, or thrown away
        sample_mixed(*self._draw, out=slot.batch)
        if self._stream is None:
            return _Ready(slot.batch, contents, generators, None)
        with torch.cuda.stream(self._stream):
            batch = slot.batch.to(self.device)
            slot.copied = self._stream.record_event()
        return _Ready(batch, contents, generators, slot.copied)
