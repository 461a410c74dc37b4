"""What a map usually shows: by place and of all places, and what goes beyond it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from blemish.detectors.map_normaliser import FEWEST, FLATTENING, MapNormaliser
from blemish.detectors.memory_bank import joined


def maps(count: int, height: int = 24, width: int = 32, seed: int = 0) -> list[Tensor]:
    """Maps (h, w) that are livelier on their right half."""
    generator = torch.Generator().manual_seed(seed)
    lively = torch.where(torch.arange(width) < width // 2, 1.0, 5.0)
    return [2 + lively * torch.randn(height, width, generator=generator) for _ in range(count)]


def test_knowing_nothing_it_divides_by_the_flattened_spread_of_one() -> None:
    values = torch.tensor([[-1.0, 0.0, 6.0]])
    expected = torch.tensor([[0.0, 0.0, 6.0 / (1 + FLATTENING)]])
    torch.testing.assert_close(MapNormaliser()(values), expected)
    usual = MapNormaliser()
    usual.learn([], by_place=True)
    torch.testing.assert_close(usual(values), expected)


def test_of_all_places_it_is_mean_and_deviation_of_all_values() -> None:
    good, usual = maps(20), MapNormaliser()
    usual.learn(good, by_place=False)
    values = torch.stack(good)
    x = maps(1, 17, 9, seed=5)[0]
    expected = ((x - values.mean()) / (3 * values.std(correction=0))).clamp(min=0)
    torch.testing.assert_close(usual(x), expected)


def test_by_place_the_lively_half_is_not_shown_more_than_the_other() -> None:
    good, usual, alike = maps(400), MapNormaliser(), MapNormaliser()
    usual.learn(good, by_place=True)
    alike.learn(good, by_place=False)
    x = torch.stack(maps(50, seed=1))
    halves = [
        shown[..., part].mean() for shown in (usual(x), alike(x)) for part in (slice(15), slice(17, 32))
    ]
    # Mean of a half normal distribution of 1 and 5, over 1 and 5 and twice the mean of both.
    torch.testing.assert_close(
        torch.stack(halves[:2]), 0.4 * torch.tensor([1 / 7, 5 / 11]), rtol=0.08, atol=0
    )
    assert halves[1] / halves[0] < 3.5 < 4.5 < halves[3] / halves[2]


def test_by_place_maps_of_several_sizes_lie_on_the_median_one() -> None:
    usual = MapNormaliser()
    usual.learn([*maps(9), *maps(9, 48, 64), *maps(1, 8, 8)], by_place=True, coarser=4)
    assert usual.mean.shape == usual.spread.shape == (6, 8)
    torch.testing.assert_close(usual.mean.mean(), torch.tensor(2.0), atol=0.3, rtol=0)
    for size in ((24, 32), (7, 5), (100, 64)):
        assert usual(torch.zeros(size)).shape == size


def test_few_maps_do_not_tell_of_each_place() -> None:
    usual = MapNormaliser()
    usual.learn(maps(FEWEST - 1), by_place=True)
    assert usual.mean.shape == (1, 1)
    usual.learn(maps(FEWEST), by_place=True)
    assert usual.mean.shape == (24, 32)
    usual.learn([torch.full((4, 4), 0.3)], by_place=True)
    assert usual(torch.full((4, 4), 0.3)).abs().max() < 0.1  # without any spread
    assert usual(torch.full((4, 4), 0.4)).isfinite().all()


def test_a_common_gain_and_offset_change_nothing() -> None:
    first, second, x = MapNormaliser(), MapNormaliser(), maps(1, seed=3)[0]
    first.learn(maps(20), by_place=True)
    second.learn([3 * one + 7 for one in maps(20)], by_place=True)
    torch.testing.assert_close(second(3 * x + 7), first(x), rtol=1e-4, atol=1e-5)


def test_it_comes_back_from_disk_into_one_that_knows_nothing_and_can_be_forgotten() -> None:
    usual, other, x = MapNormaliser(), MapNormaliser(), maps(1, seed=3)[0]
    usual.learn(maps(20), by_place=True)
    other.load_state_dict(load(save(usual.state_dict())))
    assert torch.equal(other(x), usual(x))
    other.forget()
    assert torch.equal(other(x), MapNormaliser()(x))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_joined_maps_are_one_at_both_units_and_of_a_sure_network_doublings_count(share: float) -> None:
    units = (4.0, 0.5)
    torch.testing.assert_close(joined(torch.tensor(4.0), torch.tensor(0.5), units, share), torch.tensor(1.0))
    surest = joined(torch.tensor([1e9, 2e9]), torch.zeros(2), units, share)
    torch.testing.assert_close(surest.diff(), torch.tensor([1 - share]), atol=1e-4, rtol=0)
    rising = joined(torch.linspace(0, 50, 100), torch.linspace(0, 9, 100), units, share)
    assert (rising.diff() > 0).all()
    if not share:
        assert torch.equal(
            joined(torch.ones(3), None, units, 0.0), joined(torch.ones(3), torch.ones(3), units, 0.0)
        )
