"""MS-SSIM against pytorch-msssim, its limits and its gradient."""

from __future__ import annotations

import math

import pytest
import pytorch_msssim
import torch
from torch import Tensor
from torch.autograd import gradcheck

from blemish.errors import UsageError
from blemish.similarity import MSSSIM, ms_ssim, ms_ssim_map, ssim


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x, (x + 0.3 * torch.rand(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


@pytest.mark.parametrize("size", [(161, 161), (176, 192), (163, 205)])
def test_equals_pytorch_msssim(size: tuple[int, int]) -> None:
    x, y = pair(2, 3, *size)
    theirs = pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False)
    torch.testing.assert_close(ms_ssim(x, y, data_range=1.0), theirs, atol=1e-6, rtol=0)


def test_equals_pytorch_msssim_with_other_settings_and_gradient() -> None:
    x, y = pair(2, 1, 97, 104)
    ours, theirs = y.clone().requires_grad_(), y.clone().requires_grad_()
    value = ms_ssim(
        255 * x, 255 * ours, data_range=255, weights=(0.2, 0.5, 0.3), window=7, sigma=1.0, k2=0.05
    )
    reference = pytorch_msssim.ms_ssim(
        255 * x,
        255 * theirs,
        data_range=255,
        weights=[0.2, 0.5, 0.3],
        win_size=7,
        win_sigma=1.0,
        K=(0.01, 0.05),
        size_average=False,
    )
    torch.testing.assert_close(value, reference, atol=1e-6, rtol=0)
    value.sum().backward()
    reference.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_one_scale_is_ssim() -> None:
    x, y = pair(2, 3, 20, 25)
    torch.testing.assert_close(
        ms_ssim(x, y, data_range=1.0, weights=(1.0,)), ssim(x, y, data_range=1.0, padding="valid")
    )


def test_gradient() -> None:
    x, y = (batch.requires_grad_() for batch in pair(1, 2, 9, 11))
    assert gradcheck(lambda x, y: ms_ssim(x, y, data_range=1.0, window=3, weights=(0.4, 0.6)), (x, y))
    assert gradcheck(
        lambda x, y: ms_ssim_map(x, y, data_range=1.0, window=3, weights=(0.4, 0.6)), (x, y), fast_mode=True
    )


def test_opposite_images_give_zero_with_a_finite_gradient() -> None:
    x, _ = pair(1, 1, 48, 48)
    y = (1 - x).requires_grad_()
    value = ms_ssim(x, y, data_range=1.0, weights=(0.5, 0.5))
    value.sum().backward()
    assert value.item() == 0
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_the_map_is_low_where_the_images_differ() -> None:
    x, _ = pair(1, 3, 67, 71)
    y = x.clone()
    y[..., 40:48, 20:28] = 0.5
    found = 1 - ms_ssim_map(x, y, data_range=1.0, weights=(0.3, 0.4, 0.3))
    assert found.shape == x.shape
    assert found[..., 40:48, 20:28].mean() > 10 * found[..., :10, 50:].mean().clamp_min(1e-6)
    assert found[..., :8, 60:].max() < 1e-9


def test_refuses_images_too_small_for_the_scales() -> None:
    x, y = pair(1, 1, 160, 200)
    with pytest.raises(
        UsageError, match="at least 161 pixels, the image has 160×200; give at most 4 weights"
    ):
        ms_ssim(x, y, data_range=1.0)
    assert ms_ssim(x, y, data_range=1.0, weights=(0.25,) * 4).shape == (1,)
    with pytest.raises(UsageError, match="weights"):
        ms_ssim(x, y, data_range=1.0, weights=())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": ()}, "weights"),
        ({"weights": (0.5, -0.1)}, "weights"),
        ({"weights": (0.5, math.nan)}, "weights"),
        ({"window": 10}, "odd number"),
        ({"kind": "foo"}, "window kind 'foo'"),
    ],
)
def test_module_refuses_settings_before_any_image(options, words) -> None:
    with pytest.raises(UsageError, match=words):
        MSSSIM(data_range=1.0, **options)


def test_module_takes_its_options() -> None:
    x, y = pair(2, 1, 40, 40)
    module = MSSSIM(data_range=1.0, weights=[0.5, 0.5], window=5)
    torch.testing.assert_close(
        module.distance(x, y), 1 - ms_ssim(x, y, data_range=1.0, weights=(0.5, 0.5), window=5)
    )
    assert MSSSIM(**module.settings()).settings() == module.settings()
