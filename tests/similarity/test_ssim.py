"""SSIM against scikit-image and torchmetrics, its parts, constants, borders and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import camera
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.autograd import gradcheck
from torchmetrics.functional.image import structural_similarity_index_measure

from blemish.errors import UsageError
from blemish.similarity import SSIM, LogSSIM, log_ssim, ssim, ssim_map, ssim_parts

WINDOWS = {
    "gaussian": ({}, {"gaussian_weights": True, "sigma": 1.5}),
    "uniform 7": ({"kind": "uniform", "window": 7}, {"win_size": 7}),
    "uniform 11": ({"kind": "uniform", "window": 11}, {"win_size": 11}),
}


def noisy(x: Tensor, amount: float = 0.1) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    return (x + amount * noise).clamp(0, 1)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def real() -> Tensor:
    return torch.from_numpy(camera()[100:260, 180:311].astype(np.float64) / 255)[None, None]


PAIRS = {
    "random": (random(2, 3, 37, 46), noisy(random(2, 3, 37, 46))),
    "constant": (torch.full((1, 1, 24, 21), 0.3).double(), torch.full((1, 1, 24, 21), 0.7).double()),
    "real": (real(), noisy(real(), 0.05)),
    "wide and low": (random(1, 1, 11, 300), random(1, 1, 11, 300).flip(-1)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("window", WINDOWS)
def test_equals_scikit_image(pair: str, window: str) -> None:
    (x, y), (ours, theirs) = PAIRS[pair], WINDOWS[window]
    full_map = ssim_map(x, y, data_range=1.0, **ours)
    inner_mean = ssim(x, y, data_range=1.0, padding="valid", **ours)
    for n in range(len(x)):
        mean, full = structural_similarity(
            x[n].numpy(),
            y[n].numpy(),
            channel_axis=0,
            full=True,
            data_range=1.0,
            use_sample_covariance=False,
            **theirs,
        )
        np.testing.assert_allclose(full_map[n].numpy(), full, atol=1e-9)
        assert inner_mean[n].item() == pytest.approx(mean, abs=1e-9)
    torch.testing.assert_close(ssim(x, y, data_range=1.0, **ours), full_map.mean((1, 2, 3)))


def test_valid_map_is_the_inside_of_the_full_one() -> None:
    x, y = PAIRS["random"]
    inside = ssim_map(x, y, data_range=1.0)[..., 5:-5, 5:-5]
    torch.testing.assert_close(ssim_map(x, y, data_range=1.0, padding="valid"), inside)


def test_equals_torchmetrics() -> None:
    # its border is mirrored without the edge pixel, so the maps agree inside
    x, y = PAIRS["random"]
    _, theirs = structural_similarity_index_measure(y, x, data_range=1.0, return_full_image=True)
    inside = theirs[..., 5:-5, 5:-5]
    torch.testing.assert_close(ssim_map(x, y, data_range=1.0, padding="valid"), inside, atol=1e-6, rtol=0)


def test_float32_stays_close_to_float64() -> None:
    x, y = PAIRS["real"]
    exact = ssim_map(x, y, data_range=1.0)
    assert (ssim_map(x.float(), y.float(), data_range=1.0) - exact).abs().max() < 5e-4


def test_large_images_and_many_channels_are_processed_in_chunks() -> None:
    x = random(2, 11, 150, 170)
    y = noisy(x)
    together = ssim_map(x, y, data_range=1.0)
    for n, c in ((0, 0), (0, 10), (1, 5)):
        alone = ssim_map(x[n : n + 1, c : c + 1], y[n : n + 1, c : c + 1], data_range=1.0)
        torch.testing.assert_close(together[n, c], alone[0, 0])
    x, y = random(1, 1, 600, 700), noisy(random(1, 1, 600, 700))
    corner = ssim_map(x[..., :64, :64], y[..., :64, :64], data_range=1.0)
    torch.testing.assert_close(ssim_map(x, y, data_range=1.0)[..., :59, :59], corner[..., :59, :59])


def test_memory_layout_changes_nothing() -> None:
    x, y = PAIRS["random"]
    there = y.clone().requires_grad_()
    ssim(x, there, data_range=1.0).sum().backward()
    here = y.clone(memory_format=torch.channels_last).requires_grad_()
    ssim(x.contiguous(memory_format=torch.channels_last), here, data_range=1.0).sum().backward()
    torch.testing.assert_close(here.grad, there.grad)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "valid"},
        {"kind": "uniform"},
        {"alpha": 2, "beta": 0.5, "gamma": 0.7},
        {"constants": "bergmann"},
    ],
    ids=str,
)
@pytest.mark.parametrize("measure", [ssim, ssim_map, log_ssim])
def test_gradient(measure, options) -> None:
    x, y = random(2, 2, 7, 9), random(2, 2, 9, 7).transpose(2, 3).contiguous()

    def of(x: Tensor, y: Tensor) -> Tensor:
        return measure(x, y, data_range=1.0, window=5, **options)

    assert gradcheck(of, (x.requires_grad_(), y.requires_grad_()), fast_mode=True)
    assert gradcheck(of, (x.detach(), y), fast_mode=True)
    assert gradcheck(of, (x, y.detach()), fast_mode=True)


def test_each_entry_of_the_gradient() -> None:
    x, y = (
        random(1, 2, 6, 7).requires_grad_(),
        random(1, 2, 7, 6).transpose(2, 3).contiguous().requires_grad_(),
    )
    assert gradcheck(lambda x, y: ssim_map(x, y, data_range=1.0, window=3), (x, y))
    assert gradcheck(lambda x, y: ssim(x, y, data_range=1.0, window=3), (x, y))


def test_mean_and_map_have_one_gradient() -> None:
    x, y = PAIRS["random"]
    weights = torch.tensor([1.0, -2.0])
    of_mean, of_map = y.clone().requires_grad_(), y.clone().requires_grad_()
    (ssim(x, of_mean, data_range=1.0) * weights).sum().backward()
    (ssim_map(x, of_map, data_range=1.0).mean((1, 2, 3)) * weights).sum().backward()
    torch.testing.assert_close(of_mean.grad, of_map.grad)


def test_parts_multiply_to_the_map() -> None:
    x, y = PAIRS["random"]
    luminance, contrast, structure = ssim_parts(x, y, data_range=1.0)
    torch.testing.assert_close(luminance * contrast * structure, ssim_map(x, y, data_range=1.0))
    weighted = luminance**2 * contrast**0.5 * structure.sign() * structure.abs() ** 1.5
    torch.testing.assert_close(ssim_map(x, y, data_range=1.0, alpha=2, beta=0.5, gamma=1.5), weighted)
    torch.testing.assert_close(ssim_map(x, y, data_range=1.0, alpha=0, beta=0), structure)


def test_each_factor_responds_to_its_own_change() -> None:
    x = 0.25 + random(1, 1, 32, 32) / 4
    brighter = ssim_parts(x, x + 0.25, data_range=1.0)
    assert brighter.luminance.max() < 0.99
    torch.testing.assert_close(brighter.contrast, torch.ones_like(x))
    torch.testing.assert_close(brighter.structure, torch.ones_like(x))
    # far below the noise the constants vanish: half the contrast compares as 2·½ / (1 + ¼)
    flatter = ssim_parts(x, x / 2, data_range=1.0, c1=1e-12, c2=1e-12)
    torch.testing.assert_close(flatter.contrast, torch.full_like(x, 0.8))
    torch.testing.assert_close(flatter.structure, torch.ones_like(x))
    negative = ssim_parts(x, 1 - x, data_range=1.0, c2=1e-12)
    torch.testing.assert_close(negative.structure, -torch.ones_like(x))


def test_opposite_structure_under_a_fractional_exponent_stays_a_number() -> None:
    x = random(1, 1, 16, 16)
    y = (1 - x).requires_grad_()
    opposite = ssim_map(x, y, data_range=1.0, gamma=0.5)
    opposite.sum().backward()
    assert opposite.max() < 0
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_constants() -> None:
    x, y = torch.zeros(1, 1, 16, 16).double(), torch.full((1, 1, 16, 16), 0.5).double()
    # without variance only the luminance is left: c1 / (0.25 + c1)
    for options, c1 in (
        ({}, 1e-4),
        ({"constants": "bergmann"}, 0.01),
        ({"c1": 0.25}, 0.25),
        ({"k1": 0.1}, 0.01),
    ):
        expected = torch.full((1,), c1 / (0.25 + c1)).double()
        torch.testing.assert_close(ssim(x, y, data_range=1.0, **options), expected)
    # of equal mean and no structure only c2 is left: a flat image against a checkerboard of variance 0.25
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).double()[None, None]
    flat = torch.full_like(board, 0.5)
    for options, c2 in (
        ({}, 9e-4),
        ({"constants": "bergmann"}, 0.03),
        ({"c2": 0.25}, 0.25),
        ({"k2": 0.3}, 0.09),
    ):
        contrast = ssim_parts(flat, board, data_range=1.0, **options).contrast[0, 0, 8, 8]
        assert contrast.item() == pytest.approx(c2 / (0.25 + c2), rel=1e-3)


@pytest.mark.parametrize("constants", ["wang", "bergmann"])
def test_scale_of_the_values_does_not_matter(constants) -> None:
    x, y = PAIRS["random"]
    scaled = ssim_map(255 * x, 255 * y, data_range=255, constants=constants)
    torch.testing.assert_close(scaled, ssim_map(x, y, data_range=1.0, constants=constants))


def test_equal_images_give_exactly_one() -> None:
    for dtype in (torch.float32, torch.float64):
        x = random(2, 3, 40, 41, dtype=dtype)
        assert (ssim_map(x, x, data_range=1.0) == 1).all()
        assert (ssim(x, x, data_range=1.0) == 1).all()


def test_near_equal_images_have_a_positive_distance() -> None:
    # the shortfall grows with the square of the difference, also where float32 cannot represent 1 - 1e-9
    x = random(1, 1, 32, 32)
    shortfall = [1 - ssim(x, x + step, data_range=1.0).item() for step in (1e-4, 2e-4)]
    assert shortfall[1] / shortfall[0] == pytest.approx(4, rel=1e-3)


def test_log_ssim() -> None:
    x, y = PAIRS["random"]
    expected = -torch.log((ssim(x, y, data_range=1.0) + 1) / 2)
    torch.testing.assert_close(log_ssim(x, y, data_range=1.0), expected)


def test_global_precision_settings_have_no_influence() -> None:
    x, y = random(1, 3, 40, 40, dtype=torch.float32), noisy(random(1, 3, 40, 40, dtype=torch.float32))
    plain = ssim_map(x, y, data_range=1.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(ssim_map(x, y, data_range=1.0), plain, atol=0, rtol=0)
            torch.testing.assert_close(
                ssim_parts(x, y, data_range=1.0).luminance, ssim_parts(x, y, data_range=1.0)[0]
            )
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_first_use_in_inference_mode_does_not_break_training() -> None:
    x = random(1, 1, 23, 29)
    with torch.inference_mode():
        ssim(x, x, data_range=1.0)
        ssim_parts(x, x, data_range=1.0)
    y = noisy(x).requires_grad_()
    (ssim(x, y, data_range=1.0) + ssim_parts(x, y, data_range=1.0).contrast.mean()).sum().backward()
    assert y.grad is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 10}, "odd"),
        ({"window": 19}, "larger than the image of 18×20"),
        ({"sigma": 0}, "sigma"),
        ({"kind": "round"}, "'gaussian' or 'uniform'"),
        ({"padding": "zero"}, "'symmetric' or 'valid'"),
        ({"constants": "mine"}, "'wang' or 'bergmann'"),
        ({"k1": 0}, "c1"),
        ({"c2": -1}, "c2"),
        ({"gamma": -1}, "gamma"),
    ],
)
def test_refuses_options_that_make_no_sense(options, words) -> None:
    x = random(1, 1, 18, 20)
    with pytest.raises(UsageError, match=words):
        ssim(x, x, data_range=1.0, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 10}, "odd number"),
        ({"kind": "foo"}, "window kind 'foo'"),
        ({"padding": "foo"}, "padding 'foo'"),
        ({"sigma": 0}, "sigma"),
        ({"constants": "foo"}, "constants 'foo'"),
    ],
)
def test_module_refuses_wrong_options_before_any_image(options, words) -> None:
    for module in (SSIM, LogSSIM):
        with pytest.raises(UsageError, match=words):
            module(data_range=1.0, **options)


def test_module_takes_and_shows_its_options() -> None:
    x, y = PAIRS["random"]
    module = SSIM(data_range=2.0, window=7, kind="uniform", padding="valid")
    torch.testing.assert_close(
        module.distance(x, y), 1 - ssim(x, y, data_range=2.0, window=7, kind="uniform", padding="valid")
    )
    assert module.distance_map(x, y).shape == (2, 1, 37, 46)
    assert "window=7" in repr(module)
    assert SSIM(**module.settings()).settings() == module.settings()
