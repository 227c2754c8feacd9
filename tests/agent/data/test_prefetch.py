"""Batches drawn ahead are those that would have been drawn on demand, whatever happens in between."""

from __future__ import annotations

import contextlib

import pytest
import torch

from agent.config import RewardConfig
from agent.data.prefetch import Prefetch
from agent.data.replay_buffer import Batch, Replay

CPU = torch.device("cpu")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def make_sides(spec, make_episode):
    def make() -> list[Replay]:
        sides = [Replay(spec, 60, RewardConfig(), 0.9, seed) for seed in (1, 2)]
        for replay in sides:
            replay.add(make_episode(7, seed=replay.generator.initial_seed()))
        return sides

    return make


def same(one: Batch, two: Batch) -> None:
    for a, b in zip(one.tensors(), two.tensors(), strict=True):
        assert torch.equal(a.cpu(), b.cpu())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
@pytest.mark.parametrize("share", [0.5, -1.0, 0.0])
def test_the_batches_and_the_generators_are_those_of_drawing_on_demand(make_sides, make_episode, share, device):
    plain = Prefetch(*make_sides(), 16, share, CPU)
    ahead = Prefetch(*make_sides(), 16, share, torch.device(device), ahead=True)
    for k in range(40):
        if k % 5 == 3 or k in (10, 11):
            for prefetch in (plain, ahead):
                prefetch.replays["online"].add(make_episode(3 + k % 4, seed=k))
        one, two = plain.next(), ahead.next()
        if device == "cuda":  # work for the GPU to be behind with: a batch must stay whole under it
            torch.linalg.matrix_power(torch.rand(512, 512, device=device), 40)
        if k % 7:  # whether or not anything has been drawn in time
            plain.draw_ahead()
            ahead.draw_ahead()
        same(one, two)
        for name, state in plain.generators().items():
            assert torch.equal(state, ahead.generators()[name])


def test_a_batch_drawn_ahead_stays_out_of_the_checkpoint(make_sides):
    sides = make_sides()
    before = [replay.generator.get_state() for replay in sides]
    prefetch = Prefetch(*sides, 16, 0.5, CPU, ahead=True)
    prefetch.next()
    prefetch.draw_ahead()
    states = prefetch.generators()
    assert not any(torch.equal(state, old) for state, old in zip(states.values(), before, strict=True))
    assert not any(torch.equal(states[name], r.generator.get_state()) for name, r in prefetch.replays.items())
    resumed = Prefetch(*make_sides(), 16, 0.5, CPU, ahead=True)
    for name, replay in resumed.replays.items():
        replay.generator.set_state(states[name])
    same(prefetch.next(), resumed.next())


def test_on_a_cpu_nothing_is_drawn_ahead(make_sides):
    prefetch = Prefetch(*make_sides(), 16, 0.5, CPU)
    assert not prefetch.ahead
    batch = prefetch.next()
    for name, state in prefetch.generators().items():
        assert torch.equal(state, prefetch.replays[name].generator.get_state())
    taken = batch.observations["cam"].data_ptr()
    assert prefetch.next().observations["cam"].data_ptr() == taken  # the same memory again


def test_an_offline_side_alone(make_sides):
    offline, _ = make_sides()
    again, _ = make_sides()
    for _ in range(3):
        same(Prefetch(offline, None, 8, 1.0, CPU).next(), again.sample(8))


class Event:
    """What a stream has done when it is complete."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def synchronize(self):
        self.log.append(f"host waits for {self.name}")


class Stream:
    def __init__(self, log, name):
        self.log, self.name, self.count = log, name, 0

    def record_event(self):
        self.count += 1
        self.log.append(f"copy {self.count}")
        return Event(self.log, f"copy {self.count}")

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event.name}")


def test_on_a_gpu_copies_have_a_stream_and_everybody_waits_for_what_they_need(make_sides, monkeypatch):
    """The order of events, with a make-believe GPU."""
    log: list[str] = []
    side, main, active = Stream(log, "side"), Stream(log, "main"), []
    recorded = []

    @contextlib.contextmanager
    def within(stream):
        active.append(stream)
        yield
        active.pop()

    def move(batch, device):
        assert active == [side] and device.type == "cuda"
        return Batch(**{k: v.clone() if k == "actions" else v for k, v in vars(batch).items()})

    empty = Batch.empty
    pins = []

    def unpinned(spec, count, device, pinned=False):
        pins.append(pinned)
        return empty(spec, count, device)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded.append(stream))
    monkeypatch.setattr(Batch, "to", move)
    monkeypatch.setattr(Batch, "empty", unpinned)
    plain, prefetch = make_sides(), Prefetch(*make_sides(), 16, 0.5, torch.device("cuda"))
    assert prefetch.ahead and not active
    for k in range(3):
        monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
        one = Prefetch(*plain, 16, 0.5, CPU).next()
        monkeypatch.setattr(Batch, "to", move)
        assert torch.equal(prefetch.next().actions, one.actions)
        log.append(f"update {k + 1}")
        prefetch.draw_ahead()
        assert len(recorded) == (k + 1) * len(one.tensors()) and set(recorded) == {main}
    assert log == [
        "copy 1",
        "main waits for copy 1",
        "update 1",  # launched before anything else is gathered
        "copy 2",
        "main waits for copy 2",
        "update 2",
        "host waits for copy 1",  # before its pinned memory is used again
        "copy 3",
        "main waits for copy 3",
        "update 3",
        "host waits for copy 2",
        "copy 4",
    ]
    assert [pinned for pinned in pins if pinned] == [True, True]
