from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.affine import places, resample_affine
from blemish.data.registration import fit_map, register

SIDE = 384


def surface(seed: int, side: int = SIDE) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    plane = ndimage.gaussian_filter(rng.random((side, side)), 2) * 8
    for _ in range(60):
        y, x = rng.integers(0, side, 2)
        plane[y : y + rng.integers(5, 50), x : x + rng.integers(5, 50)] += rng.normal(0, 0.5)
    return ((plane - plane.min()) / np.ptp(plane)).astype(np.float32)[None]


def seen_through(image: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """What another sensor shows whose place ``matrix`` p shows what ``image`` shows at p; its contrast is reversed."""

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        return image[:, top : top + height, left : left + width]

    size = (image.shape[1], image.shape[2])
    return 0.9 - 0.5 * resample_affine(read, size, 1, np.linalg.inv(matrix), (0, 0, *size))


def turned(degrees: float, scale: float, dx: float, dy: float) -> NDArray[np.float64]:
    """A rotation and scale about the middle, and a shift."""
    across, down = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    matrix = np.array([[across, -down, 0], [down, across, 0], [0, 0, 1.0]])
    matrix[:2, 2] = SIDE / 2 - matrix[:2, :2] @ [SIDE / 2, SIDE / 2] + [dx, dy]
    return matrix


def worst(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    y, x = np.mgrid[0:SIDE:24, 0:SIDE:24] + 0.5
    (u, v), (u_true, v_true) = places(found, x, y), places(true, x, y)
    inside = (u_true > 0) & (u_true < SIDE) & (v_true > 0) & (v_true < SIDE)
    return float(np.hypot(u - u_true, v - v_true)[inside].max())


@pytest.mark.parametrize("true", [turned(0, 1, -12.3, 7.6), turned(1.5, 1, 3, 4)], ids=["shift", "turned"])
def test_a_map_is_found_to_half_a_pixel(true: NDArray[np.float64]) -> None:
    image = surface(0)
    found = register(image, seen_through(image, true))
    assert found is not None
    assert found.is_sure
    assert worst(found.matrix, true) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("true", [turned(5, 1.1, 4, -6), turned(-3, 0.8, 9, 0), turned(0, 1.33, 0, 0)])
def test_scale_and_rotation_are_searched_for(true: NDArray[np.float64]) -> None:
    image = surface(1)
    found = register(image, seen_through(image, true))
    assert found is not None
    assert worst(found.matrix, true) < 0.5


def test_a_translation_has_no_scale() -> None:
    image = surface(2)
    found = register(image, np.roll(image, (-4, 9), (1, 2)), "translation")
    assert found is not None
    assert found.matrix[:2].tolist() == [
        [1, 0, pytest.approx(9, abs=0.2)],
        [0, 1, pytest.approx(-4, abs=0.2)],
    ]


def test_images_of_other_surfaces_have_no_map() -> None:
    assert register(surface(3), surface(4), "translation") is None


def test_a_fit_leaves_out_what_does_not_agree() -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 500, (40, 2))
    true = np.array([[1.02, 0.03, -4], [-0.01, 0.99, 11], [0, 0, 1]])
    targets = centres @ true[:2, :2].T + true[:2, 2]
    targets[:12] += rng.uniform(20, 60, (12, 2))
    matrix, agreeing = fit_map(centres, targets, "affine", 1.0)
    assert not agreeing[:12].any()
    assert agreeing[12:].all()
    np.testing.assert_allclose(matrix, true, atol=1e-8)
