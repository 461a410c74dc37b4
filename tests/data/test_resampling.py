from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from blemish.data.image import resize
from blemish.data.resampling import ResamplingAxis, resample

SIZES = [(7, 14), (7, 20), (14, 7), (20, 7), (9, 10), (5, 5)]


@pytest.mark.parametrize(("of", "to"), SIZES)
def test_windows_equal_the_resampling_of_whole_images(of: int, to: int) -> None:
    pixels = np.random.default_rng(0).random((2, of, of)).astype(np.float32)
    axis = ResamplingAxis(of, to, 0, to)
    assert_allclose(resample(pixels, axis, axis), resize(pixels, (to, to)), atol=1e-6)


@pytest.mark.parametrize(("of", "to"), SIZES)
def test_each_window_is_cut_from_the_whole(of: int, to: int) -> None:
    pixels = np.random.default_rng(0).random((1, of, of)).astype(np.float32)
    whole = resample(pixels, ResamplingAxis(of, to, 0, to), ResamplingAxis(of, to, 0, to))
    for start in range(to):
        for stop in range(start + 1, to + 1):
            rows, columns = ResamplingAxis(of, to, start, stop), ResamplingAxis(of, to, 0, stop)
            window = pixels[:, rows.first : rows.last, columns.first : columns.last]
            assert_array_equal(resample(window, rows, columns), whole[:, start:stop, :stop])


def test_outer_edges_are_aligned() -> None:
    # The left half black and the right half white stay so, whatever the resolution.
    edge = np.repeat([[[0.0] * 4 + [1.0] * 4]], 8, axis=1)
    finer = resample(edge, ResamplingAxis(8, 24, 0, 24), ResamplingAxis(8, 24, 0, 24))
    assert_allclose(finer.mean(), 0.5, atol=1e-7)
    assert_allclose(finer, 1 - finer[:, :, ::-1], atol=1e-7)


def test_absent_pixels_affect_their_neighbourhood_only() -> None:
    pixels = np.zeros((1, 4, 4), np.float32)
    pixels[0, 0, 0] = np.nan
    axis = ResamplingAxis(4, 8, 0, 8)
    absent = np.isnan(resample(pixels, axis, axis))[0]
    expected = np.zeros((8, 8), bool)
    expected[:3, :3] = True  # centres within one old pixel of the absent one
    assert_array_equal(absent, expected)
