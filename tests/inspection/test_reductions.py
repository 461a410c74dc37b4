from __future__ import annotations

import numpy as np
import pytest

from blemish.inspection.reductions import maxima, means, sums


@pytest.mark.parametrize(("size", "factor"), [((7, 9), 1), ((7, 9), 2), ((8, 8), 4), ((5, 11), 8)])
def test_reductions_ignore_absent_pixels(size: tuple[int, int], factor: int) -> None:
    values = np.random.default_rng(0).random((3, *size), np.float32)
    values[0, :3, :4] = np.nan
    values[1] = np.nan
    mean, largest = means(values, factor), maxima(values[0], factor)
    for row in range(mean.shape[1]):
        for column in range(mean.shape[2]):
            part = values[:, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            for plane, reduced in zip(part, mean[:, row, column], strict=True):
                there = plane[np.isfinite(plane)]
                assert (reduced == pytest.approx(there.mean())) if there.size else np.isnan(reduced)
            there = part[0][np.isfinite(part[0])]
            assert largest[row, column] == there.max() if there.size else np.isnan(largest[row, column])
    assert mean.shape[1:] == tuple(-(-length // factor) for length in size)


def test_sums_are_of_the_finite_values_of_each_plane() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    values[0, 0, 1] = np.nan
    assert sums(values) == ((14.0, 5), (51.0, 6))
