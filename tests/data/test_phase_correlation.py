from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.phase_correlation import cross_power, edge_strength, find_offset, find_peak


def surface(seed: int, side: int = 160) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).random((side, side))
    smooth = ndimage.gaussian_filter(noise, 2, mode="wrap")
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)[None]


def edges(pixels: NDArray[np.float32]) -> NDArray[np.floating]:
    found = edge_strength(pixels)
    assert found is not None
    return found


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (7, -12), (-20, 3)])
def test_a_whole_offset_is_found(dx: int, dy: int) -> None:
    moved = np.roll(surface(0), (dy, dx), (1, 2))
    found = find_offset(edges(surface(0))[:128, :128], edges(moved)[:128, :128])
    assert (found.dx, found.dy) == (pytest.approx(dx, abs=0.2), pytest.approx(dy, abs=0.2))
    assert found.confidence > 20


def test_a_part_of_a_pixel_is_found() -> None:
    moved = ndimage.shift(surface(1), (0, 2.5, -4.3), order=3, mode="grid-wrap")
    found = find_offset(edges(surface(1)), edges(moved))
    assert (found.dx, found.dy) == (pytest.approx(-4.3, abs=0.25), pytest.approx(2.5, abs=0.25))


def test_grey_levels_do_not_matter_but_edges_do() -> None:
    """A negative with another contrast has the same edges, and is found; another surface is not."""
    negative = 0.9 - 0.4 * np.roll(surface(2), 5, 2) ** 2
    found = find_offset(edges(surface(2)), edges(negative))
    assert found.dx == pytest.approx(5, abs=0.2)
    assert found.confidence > 20
    assert find_offset(edges(surface(2)), edges(surface(3))).confidence < 12


def test_a_sum_over_windows_is_surer_than_one() -> None:
    rng = np.random.default_rng(0)
    noisy = np.roll(surface(4), 3, 2) + rng.normal(0, 0.3, (1, 160, 160)).astype(np.float32)
    first, second = edges(surface(4)), edges(noisy)
    corners = [(slice(y, y + 64), slice(x, x + 64)) for y in (0, 48, 96) for x in (0, 48, 96)]
    total = sum(cross_power(first[corner], second[corner]) for corner in corners)
    together = find_peak(total, (64, 64))
    alone = np.median([find_offset(first[corner], second[corner]).confidence for corner in corners])
    assert together.confidence > alone
    assert together.dx == pytest.approx(3, abs=0.3)


def test_a_window_that_is_mostly_absent_has_no_edges() -> None:
    pixels = surface(5)
    pixels[:, :, :60] = np.nan
    assert edge_strength(pixels) is None
    pixels = surface(5)
    pixels[:, :, :20] = np.nan
    found = edges(pixels)
    assert np.isfinite(found).all()
    assert (found[:, :20] == 0).all(), "the border of what is absent is no edge"
    assert (found[:, 19:24] == 0).all()
