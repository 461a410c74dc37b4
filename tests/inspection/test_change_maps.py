from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from blemish.inspection.change_maps import change_maps, combined, match_levels, usual_size
from blemish.similarity import ssim_map

EQUAL = ((1.0, 0.0),)


def texture(seed: int = 0, shape: tuple[int, int] = (90, 110)) -> np.ndarray:
    grains = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    spread = (grains - grains.min()) / (grains.max() - grains.min())
    return (0.2 + 0.5 * spread)[None].astype(np.float32)


def test_structure_is_one_minus_ssim() -> None:
    one, other = texture(0), texture(1)
    found = change_maps(one, other, EQUAL).structure
    expected = 1 - ssim_map(torch.from_numpy(one)[None], torch.from_numpy(other)[None], data_range=1.0)[0, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)  # of float32


def test_absent_pixels_change_nothing_around_them() -> None:
    one = texture()
    other = one.copy()
    other[:, 30:50, 40:70] = np.nan
    maps = change_maps(one, other, EQUAL)
    for values in maps:
        assert np.isnan(values[30:50, 40:70]).all()
        assert np.isfinite(values).sum() == one.size - 20 * 30
        assert np.nanmax(np.abs(values)) < 1e-6


def test_levels_are_matched_although_a_tenth_changed() -> None:
    before = np.concatenate([texture(0), texture(1)])
    after = (before - np.float32(0.1)) / np.float32(0.7)
    after[:, :30, :33] = 0.9
    for gain, offset in match_levels(before, after):
        assert abs(gain - 0.7) < 0.01
        assert abs(offset - 0.1) < 0.01
    assert match_levels(np.full((1, 9, 9), 0.5, np.float32), texture()[:, :9, :9]) == EQUAL


def test_a_shift_of_one_pixel_is_no_change_and_a_new_line_is() -> None:
    before = texture()
    shifted = np.roll(before, 1, 2)
    inside = (slice(3, -3), slice(3, -3))
    moved = change_maps(before, shifted, EQUAL)
    assert moved.grey[inside].max() < 1e-6
    assert moved.difference[inside].max() > 0.05
    cracked = before.copy()
    cracked[:, 45, 20:90] -= 0.2
    for pair in ((before, cracked), (cracked, before)):
        assert change_maps(*pair, EQUAL).grey[45, 25:85].mean() > 0.15


def test_a_change_combines_structure_and_grey_level() -> None:
    before = texture()
    nothing = combined(change_maps(before, before, EQUAL), 0.02)
    assert np.abs(nothing).max() < 1e-6
    brighter = before.copy()
    brighter[:, 30:60, 30:70] += 0.3
    change = combined(change_maps(before, brighter, EQUAL), 0.02)
    assert change[35:55, 35:65].min() > 0.7
    assert change.max() <= 1
    assert usual_size(np.array([0.1, 0.1, 0.1, 0.1, 5.0], np.float32)) == np.float32(0.1)
