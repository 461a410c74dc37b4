from __future__ import annotations

import math

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.affine import (
    as_matrix,
    as_transform,
    covered_share,
    places,
    resample_affine,
    scale_of,
    scaling,
)

IMAGE = np.random.default_rng(0).random((2, 40, 50)).astype(np.float32)
TURNED = as_matrix(((0.98, -0.17, 6.2), (0.17, 0.98, -3.1)))


def resampled(
    matrix: NDArray[np.float64], window: tuple[int, int, int, int], image: NDArray[np.float32] = IMAGE
) -> NDArray[np.float32]:
    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        assert 0 <= top < top + height <= image.shape[1]
        assert 0 <= left < left + width <= image.shape[2]
        return image[:, top : top + height, left : left + width]

    return resample_affine(read, (image.shape[1], image.shape[2]), len(image), matrix, window)


def test_the_identity_keeps_every_value() -> None:
    assert_array_equal(resampled(np.eye(3), (0, 0, 40, 50)), IMAGE)


def test_values_are_those_of_bilinear_interpolation() -> None:
    """Compared with map_coordinates of SciPy, at the places inside the image."""
    found = resampled(TURNED, (0, 0, 40, 50))
    y, x = np.mgrid[0:40, 0:50] + 0.5
    u, v = places(TURNED, x, y)
    inside = (u >= 0.5) & (u <= 49.5) & (v >= 0.5) & (v <= 39.5)
    for plane, own in zip(IMAGE, found, strict=True):
        expected = ndimage.map_coordinates(plane.astype(float), [v - 0.5, u - 0.5], order=1, mode="nearest")
        assert_allclose(own[inside], expected[inside], atol=1e-5)
    beyond = (u < 0) | (u > 50) | (v < 0) | (v > 40)
    assert np.isnan(found[0][beyond]).all()
    assert np.isfinite(found[0][~beyond]).all()


def test_every_window_is_cut_from_the_whole() -> None:
    for matrix in (TURNED, scaling(2.3, 2.3) @ TURNED):
        whole = resampled(matrix, (0, 0, 40, 50))
        for window in ((0, 0, 5, 7), (11, 3, 17, 40), (39, 49, 1, 1)):
            top, left, height, width = window
            expected = whole[:, top : top + height, left : left + width]
            assert_array_equal(resampled(matrix, window), expected)


def test_a_finer_image_is_averaged_first() -> None:
    checks = np.indices((40, 40)).sum(0)[None].astype(np.float32) % 2
    found = resampled(scaling(2, 2), (0, 0, 20, 20), checks)
    assert_allclose(found, 0.5)


def test_absent_pixels_stay_local() -> None:
    image = IMAGE.copy()
    image[:, 10, 10] = np.nan
    found = resampled(np.eye(3), (0, 0, 40, 50), image)
    assert np.isnan(found).sum() == 2
    half = resampled(as_matrix(((1, 0, 0.5), (0, 1, 0))), (0, 0, 40, 49), image)
    assert np.argwhere(np.isnan(half[0])).tolist() == [[10, 9], [10, 10]]


def test_a_window_beyond_the_image_is_absent() -> None:
    far = as_matrix(((1, 0, 500), (0, 1, 0)))
    assert np.isnan(resampled(far, (0, 0, 10, 10))).all()
    assert covered_share(far, (40, 50), (40, 50)) == 0
    assert covered_share(np.eye(3), (40, 50), (40, 50)) == 1


def test_a_transform_survives_as_a_matrix() -> None:
    assert as_transform(as_matrix(((1, 2, 3), (4, 5, 6)))) == ((1, 2, 3), (4, 5, 6))
    assert math.isclose(scale_of(scaling(3, 3) @ as_matrix(((0, -1, 9), (1, 0, 9)))), 3)
