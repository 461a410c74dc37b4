from __future__ import annotations

import numpy as np
import pytest
from skimage import measure

from blemish.decision.conformal import conformal_threshold
from blemish.decision.regions import find_regions, region_mask


@pytest.fixture
def residual_map() -> np.ndarray:
    return np.random.default_rng(0).random((41, 29)).astype(np.float32)


def test_regions_agree_with_scikit_image(residual_map: np.ndarray) -> None:
    labels = measure.label(residual_map > 0.8, connectivity=2)
    expected = {
        (r.bbox[1], r.bbox[0], r.bbox[3] - r.bbox[1], r.bbox[2] - r.bbox[0], int(r.area)): (
            float(r.intensity_max),
            float(r.intensity_mean),
        )
        for r in measure.regionprops(labels, residual_map.astype(np.float64))
    }
    found = find_regions(residual_map, 0.8)
    assert len(found) == labels.max() > 10
    for region in found:
        peak, mean = expected[region.x, region.y, region.width, region.height, region.area]
        assert (region.peak, region.mean) == (peak, pytest.approx(mean, rel=1e-12))
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)


def test_diagonal_neighbours_are_one_region() -> None:
    assert len(find_regions(np.eye(4), 0.5)) == 1
    assert len(find_regions(np.eye(5)[:, ::2], 0.5)) == 3


def test_a_value_equal_to_the_threshold_is_not_above_it() -> None:
    assert find_regions(np.full((3, 3), 0.5), 0.5) == ()
    assert not region_mask(np.full((3, 3), 0.5), 0.5).any()


def test_the_mask_is_the_union_of_the_regions(residual_map: np.ndarray) -> None:
    mask = region_mask(residual_map, 0.8)
    regions = find_regions(residual_map, 0.8)
    assert mask.sum() == sum(region.area for region in regions)
    for region in regions:
        rows = slice(region.y, region.y + region.height)
        columns = slice(region.x, region.x + region.width)
        assert residual_map[rows, columns][mask[rows, columns]].max() >= region.peak
    assert np.all(residual_map[mask] > 0.8)


def test_equal_peaks_come_by_area_then_by_place() -> None:
    residual_map = np.zeros((5, 9))
    residual_map[4, 0] = residual_map[0, 6] = residual_map[0, 0] = 1.0
    residual_map[2:4, 4] = 1.0
    found = [(region.x, region.y) for region in find_regions(residual_map, 0.5)]
    assert found == [(4, 2), (0, 0), (6, 0), (0, 4)]


def test_an_image_shows_regions_exactly_when_its_maximum_is_above_the_calibrated_level() -> None:
    maps = np.random.default_rng(1).random((60, 8, 8)).astype(np.float32)
    level = conformal_threshold(maps[:30].max(axis=(1, 2)), 0.1)
    shown = [bool(find_regions(residual_map, level)) for residual_map in maps]
    assert shown == [residual_map.max() > level for residual_map in maps]
    assert sum(shown[:30]) <= 3


def test_a_map_has_two_axes() -> None:
    for function in (find_regions, region_mask):
        with pytest.raises(ValueError, match="shape"):
            function(np.zeros(4), 0.5)
