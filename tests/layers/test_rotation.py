"""Rotation against quarter turns, scipy's splines and finite differences; the gradient loss against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from blemish.layers.rotation import (
    DIAGONAL,
    canvas_mask,
    from_canvas,
    gradient_loss,
    loss_at_angle,
    loss_by_angle,
    modulation,
    onto_canvas,
    rotate,
)


def smooth(count: int, channels: int, side: int, *, seed: int = 0) -> Tensor:
    """Images in [0, 1] without anything finer than about 8 pixels."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((count, channels, side, side)), (0, 0, 2.5, 2.5))
    return torch.from_numpy((0.5 + noise).clip(0, 1)).float()


def stripes(angle: float, *, side: int = 64, period: float = 10) -> Tensor:
    """(1, 1, S, S) of edges that lie horizontally after a turn by -angle."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    across = math.sin(angle) * x + math.cos(angle) * y
    return torch.from_numpy(np.sin(2 * math.pi * across / period)).float()[None, None]


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2, 3, 4])
def test_quarter_turns_are_exact_and_counter_clockwise(side: int, quarters: int) -> None:
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, torch.full((2,), quarters * math.pi / 2))
    torch.testing.assert_close(turned, x.rot90(quarters, (2, 3)), atol=1e-4, rtol=0)


def test_agrees_with_a_cubic_spline_and_the_grid_of_equation_8() -> None:
    x = smooth(1, 1, 48)
    angle = 0.6
    rows, columns = np.mgrid[:48, :48] - 23.5
    # theta of equation (8) maps output coordinates to input coordinates
    u = math.cos(angle) * columns - math.sin(angle) * rows
    v = math.sin(angle) * columns + math.cos(angle) * rows
    spline = ndimage.map_coordinates(x[0, 0].double().numpy(), [v + 23.5, u + 23.5], order=3)
    turned = rotate(x, torch.tensor([angle]))[0, 0].numpy()
    inside = np.hypot(rows, columns) < 21
    assert np.abs(turned - spline)[inside].max() < 0.02


def test_each_image_has_its_own_angle() -> None:
    x = smooth(3, 2, 33)
    angles = torch.tensor([0.3, -1.2, 2.5])
    together = rotate(x, angles)
    for index in range(3):
        torch.testing.assert_close(together[[index]], rotate(x[[index]], angles[[index]]))


def test_size_may_be_oblong_and_scale_is_about_the_centre() -> None:
    x = torch.zeros(1, 1, 31, 21)
    x[..., 15 - 2 : 15 + 3, 10 - 1 : 10 + 2] = 1  # 5 × 3 in the middle
    larger = rotate(x, torch.zeros(1), scale=3)
    assert larger.shape == x.shape
    rows, columns = (larger[0, 0] > 0.5).nonzero().T
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (8, 22, 6, 14)


def test_a_turn_by_45_degrees_and_back_is_more_accurate_than_bilinear_sampling() -> None:
    x, angle = smooth(2, 1, 64), torch.full((2,), math.pi / 4)
    inner = (..., slice(12, -12), slice(12, -12))

    def error(sampling: str) -> float:
        there = rotate(x, angle, sampling=sampling)  # type: ignore[arg-type]
        back = rotate(there, -angle, sampling=sampling)  # type: ignore[arg-type]
        return float((back - x)[inner].abs().mean())

    assert error("bicubic") < 1 / 255
    assert error("bicubic") < error("bilinear")


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4, 2.0, -3.0])
@pytest.mark.parametrize("side", [64, 65])
def test_the_canvas_keeps_the_whole_image_up_to_its_edge(angle: float, side: int) -> None:
    x = smooth(1, 2, side)
    angles = torch.tensor([angle])
    back = from_canvas(onto_canvas(x, angles), angles)
    assert (back - x).abs().max() < 0.05
    assert (back - x)[..., 0].abs().mean() < 2 / 255


def test_beyond_the_image_the_canvas_is_zero() -> None:
    angle = torch.tensor([0.5])
    canvas = onto_canvas(torch.ones(1, 1, 64, 64), angle)
    assert canvas[canvas_mask(angle, 64, margin=-2.0) == 0].abs().max() == 0
    torch.testing.assert_close(canvas[canvas_mask(angle, 64) == 1].min(), torch.tensor(1.0))


def test_the_mask_covers_the_turned_square() -> None:
    upright = canvas_mask(torch.zeros(1), 64)[0, 0]
    assert upright.sum() == 46**2  # pixels whose centres lie within 32 / √2 = 22.6 of the middle
    diamond = canvas_mask(torch.tensor([math.pi / 4]), 64)[0, 0]
    assert diamond[0].sum() in (0, 2)  # its corner touches the middle of the edge
    assert diamond[31].sum() == 64
    assert abs(float(diamond.sum() - upright.sum())) < 0.05 * float(upright.sum())


def test_gradients_by_pixels_and_angle_agree_with_finite_differences() -> None:
    x = smooth(1, 1, 24)
    weight = smooth(1, 1, 24, seed=1) - 0.5

    def value(image: Tensor, angle: Tensor) -> Tensor:
        return (weight * rotate(image, angle)).sum()

    x.requires_grad_()
    angle = torch.tensor([0.37], requires_grad=True)
    by_x, by_angle = torch.autograd.grad(value(x, angle), (x, angle))
    with torch.no_grad():
        numeric = (value(x, angle + 1e-2) - value(x, angle - 1e-2)) / 2e-2
        direction = smooth(1, 1, 24, seed=2)
        along = value(x + direction, angle) - value(x, angle)  # linear in the pixels
    torch.testing.assert_close(by_angle[0], numeric, rtol=0.03, atol=1e-3)
    torch.testing.assert_close((by_x * direction).sum(), along, rtol=1e-3, atol=1e-4)


def test_sampling_ignores_autocast() -> None:
    x, angle = smooth(1, 1, 32), torch.tensor([0.3])
    with torch.autocast("cpu", torch.bfloat16):
        turned = rotate(x.bfloat16(), angle)
    assert turned.dtype == torch.float32
    assert torch.equal(turned, rotate(x.bfloat16().float(), angle))


@pytest.mark.parametrize("turn", [0.0, 0.5, 1.4, -0.8])
def test_edges_that_lie_horizontally_have_the_least_loss(turn: float) -> None:
    x = stripes(turn)
    angles = torch.linspace(-math.pi / 2, math.pi / 2, 37)[:-1]
    losses = torch.cat([gradient_loss(x, angle[None]) for angle in angles])
    off = torch.remainder(angles[losses.argmin()] + turn + math.pi / 2, math.pi) - math.pi / 2
    assert abs(float(off)) < math.radians(5)
    assert losses.min() < 0.1 * losses.max()


def test_the_loss_is_the_same_after_a_half_turn() -> None:
    x, angle = smooth(2, 1, 64), torch.tensor([0.3, -1.0])
    torch.testing.assert_close(gradient_loss(x, angle), gradient_loss(x, angle + math.pi), rtol=1e-3, atol=0)


def test_the_loss_is_that_of_the_image_turned_first() -> None:
    """Equation (7) written out with scipy, on the canvas as it is."""
    x, angle = smooth(1, 1, 64), torch.tensor([0.7])
    canvas = onto_canvas(x, angle)[0, 0].double().numpy()
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2.0)
    blurred = ndimage.convolve1d(ndimage.convolve1d(canvas, line / line.sum(), 0), line / line.sum(), 1)
    sobel = ndimage.correlate(blurred, np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]))
    mask = canvas_mask(angle, 64, margin=3 * DIAGONAL)[0, 0].bool().numpy()
    torch.testing.assert_close(
        gradient_loss(x, angle)[0].item(), float(np.abs(sobel)[mask].mean()), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_closed_form_follows_the_sampled_loss(seed: int) -> None:
    x = (stripes(0.4) + 2 * (smooth(1, 1, 64, seed=seed) - 0.5)) / 2
    angles = torch.linspace(0, math.pi, 19)
    sampled = torch.cat([gradient_loss(x, angle[None]) for angle in angles])
    torch.testing.assert_close(
        loss_by_angle(x, angles)[0], sampled, rtol=0.05, atol=0.05 * float(sampled.max())
    )


def test_the_loss_has_a_gradient_that_descends() -> None:
    angle = torch.tensor([-0.5], requires_grad=True)
    (slope,) = torch.autograd.grad(gradient_loss(stripes(0.2), angle).sum(), angle)
    assert slope.item() < 0  # the minimum is at -0.2
    angle = torch.tensor([0.1], requires_grad=True)
    (slope,) = torch.autograd.grad(gradient_loss(stripes(0.2), angle).sum(), angle)
    assert slope.item() > 0


def test_the_loss_at_an_angle_is_that_of_the_row_of_all_angles() -> None:
    x, angle = smooth(3, 1, 64), torch.tensor([0.3, -1.2, 2.0])
    torch.testing.assert_close(loss_at_angle(x, angle), loss_by_angle(x, angle).diagonal())


@pytest.mark.parametrize("texture", ["gravel", "stripes"])
def test_the_gradient_by_the_angle_is_the_slope_of_the_loss(texture: str) -> None:
    """Of gravel the loss by sampling has a gradient that has little to do with its own slope."""
    x = rubble() if texture == "gravel" else stripes(0.4)
    angles = torch.linspace(0, math.pi, 73, dtype=torch.float64)[:-1].requires_grad_()
    many = x.expand(len(angles), -1, -1, -1)
    (slopes,) = torch.autograd.grad(loss_at_angle(many, angles).sum(), angles)
    with torch.no_grad():
        step = 1e-3
        secants = (loss_at_angle(many, angles + step) - loss_at_angle(many, angles - step)) / (2 * step)
    assert torch.corrcoef(torch.stack([slopes, secants]))[0, 1] > 0.999
    torch.testing.assert_close(
        slopes.float(), secants.float(), rtol=0.05, atol=0.02 * float(secants.abs().max())
    )


def rubble() -> Tensor:
    """(1, 1, 64, 64) blobs without a dominant orientation, of mean 0 and variance 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((64, 64)), 2)
    return torch.from_numpy((noise - noise.mean()) / noise.std()).float()[None, None]


def test_modulation_is_one_for_a_single_direction_and_zero_for_none() -> None:
    row = torch.arange(64) // 16
    board = ((row[:, None] + row) % 2).float()[None, None]
    flat = torch.full((1, 1, 64, 64), 0.5)
    rings = torch.hypot(torch.arange(64) - 31.5, (torch.arange(64) - 31.5)[:, None]).cos()[None, None]
    assert modulation(stripes(0.3)) > 0.85
    assert 0.1 < modulation(board) <= 1 - 1 / math.sqrt(2) + 0.01
    assert modulation(rings) < 0.1
    assert modulation(flat) == 0
    torch.testing.assert_close(modulation(3 * stripes(0.3)), modulation(stripes(0.3)))


def test_modulation_of_noise_is_small() -> None:
    noise = torch.rand(50, 1, 128, 128, generator=torch.Generator().manual_seed(3))
    assert modulation(F.interpolate(noise, size=64, mode="area")).median() < 0.1
