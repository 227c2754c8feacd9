"""Random shift: what moves where, and that a pair moves together."""

from __future__ import annotations

import numpy as np
import torch

from agent.data.random_shift import draw_shifts, shift


def moved(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """One image shifted the slow way: pad by repeating the border, then cut."""
    pad = 8
    wide = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    return wide[pad + rows : pad + rows + height, pad + columns : pad + columns + width]


def test_a_four_by_four_example():
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1)
    result = shift(image, torch.tensor([[1, -2]]), 2)
    assert result[0, :, :, 0].tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [12, 12, 12, 13], [12, 12, 12, 13]]
    assert result.dtype == torch.uint8


def test_every_offset_equals_padding_and_cutting():
    rng = np.random.default_rng(0)
    pad = 3
    offsets = [(r, c) for r in range(-pad, pad + 1) for c in range(-pad, pad + 1)]
    images = rng.integers(0, 256, (len(offsets), 6, 9, 3), dtype=np.uint8)  # not square: rows are not columns
    result = shift(torch.from_numpy(images), torch.tensor(offsets), pad).numpy()
    for image, (rows, columns), got in zip(images, offsets, result, strict=True):
        np.testing.assert_array_equal(got, moved(image, rows, columns))


def test_shifts_reach_every_offset_and_follow_their_generator():
    draws = draw_shifts(2000, 2, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert {tuple(d) for d in draws.tolist()} == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}
    assert torch.equal(draws, draw_shifts(2000, 2, torch.Generator().manual_seed(0), torch.device("cpu")))


def test_observation_and_next_observation_move_together_and_states_stay(make_batch):
    batch = make_batch(40)
    batch.next_observations["cam"] = batch.observations["cam"].clone()  # a scene that stands still
    originals = batch.observations["cam"].clone(), batch.observations["pos"].clone()
    result = batch.augmented(3, torch.Generator().manual_seed(1))
    assert torch.equal(result.observations["cam"], result.next_observations["cam"])
    offsets = set()
    for before, after in zip(originals[0].numpy(), result.observations["cam"].numpy(), strict=True):
        fits = [(r, c) for r in range(-3, 4) for c in range(-3, 4) if np.array_equal(moved(before, r, c), after)]
        assert len(fits) == 1
        offsets.add(fits[0])
    assert len(offsets) > 10  # each item of the batch has its own
    assert torch.equal(result.observations["pos"], originals[1])
    assert result.returns is batch.returns and result.actions is batch.actions
    assert torch.equal(batch.observations["cam"], originals[0])  # the batch itself was not changed


def test_no_padding_means_no_augmentation(make_batch):
    batch = make_batch()
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert batch.augmented(0, generator) is batch and torch.equal(before, generator.get_state())
