"""The normaliser of maps: by place and over all places, and what exceeds it."""

from __future__ import annotations

import torch
from safetensors.torch import load, save
from torch import Tensor

from blemish.detectors.map_normaliser import FEWEST, FLATTENING, MapNormaliser


def maps(count: int, height: int = 24, width: int = 32, seed: int = 0) -> list[Tensor]:
    """Maps (h, w) that are livelier on their right half."""
    generator = torch.Generator().manual_seed(seed)
    lively = torch.where(torch.arange(width) < width // 2, 1.0, 5.0)
    return [2 + lively * torch.randn(height, width, generator=generator) for _ in range(count)]


def test_unfitted_it_divides_by_the_flattened_spread_of_one() -> None:
    values = torch.tensor([[-1.0, 0.0, 6.0]])
    expected = torch.tensor([[0.0, 0.0, 6.0 / (1 + FLATTENING)]])
    torch.testing.assert_close(MapNormaliser()(values), expected)
    normaliser = MapNormaliser()
    normaliser.fit([], by_place=True)
    torch.testing.assert_close(normaliser(values), expected)


def test_of_all_places_it_is_mean_and_deviation_of_all_values() -> None:
    good, normaliser = maps(20), MapNormaliser()
    normaliser.fit(good, by_place=False)
    values = torch.stack(good)
    x = maps(1, 17, 9, seed=5)[0]
    expected = ((x - values.mean()) / (3 * values.std(correction=0))).clamp(min=0)
    torch.testing.assert_close(normaliser(x), expected)


def test_by_place_the_lively_half_is_not_shown_more_than_the_other() -> None:
    good, normaliser, everywhere = maps(400), MapNormaliser(), MapNormaliser()
    normaliser.fit(good, by_place=True)
    everywhere.fit(good, by_place=False)
    x = torch.stack(maps(50, seed=1))
    halves = [
        shown[..., part].mean()
        for shown in (normaliser(x), everywhere(x))
        for part in (slice(15), slice(17, 32))
    ]
    # Mean of a half normal distribution of 1 and 5, over 1 and 5 and twice the mean of both.
    torch.testing.assert_close(
        torch.stack(halves[:2]), 0.4 * torch.tensor([1 / 7, 5 / 11]), rtol=0.08, atol=0
    )
    assert halves[1] / halves[0] < 3.5 < 4.5 < halves[3] / halves[2]


def test_by_place_maps_of_several_sizes_lie_on_the_median_one() -> None:
    normaliser = MapNormaliser()
    normaliser.fit([*maps(9), *maps(9, 48, 64), *maps(1, 8, 8)], by_place=True, coarser=4)
    assert normaliser.mean.shape == normaliser.spread.shape == (6, 8)
    torch.testing.assert_close(normaliser.mean.mean(), torch.tensor(2.0), atol=0.3, rtol=0)
    for size in ((24, 32), (7, 5), (100, 64)):
        assert normaliser(torch.zeros(size)).shape == size


def test_few_maps_are_normalised_over_all_places() -> None:
    normaliser = MapNormaliser()
    normaliser.fit(maps(FEWEST - 1), by_place=True)
    assert normaliser.mean.shape == (1, 1)
    normaliser.fit(maps(FEWEST), by_place=True)
    assert normaliser.mean.shape == (24, 32)
    normaliser.fit([torch.full((4, 4), 0.3)], by_place=True)
    assert normaliser(torch.full((4, 4), 0.3)).abs().max() < 0.1  # without any spread
    assert normaliser(torch.full((4, 4), 0.4)).isfinite().all()


def test_a_common_gain_and_offset_change_nothing() -> None:
    first, second, x = MapNormaliser(), MapNormaliser(), maps(1, seed=3)[0]
    first.fit(maps(20), by_place=True)
    second.fit([3 * one + 7 for one in maps(20)], by_place=True)
    torch.testing.assert_close(second(3 * x + 7), first(x), rtol=1e-4, atol=1e-5)


def test_it_comes_back_from_disk_into_an_unfitted_one_and_can_be_reset() -> None:
    normaliser, other, x = MapNormaliser(), MapNormaliser(), maps(1, seed=3)[0]
    normaliser.fit(maps(20), by_place=True)
    other.load_state_dict(load(save(normaliser.state_dict())))
    assert torch.equal(other(x), normaliser(x))
    other.reset()
    assert torch.equal(other(x), MapNormaliser()(x))
