from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from blemish.detectors.filter_responses import CELL, Illumination, _lines, _reduced, filter_responses

BOTH = pytest.mark.parametrize("illumination", ["log", "local"])


def surface(seed: int = 0, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1)
    return (0.5 + 0.1 * noise / noise.std()).clip(0.05, 0.95).astype(np.float32)[None]


@pytest.mark.parametrize("channels", [1, 3, 11])
@BOTH
def test_a_place_is_a_cell_of_four_pixels_also_of_odd_sides(
    illumination: Illumination, channels: int
) -> None:
    x = np.repeat(surface(shape=(77, 93)), channels, 0)
    count = 31 if channels == 1 else 31 + channels
    responses = filter_responses(x, illumination)
    assert responses.shape == (count, 72 // CELL, 88 // CELL)
    assert responses.dtype == np.float32
    assert np.isfinite(responses).all()


def test_local_responses_ignore_light() -> None:
    x = surface()
    brighter = 0.7 * x + 0.2
    # The 0.005 that keeps a flat image quiet is small beside a contrast of 0.1.
    np.testing.assert_allclose(
        filter_responses(brighter, "local"), filter_responses(x, "local"), rtol=0.1, atol=0.1
    )


def test_a_gain_changes_only_the_brightness_of_logarithmic_responses() -> None:
    x = surface() + 1  # so that the constant beside it is small
    change = np.abs(filter_responses(0.5 * x, "log") - filter_responses(x, "log"))
    assert (change.max((1, 2)) > 0.5).sum() == 1
    assert np.sort(change.max((1, 2)))[-2] < 0.1


@BOTH
def test_a_faint_connected_line_stands_out_more_than_speckle_of_its_contrast(
    illumination: Illumination,
) -> None:
    """Of the responses, those along lines answer to the connected pixels and not to the scattered ones."""
    clean = surface(1)
    line, speckle = clean.copy(), clean.copy()
    line[0, 40:42, 30:70] -= 0.25
    rng = np.random.default_rng(2)
    speckle[0, rng.integers(8, 88, 80), rng.integers(8, 120, 80)] -= 0.25

    def largest_rise(x: np.ndarray) -> float:
        rise = filter_responses(x, illumination) - filter_responses(clean, illumination)
        spread = filter_responses(clean, illumination).std((1, 2), keepdims=True)
        return float((rise / spread)[LINES].max())

    assert largest_rise(line) > 1.3 * largest_rise(speckle)


LINES = [7]
"""Number of the response along dark lines of the finest octave."""


def test_lines_are_averages_along_the_direction_that_answers_most() -> None:
    rng = np.random.default_rng(3)
    rows, columns, both = rng.standard_normal((3, 24, 20)).astype(np.float32)
    dark, bright = _lines(rows, columns, both, 5)
    place, found = (11, 9), []
    for number in range(8):
        angle = math.pi * number / 8
        down, right = math.sin(angle), math.cos(angle)
        points = {(round(t * down), round(t * right)) for t in range(-2, 3)}
        values = []
        for dy, dx in points:
            at = place[0] + dy, place[1] + dx
            hessian = np.array([[rows[at], both[at]], [both[at], columns[at]]])
            normal = np.array([right, -down])  # (row, column), across the direction
            values.append(normal @ hessian @ normal)
        found.append(np.mean(values))
    assert dark[place] == pytest.approx(max(found), rel=1e-4)
    assert bright[place] == pytest.approx(min(found), rel=1e-4)


@pytest.mark.parametrize("by", ["mean", "max", "min"])
@pytest.mark.parametrize("cell", [1, 2, 4])
def test_cells_are_reduced_as_numpy_does_it(by: str, cell: int) -> None:
    x = np.random.default_rng(4).random((8, 12), dtype=np.float32)
    expected = getattr(x.reshape(8 // cell, cell, 12 // cell, cell), by)((1, 3))
    np.testing.assert_allclose(_reduced(x, cell, by), expected, rtol=1e-6)  # type: ignore[arg-type]


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels a side, not 40 × 31"):
        filter_responses(surface(shape=(31, 40)), "log")


@BOTH
def test_products_of_matrices_have_the_values_of_filterings(
    monkeypatch: pytest.MonkeyPatch, illumination: Illumination
) -> None:
    x = np.random.default_rng(1).random((1, 72, 104), dtype=np.float32)
    found = filter_responses(x, illumination)
    monkeypatch.setattr("blemish.detectors.filter_responses.LARGEST_MATRIX", 0)
    np.testing.assert_allclose(found, filter_responses(x, illumination), rtol=1e-3, atol=1e-4)
