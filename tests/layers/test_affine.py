"""Affine cuts against rotation and flips of whole pixels, and the side that keeps every cut inside its image."""

from __future__ import annotations

import math

import pytest
import torch

from blemish.layers.affine import Affine, AffineRange, affine_cut
from blemish.layers.rotation import rotate


def images(count: int = 2, side: int = 41) -> torch.Tensor:
    return torch.rand(count, 2, side, side, generator=torch.Generator().manual_seed(0))


def test_without_a_transform_the_middle_is_cut() -> None:
    x = images()
    same = AffineRange(degrees=0).draw(2, 21)
    torch.testing.assert_close(affine_cut(x, same, 21), x[..., 10:31, 10:31], atol=1e-5, rtol=0)


def test_a_rotation_is_that_of_the_layer_and_a_shift_moves_by_pixels() -> None:
    x = images()
    angle = torch.tensor([0.4, -1.3])
    matrix = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2
    )
    none = torch.zeros(2, 2)
    turned = affine_cut(x, Affine(matrix, none), 21)
    torch.testing.assert_close(turned, rotate(x, angle)[..., 10:31, 10:31].clamp(0, 1), atol=1e-4, rtol=0)
    moved = affine_cut(x, Affine(torch.eye(2).expand(2, 2, 2), torch.tensor([[3.0, -2.0]] * 2)), 21)
    torch.testing.assert_close(moved, x[..., 8:29, 13:34], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "ranges",
    [
        AffineRange(),
        AffineRange(degrees=20),
        AffineRange(degrees=60, scale=0.2),
        AffineRange(translation=0.2, scale=0.1, shear=15),
        AffineRange(degrees=0, shear=20),
        AffineRange(degrees=30, translation=0.1, shear=10),
    ],
)
def test_no_cut_reaches_beyond_its_image_and_the_image_is_no_larger_than_needed(ranges: AffineRange) -> None:
    cut = 32
    side = ranges.side(cut)
    drawn = ranges.draw(20_000, cut, torch.Generator().manual_seed(1))
    half = (cut - 1) / 2
    corners = torch.tensor([[a * half, b * half] for a in (-1, 1) for b in (-1, 1)])
    places = torch.einsum("nij,kj->nki", drawn.matrix, corners) + drawn.shift[:, None]
    reach = float(places.abs().max())
    assert reach <= (side - 1) / 2 - 1
    assert reach >= 0.85 * (side / 2 - 2)


def test_draws_cover_the_range_and_follow_the_generator() -> None:
    ranges = AffineRange(degrees=90, translation=0.1, scale=0.2)
    drawn, again = (ranges.draw(5000, 40, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(drawn.matrix, again.matrix)
    angle = torch.atan2(drawn.matrix[:, 1, 0], drawn.matrix[:, 0, 0])
    size = 1 / torch.linalg.det(drawn.matrix).sqrt()
    assert 0.99 * math.pi / 2 < angle.max() < math.pi / 2 + 1e-5
    assert abs(angle.mean()) < 0.05
    assert 0.8 <= size.min() < 0.81
    assert 1.19 < size.max() <= 1.2 + 1e-5
    assert drawn.shift.abs().max() <= 4
    sheared = AffineRange(degrees=0, shear=10).draw(5000, 40, torch.Generator().manual_seed(3)).matrix
    torch.testing.assert_close(torch.linalg.det(sheared), torch.ones(5000))
    assert sheared[:, 0, 1].max() == pytest.approx(math.tan(math.radians(10)), rel=1e-2)
