"""Maps as arrays: the values of torch's operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from blemish.detectors.map_arrays import MapScale, axis_matrix, places_matrix, resized_array
from blemish.detectors.map_normaliser import MapNormaliser, resized_map

rng = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(31, 47), (64, 80), (7, 120), (31, 20), (1, 1)])
def test_maps_are_resized_as_in_torch(size: tuple[int, int]) -> None:
    x = rng.random((3, 31, 47), dtype=np.float32)
    expected = resized_map(torch.from_numpy(x)[None], size)[0].numpy()
    found = resized_array(x, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


def test_a_constant_stays_itself() -> None:
    np.testing.assert_allclose(resized_array(np.full((9, 13), 0.3, np.float32), (23, 5)), 0.3, rtol=1e-6)
    np.testing.assert_array_equal(axis_matrix(5, 5), np.eye(5))


@pytest.mark.parametrize(
    ("places", "stride", "offset", "side"), [(6, 4, 0, 21), (6, 4, 3, 27), (1, 8, 4, 9), (5, 1, 0, 5)]
)
def test_places_are_interpolated_as_in_torch(places: int, stride: int, offset: int, side: int) -> None:
    values = torch.rand(1, 1, places, generator=torch.Generator().manual_seed(0))
    inner = F.interpolate(values, size=(places - 1) * stride + 1, mode="linear", align_corners=True)
    expected = F.pad(inner, (offset, max(0, side - inner.shape[2] - offset)), mode="replicate")[0, 0, :side]
    found = places_matrix(places, stride, offset, side) @ values[0, 0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [5, 20], ids=["of all places", "of each place"])
def test_maps_are_normalised_as_in_torch(count: int) -> None:
    normaliser = MapNormaliser()
    generator = torch.Generator().manual_seed(1)
    normaliser.fit([torch.rand(24, 30, generator=generator) for _ in range(count)], by_place=True)
    scale = normaliser.scale
    for size in ((24, 30), (49, 61), (11, 30), (24, 30)):
        values = torch.rand(*size, generator=generator) * 2
        found = scale(values.numpy())
        np.testing.assert_allclose(found, normaliser(values), rtol=1e-4, atol=1e-5)
        assert found.min() >= 0


def test_a_spread_of_zero_divides_nothing_by_zero() -> None:
    scale = MapScale(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
    assert np.isfinite(scale(np.ones((3, 4), np.float32))).all()
